"""An opened run: a detector from the settings, classes and weights in its directory."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ssd_centernet import config
from ssd_centernet.building import build_detector
from ssd_centernet.checkpoint_files import DamagedError, parts_of
from ssd_centernet.data.directory import LABEL_MAP_NAME
from ssd_centernet.labels import LabelMap
from ssd_centernet.models.detector import Detector
from ssd_centernet.recipe import Recipe
from ssd_centernet.run_directory import CONFIG_NAME, choose_checkpoint
from ssd_centernet.runtime.device import claim_device, refuse_shared_devices, select_device
from ssd_centernet.runtime.distribution import Communicator, SingleProcess
from ssd_centernet.weights import UnfitError, restore

DEFAULT_SPLIT = "coco_val"
# Of reading a checkpoint that a training replaces; it does so minutes apart.
_TRIES = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenedRun:
    """Hold a trained detector and where it came from.

    Attributes:
        detector: with the weights of the checkpoint.
        label_map: the classes that it was trained on.
        checkpoint: prefix of the checkpoint's files.
        eval_split: the split that the training evaluated on, `coco_val` where it had none.
        trained: whether these are the weights that were trained, and not their averages.
    """

    detector: Detector
    label_map: LabelMap
    checkpoint: str
    eval_split: str
    trained: bool = False


def open_run(
    model_dir: str | Path,
    *,
    checkpoint: str | None = None,
    gin_params: Sequence[str] | None = None,
    flag_params: Sequence[str] | None = None,
    device: str | None = "auto",
    communicator: Communicator | None = None,
    allow: Sequence[str] = (),
    allow_import: Sequence[str] | None = None,
    trained: bool = False,
) -> OpenedRun:
    """Build the detector of a run from its saved settings and restore its weights.

    Args:
        model_dir: directory of the run.
        checkpoint: as in `choose_checkpoint`.
        gin_params: bindings that win over the run's settings, such as
            'SSDDecoder.score_threshold = 0.01'.
        flag_params: bindings made from command-line flags.
        device: auto, cpu, gpu, tpu, hpu, mlu or npu; None leaves it to TensorFlow, and the weights
            where a Keras model of the caller's own would have them.
        communicator: connects the processes that open the run; each takes its own device.
        allow: names whose overrides may be without effect, such as 'train'.
        allow_import: modules that the run's settings may import and name.
        trained: whether to take the weights that were trained where the run averages them.

    Returns:
        The detector with what belongs to it.

    Raises:
        FileNotFoundError: no run, no settings or no checkpoint there.
        RuntimeError: no such device, or another process has the same.
        ValueError: the checkpoint does not fit the settings, these import modules that are not
            allowed, or an override has no effect.
    """
    communicator = communicator or SingleProcess()
    choose_checkpoint(model_dir, checkpoint)  # Raises an error before anything is built.
    settings = Path(model_dir) / CONFIG_NAME
    if not settings.exists():
        raise FileNotFoundError(
            f"{model_dir} holds checkpoints but no {CONFIG_NAME}, the settings that training saves "
            "beside them; copy it there from the run."
        )
    label_map = _run_label_map(Path(model_dir))
    config.parse([settings], gin_params, flag_params=flag_params, allow_import=allow_import)
    with _placed(device, communicator):
        detector = build_detector(label_map=label_map)
    prefix = _restore_chosen(detector, model_dir, checkpoint, communicator, trained=trained)
    # Asked after this: a recipe takes all settings of a training, which then count as used.
    config.assert_all_used(allow=("train.eval_split", *allow), overrides_only=True)
    return OpenedRun(
        detector=detector,
        label_map=label_map,
        checkpoint=prefix,
        eval_split=Recipe().eval_split or DEFAULT_SPLIT,
        trained=trained,
    )


def with_checkpoint(run: OpenedRun, prefix: str) -> OpenedRun:
    """Give a run's detector the weights of another checkpoint.

    Args:
        run: of `open_run`; its detector gets the weights too.
        prefix: of the checkpoint's files.

    Returns:
        The run with the other checkpoint.

    Raises:
        ValueError: the checkpoint does not fit the settings, or is damaged.
    """
    _restore_all(run.detector, prefix, trained=run.trained)
    return dataclasses.replace(run, checkpoint=prefix)


def _placed(device: str | None, communicator: Communicator) -> contextlib.AbstractContextManager:
    """Return the scope in which this process makes its variables."""
    if device is None:
        return contextlib.nullcontext()
    strategy = select_device(device, index=communicator.local_rank)
    refuse_shared_devices(communicator.gather([claim_device(strategy, communicator.local_rank)]))
    return strategy.scope()


def _run_label_map(model_dir: Path) -> LabelMap:
    if not (model_dir / LABEL_MAP_NAME).exists():
        raise FileNotFoundError(
            f"{model_dir} has no {LABEL_MAP_NAME}, which training saves beside its checkpoints; "
            "copy it there from the data that the run was trained on."
        )
    return LabelMap.from_pbtxt(model_dir / LABEL_MAP_NAME)


def _restore_chosen(
    detector: Detector,
    model_dir: str | Path,
    checkpoint: str | None,
    communicator: Communicator,
    *,
    trained: bool,
) -> str:
    """Restore the checkpoint that is asked for, and return its prefix.

    A training that goes on may remove it or exchange it while it is read; then the one is taken
    that is there now.
    """
    for tries_left in reversed(range(_TRIES)):
        # That of the first process: all must have the same weights.
        prefix = communicator.gather([choose_checkpoint(model_dir, checkpoint)])[0]
        before, failure = _identity(prefix), None
        try:
            _restore_all(detector, prefix, trained=trained)
        except (OSError, DamagedError) as error:
            failure = error
        changed = failure is not None and _identity(prefix) != before
        found = communicator.gather([(failure is not None, changed)])
        if not any(failed for failed, _ in found):
            break
        if not tries_left or not any(changed for _, changed in found):
            if failure is not None:
                raise failure
            break
    return prefix


def _identity(prefix: str) -> list[tuple]:
    """Tell the files of a checkpoint from others that may take their names."""
    found = []
    for path in parts_of(prefix):
        with contextlib.suppress(FileNotFoundError):
            state = path.stat()
            found.append((path.name, state.st_ino, state.st_size, state.st_mtime_ns))
    return found


def _restore_all(detector: Detector, prefix: str, *, trained: bool) -> None:
    """Restore every weight; a detector with some of its weights would only look trained."""
    try:
        restore(detector, prefix, kind="full", trained=trained)
    except UnfitError as error:
        missing = [variable for _, variable in error.table.missing]
        mismatched = [variable for _, _, variable, _ in error.table.mismatched]
        raise ValueError(
            f"{prefix} does not fit the settings of the run: {len(missing)} weights are missing in "
            f"it and {len(mismatched)} have another shape, for example "
            f"{(missing + mismatched)[:3]}. Remove --gin_params that change the network, or choose "
            "a checkpoint of this run."
        ) from error
