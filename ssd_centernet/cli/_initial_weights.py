"""The weights that a recipe was published with, for a run that is told no others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def published_weights(gin_files: Sequence[str], model_dir: str) -> str | None:
    """Find the weights that a recipe was published with; say so where they cannot be had.

    Args:
        gin_files: of the recipe; the first one tells its name.
        model_dir: of the run. One that goes on needs no weights.

    Returns:
        Their path; None where there are none, or no network to fetch them.
    """
    from ssd_centernet.run_directory import first_line, has_checkpoint
    from ssd_centernet.weights import catalog, fetching

    recipe = Path(gin_files[0]).name.removesuffix(".gin")
    row = catalog.initial_weights(recipe)
    if row is None or has_checkpoint(model_dir):
        return None
    try:
        return str(fetching.locate(row.name, say=_say))
    except OSError as error:
        _say(
            f"{recipe} was published with the initial weights {row.name}, which are not here: the "
            f"run begins with random ones. {first_line(error)}"
        )
        return None


def _say(text: str) -> None:
    print(text, flush=True)
