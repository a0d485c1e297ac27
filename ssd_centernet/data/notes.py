"""What of a split is left out of a training, or taken although it looks odd."""

from __future__ import annotations

from collections.abc import Sequence

from ssd_centernet.data.augment.compose import Composition, PictureStep
from ssd_centernet.data.mixture import Mixture
from ssd_centernet.data.shards import RecordSource


def training_notes(
    source: RecordSource | Mixture,
    max_boxes: int,
    limit: tuple[int, str] | None,
    targets_in_pipeline: bool,
    compose: PictureStep | Sequence[PictureStep] | None = None,
) -> list[str]:
    """Say what of a split is left out, or taken although it looks odd, with counts.

    Args:
        source: of `training_source`.
        max_boxes: rows of objects of the batches.
        limit: how many objects of an image the targets hold, and the setting that says so; None if
            they hold all.
        targets_in_pipeline: whether the pipeline makes the targets, of all objects, before it cuts
            the fields of the batches.
        compose: steps on whole pictures, such as `Mosaic`.

    Returns:
        A sentence each; nothing where all is used.
    """
    limits = {"training_batches.max_boxes": max_boxes} | ({limit[1]: limit[0]} if limit else {})
    of_joined = Composition(compose).notes(source.objects(), limits)
    return _of_records(source, max_boxes, limit, targets_in_pipeline) + of_joined


def _of_records(
    source: RecordSource | Mixture,
    max_boxes: int,
    limit: tuple[int, str] | None,
    targets_in_pipeline: bool,
) -> list[str]:
    setting, left_out = "training_batches.max_boxes", "the rest of theirs are left out"
    if limit is not None and limit[0] == max_boxes:
        return source.notes() + source.beyond(max_boxes, f"{setting} and {limit[1]}", left_out)
    of_batches = f"{left_out} of the batches"
    if targets_in_pipeline:
        of_batches = "the batches and their pictures hold the first ones"
    notes = source.notes() + source.beyond(max_boxes, setting, of_batches)
    return notes + (source.beyond(*limit, f"{left_out} of the targets") if limit else [])
