"""What a training begins with as the published systems have it: their weights, their data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from ssd_centernet.runs.own_data import OwnData

_TRAINS_ALL = "train.freeze_random = False"


def published_beginning() -> list[str]:
    """Find what an empty --fine_tune_checkpoint stands for; say so where it cannot be had.

    Returns:
        Bindings: of the weights that the recipe was published with. Where they cannot be fetched,
        the run begins with random ones, and no layer is frozen at these. --from_scratch asks for
        none.
    """
    from ssd_centernet.run_directory import has_checkpoint
    from ssd_centernet.runs.changed_settings import saved_settings
    from ssd_centernet.weights import catalog, fetching

    values = flags.FLAGS
    if values.from_scratch:
        return []
    # The first file tells the recipe's name.
    recipe = Path(values.gin_file[0]).name.removesuffix(".gin")
    row = catalog.initial_weights(recipe)
    if row is None:
        return []
    if has_checkpoint(values.model_dir):
        # A run that began without them goes on with the layers that it trains.
        trains_all = saved_settings(values.model_dir).get("train.freeze_random") == "False"
        return [_TRAINS_ALL] if trains_all else []
    try:
        path = str(fetching.locate(row.name, say=_say))
    except OSError as error:
        _say(
            f"{recipe} was published with the initial weights {row.name}, which are not here: the "
            f"run begins with random ones. {str(error).strip().splitlines()[0]}"
        )
        return [_TRAINS_ALL]
    bindings = [f"train.fine_tune_checkpoint = {path!r}"]
    if values.fine_tune_checkpoint_type:
        kind = values.fine_tune_checkpoint_type
        bindings.append(f"train.fine_tune_checkpoint_type = {kind!r}")
    return bindings


def downloaded_data(model_dir: str, data_dir: str) -> OwnData | None:
    """Return the annotations of COCO where a data directory holds it as it is downloaded."""
    from ssd_centernet.runs.own_data import OwnData, coco_download

    found = coco_download(data_dir)
    if found is None:
        return None
    own = OwnData(model_dir=model_dir, **found)
    _say(f"{data_dir} holds COCO as it is downloaded: it is converted, once, to {own.folder}")
    return own


def _say(text: str) -> None:
    print(text, flush=True)
