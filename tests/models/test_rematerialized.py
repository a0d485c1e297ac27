"""Blocks that are computed again: the same training, with fewer activations held."""

import types

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.layers.anchors import DefaultBoxes
from ssd_centernet.layers.necks import SSDExtraLevels
from ssd_centernet.layers.normalization import synchronize, warm_up_averages
from ssd_centernet.models.backbones.bottleneck_resnet import BottleneckResNet
from ssd_centernet.models.backbones.efficientnet_lite import EfficientNetLite0
from ssd_centernet.models.backbones.hourglass import Hourglass
from ssd_centernet.models.backbones.vgg import VGG16
from ssd_centernet.models.centernet import CenterNet
from ssd_centernet.models.rematerialized import rematerialize
from ssd_centernet.models.ssd import SSD
from ssd_centernet.runtime.precision import policy_scope
from tests.tiny import tiny_batch, tiny_detector, tiny_trainer

STEPS = 3


def hourglass():
    # Branches side by side, and two stacks with a block between them.
    return CenterNet(
        Hourglass(10, num_stacks=2, width=8), num_classes=2, image_size=(64, 64), class_names=None
    )


def ssd_on(backbone):
    return SSD(
        backbone,
        num_classes=2,
        image_size=(64, 64),
        neck=SSDExtraLevels(((8, 8),), strides=(2,)),
        anchors=DefaultBoxes((90, 180, 280), aspect_ratios=((2,), (2,))),
    )


BACKBONES = {
    "resnet": tiny_detector,
    "hourglass": hourglass,
    "bottleneck": lambda: ssd_on(
        BottleneckResNet((1, 1), widths=(4, 4), stem_width=8, output_levels=(3,))
    ),
    "efficientnet": lambda: ssd_on(EfficientNetLite0(width=0.25, output_levels=(3,))),
}


def trained(build=tiny_detector, *, dtype="fp32", prepare=None, steps=STEPS, **options):
    """Train a few steps; return the metrics of the steps and all variables by name."""
    keras.utils.set_random_seed(3)
    with policy_scope(dtype):
        detector = build()
    rng = np.random.default_rng(5)
    for variable in detector.trainable_variables:
        if "gamma" in variable.name:  # Blocks that end in 0 would hide their insides.
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    trainer = tiny_trainer(detector, **options)
    if prepare is not None:
        prepare(detector, trainer)
    batches = iter([tiny_batch(seed) for seed in range(100)])
    metrics = []
    run = tf.function(
        lambda batch: trainer.run_step(iter_of(batch), lambda f, args: f(*args)), autograph=False
    )
    for _ in range(steps):
        if trainer.accumulate_steps > 1:
            data = tf.data.Dataset.from_tensors(next(batches)).repeat()
            trainer.run_step(iter(data), lambda f, args: f(*args))
        else:
            run(next(batches))
        trainer.raise_if_failed()
        metrics.append(trainer.window_metrics())
    variables = {v.name: v.numpy() for v in detector.variables}
    if trainer.average is not None:
        variables |= {f"average of {k}": a.numpy() for k, a in enumerate(trainer.average.averages)}
    return metrics, variables


class iter_of:  # noqa: N801 - the name reads as a function.
    """An iterator that gives one batch."""

    def __init__(self, batch):
        self._batch = batch

    def __next__(self):
        return self._batch


def assert_equal_up_to_rounding(found, expected, tolerance=1e-5):
    (metrics, variables), (plain_metrics, plain) = found, expected
    for step, other in zip(metrics, plain_metrics, strict=True):
        for name in ("total", "gradient_norm"):
            assert step[name] == pytest.approx(other[name], rel=tolerance), name
    assert variables.keys() == plain.keys()
    for name, value in plain.items():
        reach = np.abs(value).max() if value.size else 0.0
        np.testing.assert_allclose(
            variables[name], value, rtol=0, atol=tolerance * reach + 1e-7, err_msg=name
        )


def synchronized(detector, trainer):
    synchronize(detector, tf.identity, 1)


def warmed_up(detector, trainer):
    assert warm_up_averages(detector, lambda: trainer.step)


@pytest.mark.parametrize("kind", BACKBONES)
def test_losses_gradients_and_moving_statistics_are_the_same(kind):
    expected = trained(BACKBONES[kind])
    assert_equal_up_to_rounding(trained(BACKBONES[kind], rematerialize=True), expected)


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({"dtype": "bf16"}, 1e-5),
        ({"dtype": "fp16"}, 1e-5),
        ({"accumulate_steps": 2}, 1e-5),
        ({"ema_decay": 0.5}, 1e-5),
        ({"freeze": ("stem_", "group1_block1_1_")}, 1e-5),
        ({"prepare": synchronized}, 1e-5),
        ({"prepare": warmed_up}, 1e-5),
        # Another compilation, with other fusions.
        ({"jit_compile": True}, 1e-4),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_it_goes_with_other_settings(options, tolerance):
    expected = trained(**options)
    assert_equal_up_to_rounding(trained(rematerialize=True, **options), expected, tolerance)


def convolutions(**options):
    """Count the convolutions of the forward pass in a traced step."""
    trainer = tiny_trainer(tiny_detector(), **options)
    graph = tf.function(trainer.train_step).get_concrete_function(tiny_batch()).graph
    return sum(op.type == "Conv2D" for op in graph.get_operations())


def test_the_backward_pass_computes_the_convolutions_of_blocks_again():
    plain = convolutions()
    assert convolutions(rematerialize=True) == plain + 2
    assert convolutions(rematerialize="group1_block1") == plain + 2
    assert convolutions(rematerialize=False) == plain


def test_inference_and_the_saved_form_do_not_change():
    detector = hourglass()
    images = tiny_batch()["image"]
    before, names = detector(images, training=False), [v.name for v in detector.variables]
    config = detector.get_config()
    assert "hourglass1_stage1_up_block1" in rematerialize(detector, True)
    tf.nest.map_structure(np.testing.assert_array_equal, detector(images, training=False), before)
    assert [v.name for v in detector.variables] == names
    assert detector.get_config() == config
    assert rematerialize(detector, False) == []
    assert detector.backbone.in_blocks is None


def test_patterns_choose_blocks():
    chosen = rematerialize(hourglass(), ["hourglass0_stage1_up", "stem_"])
    assert chosen == ["stem_res", "hourglass0_stage1_up_block1"]


@pytest.mark.parametrize(
    ("build", "blocks", "message"),
    [
        (
            lambda: types.SimpleNamespace(backbone=VGG16(width=1 / 16)),
            True,
            "a VGG16, has no blocks that can",
        ),
        (tiny_detector, "group2_", "'group2_' in train.rematerialize matches no block; there are"),
        (tiny_detector, "(", r"'\(' in train.rematerialize is no regular expression"),
    ],
)
def test_mistakes_name_the_setting(build, blocks, message):
    with pytest.raises(ValueError, match=message):
        rematerialize(build(), blocks)
