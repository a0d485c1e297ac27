"""What a run without weights, or with weights for a part of it, has to be told of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ssd_centernet import run_directory
from ssd_centernet.models.detector import Detector
from ssd_centernet.training.log_files import recorded_sessions
from ssd_centernet.weights import catalog

_SHOWN = 4


def from_random(published: str | None) -> str:
    """Say that a run begins with random weights, and what its recipe was published with.

    Args:
        published: name of those weights, if there are any.
    """
    row = catalog.named(published or "")
    if row is None:
        return "starting from random weights"
    return (
        "starting from random weights; the published result of this recipe begins with "
        f"{row.title}: --fine_tune_checkpoint={row.name} fetches it"
    )


def check_frozen(
    detector: Detector,
    fresh: Iterable[str] | None,
    *,
    freeze: str | Sequence[str],
    allowed: bool,
    published: str | None,
) -> None:
    """Refuse a run whose frozen layers would stay random to its end.

    Args:
        detector: with its variables.
        fresh: names of variables that no file has set; None for all.
        freeze: patterns of those that are frozen.
        allowed: whether they may stay random.
        published: name of the weights that the recipe was published with.

    Raises:
        ValueError: some are frozen and fresh, or the detector is quantized and random.
    """
    if fresh is None and detector.quantized is not None:
        raise ValueError(
            "build_detector.quantize goes on with a trained detector: it keeps the statistics of "
            "the batch norms, and a random network has none. Give the run as "
            "--fine_tune_checkpoint."
        )
    trained = {id(variable) for variable in detector.variables_to_train(freeze)}
    frozen = [
        variable.name.removesuffix(":0")
        for variable in detector.variables_to_train(())
        if id(variable) not in trained
    ]
    frozen = frozen if fresh is None else sorted(set(frozen) & set(fresh))
    if not frozen or allowed:
        return
    names = ", ".join(frozen[:_SHOWN]) + (", ..." if len(frozen) > _SHOWN else "")
    row = catalog.named(published or "")
    given = f"--fine_tune_checkpoint={row.name} fetches those" if row else "Give those"
    raise ValueError(
        f"train.freeze = {freeze!r} keeps {len(frozen)} variables as they are ({names}), but "
        f"nothing sets them: they would stay random to the end. {given} that the recipe was "
        "published with; --from_scratch trains these layers too; or set train.freeze_random = "
        "True to keep them random."
    )


def began_without(model_dir: str | Path) -> bool:
    """Tell whether a run began when schedule and averages did not follow its length; they stay."""
    begun = [one for one in recorded_sessions(model_dir) if one.get("event") == "begin"]
    if not (begun and run_directory.has_checkpoint(model_dir)):
        return False
    return not any(one.get("fits_length") for one in begun)
