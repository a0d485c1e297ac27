"""What a run without weights, or with weights for a part of it, has to be told of."""

from __future__ import annotations

from collections.abc import Iterable

from ssd_centernet.models.detector import Detector
from ssd_centernet.recipe import Recipe
from ssd_centernet.weights import catalog

_SHOWN = 4


def from_random(recipe: Recipe) -> str:
    """Say that a run begins with random weights, and what its recipe was published with."""
    row = catalog.named(recipe.published_weights or "")
    if row is None:
        return "starting from random weights"
    return (
        f"starting from random weights; the published result of this recipe begins with {row.title}"
        f": --fine_tune_checkpoint={row.name} fetches it"
    )


def check_frozen(recipe: Recipe, detector: Detector, fresh: Iterable[str] | None = None) -> None:
    """Refuse a run whose frozen layers would stay random to its end.

    Args:
        recipe: says what is frozen, and whether it may be random.
        detector: with its variables.
        fresh: variables that no file has set; None for all.

    Raises:
        ValueError: some of them are frozen.
    """
    trained = {id(variable) for variable in detector.variables_to_train(recipe.freeze)}
    frozen = [
        variable.name.removesuffix(":0")
        for variable in detector.variables_to_train(())
        if id(variable) not in trained
    ]
    frozen = frozen if fresh is None else sorted(set(frozen) & set(fresh))
    if not frozen or recipe.random_frozen:
        return
    names = ", ".join(frozen[:_SHOWN]) + (", ..." if len(frozen) > _SHOWN else "")
    row = catalog.named(recipe.published_weights or "")
    given = f"--fine_tune_checkpoint={row.name} fetches those" if row else "Give those"
    raise ValueError(
        f"train.freeze = {tuple(recipe.freeze)!r} keeps {len(frozen)} variables as they are "
        f"({names}), but nothing sets them: they would stay random to the end. {given} that the "
        "recipe was published with; --from_scratch trains these layers too; or set "
        "train.random_frozen = True to keep them random."
    )
