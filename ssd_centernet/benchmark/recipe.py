"""What a configured recipe says about training, without running it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gin

from ssd_centernet.building import build_detector
from ssd_centernet.labels import LabelMap
from ssd_centernet.models.detector import Detector
from ssd_centernet.preview.fed_images import resize_only
from ssd_centernet.runtime.precision import needs_loss_scale
from ssd_centernet.training.loss_scale import LossScale
from ssd_centernet.training.optimizers import Momentum
from ssd_centernet.training.schedules import ConstantRate, RunLength
from ssd_centernet.training.trainer import Trainer

# Of COCO; used where neither the recipe nor a label map says otherwise.
_NUM_CLASSES = 80
_TRAINER_SETTINGS = ("weight_decay", "decay_exclude", "freeze", "clip_norm")


def train_settings() -> dict[str, Any]:
    """Return the settings of `train` that the parsed recipe binds, references resolved."""
    return gin.get_bindings("train")


def make_detector(label_map: LabelMap | None = None) -> Detector:
    """Build the detector of the parsed recipe.

    Args:
        label_map: names the classes; without it there are as many as the recipe says, else 80.

    Returns:
        The detector with random weights.
    """
    if label_map is not None:
        return build_detector(label_map=label_map)
    bound = gin.get_bindings("build_detector").get("num_classes")
    return build_detector(num_classes=bound or _NUM_CLASSES)


def make_augment(detector: Detector) -> Callable:
    """Return the augmentation chain of the parsed recipe; without one, decode and resize."""
    return train_settings().get("augment") or resize_only(detector)


def make_trainer(detector: Detector, batch_size: int) -> Trainer:
    """Build the trainer of the parsed recipe, as `train` would for a run of COCO's length.

    Args:
        detector: what is trained.
        batch_size: images a step.

    Returns:
        The trainer at step 0.
    """
    settings = train_settings()
    scale = settings.get("loss_scale", LossScale)()
    return Trainer(
        detector,
        settings.get("optimizer", Momentum)(),
        schedule=settings.get("schedule", ConstantRate)(),
        run=RunLength(steps_per_epoch=1000, total_steps=60_000, global_batch_size=batch_size),
        batch_size=batch_size,
        loss_scale=scale if needs_loss_scale(detector.dtype_policy.name) else None,
        **{key: settings[key] for key in _TRAINER_SETTINGS if key in settings},
    )
