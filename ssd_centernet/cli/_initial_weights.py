"""The weights that a recipe was published with, for a run that is told no others."""

from __future__ import annotations

from pathlib import Path

from absl import flags


def published_beginning() -> list[str]:
    """Find what an empty --fine_tune_checkpoint stands for; say so where it cannot be had.

    Returns:
        Bindings: of the weights that the recipe was published with. Where they cannot be fetched,
        the run begins with random ones, and no layer is frozen at these.
    """
    from ssd_centernet.run_directory import has_checkpoint
    from ssd_centernet.weights import catalog

    values = flags.FLAGS
    # The first file tells the recipe's name.
    recipe = Path(values.gin_file[0]).name.removesuffix(".gin")
    row = catalog.initial_weights(recipe)
    if row is None or has_checkpoint(values.model_dir):
        return []
    try:
        path = _locate(row.name)
    except OSError as error:
        _say(
            f"{recipe} was published with the initial weights {row.name}, which are not here: the "
            f"run begins with random ones. {str(error).strip().splitlines()[0]}"
        )
        return ["train.freeze = ()"]
    bindings = [f"train.fine_tune_checkpoint = {path!r}"]
    if values.fine_tune_checkpoint_type:
        kind = values.fine_tune_checkpoint_type
        bindings.append(f"train.fine_tune_checkpoint_type = {kind!r}")
    return bindings


def _locate(name: str) -> str:
    """Find published weights on this machine, or fetch them.

    Raises:
        OSError: they are not here and cannot be fetched.
    """
    try:
        from ssd_centernet.weights import fetching
    except ImportError as error:
        raise FileNotFoundError(f"{name} is not fetched: give --fine_tune_checkpoint.") from error
    return str(fetching.locate(name, say=_say))


def _say(text: str) -> None:
    print(text, flush=True)
