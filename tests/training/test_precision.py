"""Training in half precision follows training in float32, recipe by recipe."""

import gin
import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet._keras import keras
from ssd_centernet.building import build_detector
from ssd_centernet.runtime.precision import needs_loss_scale
from ssd_centernet.training.loss_scale import LossScale
from ssd_centernet.training.schedules import ConstantRate, RunLength
from ssd_centernet.training.trainer import Trainer
from tests.models import contracts
from tests.narrow import NARROW, PLUS, SIZE

STEPS = 20
# Largest relative difference of a step's total loss from that in float32. bfloat16 has 8 bits of
# precision (a rounding is up to 0.4 %), float16 has 11 (0.05 %); roundings of a deep network and of
# 20 updates add up, and batch norm over few cells magnifies them.
BOUNDS = {"bf16": 0.05, "fp16": 0.02}
# At which each network learns steadily: where float32 itself jumps about, nothing can be compared.
LEARNING_RATES = {
    "ssd300_resnet34": 2e-3,
    "ssd320_resnet50_fpn": 1e-3,
    "ssd320_mobilenetv3_fpn": 1e-3,
    "ssd320_efficientnet_lite0": 2e-4,
    "ssd300_vgg16": 5e-5,
    "ssd512_vgg16": 5e-5,
    "centernet_resnet101_fpn": 5e-4,
    "centernet_hourglass104": 3e-4,
    "centernet_hourglass52": 3e-4,
    "centernet_hourglass20": 3e-4,
}
LEARNING_RATES |= {plus: LEARNING_RATES[published] for plus, published in PLUS.items()}


def losses(recipe: str, dtype: str) -> np.ndarray:
    """Train a narrow network for 20 steps on four images: the total loss before each update."""
    config.parse([recipe], [f"IMAGE_SIZE = {SIZE}", *NARROW[recipe]])
    try:
        settings = gin.get_bindings("train")
        keras.utils.set_random_seed(1)
        detector = build_detector(num_classes=contracts.NUM_CLASSES, dtype=dtype)
        optimizer = settings["optimizer"]()
    finally:
        config.clear()
    trainer = Trainer(
        detector,
        optimizer,
        schedule=ConstantRate(LEARNING_RATES[recipe]),
        length=RunLength(steps_per_epoch=10, total_steps=STEPS, global_batch_size=4),
        batch_size=4,
        loss_scale=LossScale() if needs_loss_scale(detector.dtype_policy.name) else None,
    )
    batch = contracts.batch_of(SIZE, [2, 3, 1, 2])
    step = tf.function(trainer.train_step)
    totals = []
    for _ in range(STEPS):
        skipped = int(trainer.loss_scale.skipped)
        total = float(step(batch)["total"])
        # A skipped update shows the same loss again.
        if int(trainer.loss_scale.skipped) == skipped:
            totals.append(total)
    assert step.experimental_get_tracing_count() == 1
    trainer.raise_if_failed()
    return np.array(totals)


@pytest.mark.parametrize("recipe", NARROW)
def test_half_precision_follows_float32(recipe):
    """In one test, so that float32 is trained once however tests are spread over processes."""
    exact = losses(recipe, "fp32")
    assert len(exact) == STEPS
    assert exact[-1] < 0.9 * exact[0], "too little is learnt to compare"
    for dtype, bound in BOUNDS.items():
        # Of the same networks with other losses bfloat16 alone: float16 takes the longest.
        if dtype == "fp16" and recipe in PLUS:
            continue
        rough = losses(recipe, dtype)
        assert np.all(np.isfinite(rough)), dtype
        # The scale that float16 begins with is too large for the first steps of some networks.
        assert len(rough) >= (STEPS - 6 if dtype == "fp16" else STEPS), dtype
        assert not np.array_equal(rough, exact[: len(rough)]), dtype
        difference = np.abs(rough / exact[: len(rough)] - 1.0)
        assert difference.max() < bound, (dtype, difference.round(4).tolist())


def test_every_published_recipe_is_compared():
    others = ("_overfit", "_demo", "_demo_plus", "_demo_relu6")
    published = {name for name in config.recipes() if not name.endswith(others)}
    assert published == set(NARROW) == set(LEARNING_RATES)
