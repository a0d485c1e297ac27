"""A run that learns from another one: what is added to its loss, and what stays as it was."""

import re
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf

import ssd_centernet as sc
from ssd_centernet import config
from ssd_centernet._keras import keras
from ssd_centernet.recipe import Recipe
from ssd_centernet.train import train
from ssd_centernet.training.teacher import Lessons, Teacher
from tests.tiny import LABELS, TINY_RECIPE
from tests.training.test_train import assert_same_bits, tensors

MORE = ("train.evaluate_every = 0", "train.checkpoint_every = 2", "train.steps = 3")


def run(recipe, data_dir, model_dir, *params):
    config.parse([recipe], [*MORE, *params])
    try:
        return train(model_dir, data_dir)
    finally:
        config.clear()


@pytest.fixture(scope="module")
def teacher_dir(tmp_path_factory, data_dir):
    """A run of the tiny recipe with twice the channels and another seed."""
    folder = tmp_path_factory.mktemp("teacher")
    recipe = folder / "large.gin"
    recipe.write_text(TINY_RECIPE.replace("widths = (8,)", "widths = (16,)"))
    run(recipe, data_dir, folder / "run", "train.seed = 9", "train.ema_decay = 0.9")
    return folder / "run"


def lessons_of(folder, **settings):
    given = {"run": str(folder), **settings}
    return ["train.teacher = @Teacher()", *(f"Teacher.{k} = {v!r}" for k, v in given.items())]


def test_the_weights_are_those_of_a_step_by_hand(tiny_recipe, data_dir, teacher_dir):
    """One step of SGD: without a teacher, and with what `imitate` says added to the loss."""
    rates = ("train.weight_decay = 0.0", "Momentum.momentum = 0.0")
    teacher = sc.load(teacher_dir)
    made = {}
    for name in ("alone", "taught"):
        given = lessons_of(teacher_dir, weight=0.5, temperature=2.0) if name == "taught" else []
        config.parse([tiny_recipe], [*MORE, *rates, *given])
        recipe = Recipe()
        keras.utils.set_random_seed(0)
        detector = recipe.detector(LABELS)
        known = teacher if name == "taught" else None
        trainer = recipe.trainer(detector, recipe.length(12), teacher=known)
        batch = next(iter(recipe.training_batches(detector, data_dir)))
        config.clear()
        before = [v.numpy() for v in detector.trainable_variables]
        loss, parts = _loss_by_hand(detector, teacher if known else None, batch)
        metrics = trainer.train_step(batch)
        assert float(metrics["total"]) == pytest.approx(float(loss[0]), rel=1e-5)
        for variable, value, gradient in zip(
            detector.trainable_variables, before, loss[1], strict=True
        ):
            # The rate of the tiny recipe.
            expected = value - 0.01 * gradient
            np.testing.assert_allclose(variable, expected, atol=2e-6, err_msg=variable.name)
        made[name] = (before, metrics, parts)
    for one, other in zip(made["alone"][0], made["taught"][0], strict=True):
        np.testing.assert_array_equal(one, other)
    added = set(made["taught"][1]) - set(made["alone"][1])
    assert added == {"teacher_class", "teacher_box"}
    for name in added:
        assert float(made["taught"][1][name]) == pytest.approx(made["taught"][2][name], rel=1e-5)
        assert float(made["taught"][1][name]) > 0.0


def _loss_by_hand(detector, teacher, batch):
    """Return loss and gradients, and a teacher's parts in NumPy: weight 0.5, temperature 2."""
    parts = {}
    # Batch statistics, as in training; the averages that they move are no part of the loss.
    averages = [v.numpy() for v in detector.non_trainable_variables]
    with tf.GradientTape() as tape:
        outputs = detector(batch["image"], training=True)
        losses = detector.compute_losses(outputs, batch)
        total = losses["class"] + losses["box"]
        if teacher is not None:
            told = teacher(batch["image"], training=False)
            logits, wanted = outputs["class_logits"], tf.constant(told["class_logits"].numpy())
            scores = [tf.nn.softmax(one)[..., 1:].numpy().max(-1) for one in (logits, wanted)]
            weights = np.maximum(*scores)
            log_p, log_q = tf.nn.log_softmax(wanted / 2.0), tf.nn.log_softmax(logits / 2.0)
            cost = 4.0 * tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)
            errors = tf.abs(outputs["box_codes"] - told["box_codes"].numpy())
            huber = tf.where(errors < 1.0, 0.5 * errors**2, errors - 0.5)
            boxes = tf.reduce_sum(tf.reduce_sum(huber, axis=-1) * scores[1])
            of_class = tf.reduce_sum(cost * weights) / weights.sum()
            of_box = boxes / max(scores[1].sum(), 1.0)
            total += 0.5 * (of_class + of_box)
            parts = {"teacher_class": float(of_class), "teacher_box": float(of_box)}
    gradients = tape.gradient(total, detector.trainable_variables)
    for variable, value in zip(detector.non_trainable_variables, averages, strict=True):
        variable.assign(value)
    return (total, gradients), parts


def test_a_resumed_run_is_exact_and_nothing_of_the_teacher_is_kept(
    tiny_recipe, data_dir, teacher_dir, tmp_path, capsys
):
    whole, parts, alone = (tmp_path / name for name in ("whole", "parts", "alone"))
    given = lessons_of(teacher_dir)
    run(tiny_recipe, data_dir, whole, *given, "train.steps = 4")
    printed = capsys.readouterr().out
    assert re.search(rf"teacher: {teacher_dir}/(best/)?ckpt-3", printed)
    assert re.search(r"teacher_class \d.* teacher_box \d", printed)
    for steps in (2, 4):
        run(tiny_recipe, data_dir, parts, *given, f"train.steps = {steps}")
    assert_same_bits(whole, parts)
    run(tiny_recipe, data_dir, alone, "train.steps = 4")
    assert tensors(alone).keys() == tensors(whole).keys()
    # It is another network that was learned, and the same that is asked for.
    differ = [n for n, v in tensors(alone).items() if not np.array_equal(v, tensors(whole)[n])]
    assert any("kernel" in name for name in differ)
    assert sc.load(whole).count_params() == sc.load(alone).count_params()


def test_with_accumulation_bf16_averages_and_xla(tiny_recipe, data_dir, teacher_dir, tmp_path):
    settings = {
        "accumulated": ["train.accumulate_steps = 2"],
        "bf16": ["build_detector.dtype = 'bf16'", "train.ema_decay = 0.9"],
        "xla": ["train.jit_compile = True"],
        "device": ["train.augment_on = 'device'"],
    }
    for name, lines in settings.items():
        run(tiny_recipe, data_dir, tmp_path / name, *lessons_of(teacher_dir), *lines)
        assert np.isfinite(list(tensors(tmp_path / name).values())[0]).all()


def pair(recipe, other=None, *, settings=(), others=()):
    config.clear()
    return (
        sc.build(recipe, num_classes=2, settings=settings),
        sc.build(other or recipe, num_classes=2, settings=others),
    )


SMALL = ["IMAGE_SIZE = (64, 64)"]
MISFITS = {
    "outputs": (
        "centernet_demo",
        "centernet_demo",
        [],
        ["CenterNet.criterion = @TTFLoss()", "CenterNetHead.regression = 'sides'"],
    ),
    "sizes of the input": ("ssd_demo", "ssd_demo", [], SMALL),
    "anchors": ("ssd_demo", "ssd_demo", [], ["DefaultBoxes.scales = (36, 75, 130, 200, 300)"]),
    "preprocessing": (
        "ssd_demo",
        "ssd_demo",
        [],
        [
            "SSD.preprocessing = @Preprocessing()",
            "Preprocessing.image_size = %IMAGE_SIZE",
            "Preprocessing.mean = (0.0, 0.0, 0.0)",
        ],
    ),
    "factors of the box code": (
        "ssd_demo",
        "ssd_demo",
        [],
        ["MultiBoxLoss.scale_factors = (1.0, 1.0, 1.0, 1.0)"],
    ),
    "kinds of scores": (
        "ssd_demo",
        "ssd_demo",
        [],
        ["SSD.criterion = @FocalMultiBoxLoss()", "SSD.decoder = @SigmoidSSDDecoder()"],
    ),
}


@pytest.mark.parametrize("what", MISFITS)
def test_a_teacher_that_speaks_of_something_else_is_refused(what):
    recipe, other, settings, others = MISFITS[what]
    student, teacher = pair(recipe, other, settings=settings, others=others)
    with pytest.raises(ValueError, match=rf"the teacher runs/x has other {what} than what is tr"):
        Lessons(Teacher(run="runs/x"), student, teacher)


def test_other_classes_are_refused_and_a_larger_network_is_not():
    student = sc.build("ssd_demo", class_names=["a", "b"])
    with pytest.raises(ValueError, match=r"other classes .*: \('b', 'a'\), here \('a', 'b'\)\. A"):
        Lessons(Teacher(run="x"), student, sc.build("ssd_demo", class_names=["b", "a"]))
    wide = sc.build("ssd_demo", class_names=["a", "b"], settings="ResNet.widths = (16, 48, 32)")
    assert Lessons(Teacher(run="x"), student, wide).names == ("teacher_class", "teacher_box")


def test_a_criterion_of_ones_own_needs_the_method():
    student, teacher = pair("ssd_demo")
    student.criterion = keras.layers.Layer()
    student.criterion.scale_factors = teacher.criterion.scale_factors
    with pytest.raises(ValueError, match=r"other kinds of scores|has no method `imitate`"):
        Lessons(Teacher(run="x"), student, teacher)


@pytest.mark.parametrize(
    ("recipe", "settings", "names"),
    [
        ("ssd_fpn_demo", [], {"class", "box"}),
        ("ssd_fpn_demo_plus", [], {"class", "box"}),
        ("centernet_demo", [], {"center", "size", "offset"}),
        (
            "centernet_demo",
            ["CenterNet.criterion = @TTFLoss()", "CenterNetHead.regression = 'sides'"],
            {"center", "box"},
        ),
        ("centernet_hourglass20", SMALL, {"center", "size", "offset"}),
    ],
)
def test_every_kind_of_detector_learns_from_its_like(recipe, settings, names):
    student, teacher = pair(recipe, settings=settings, others=settings)
    lessons = Lessons(Teacher(run="x"), student, teacher)
    images = tf.random.stateless_normal([2, *student.image_size, 3], [1, 2])
    told = teacher(images)
    with tf.GradientTape() as tape:
        parts = lessons.losses(student(images), told)
        total = lessons.total(parts)
    assert set(parts) == {f"teacher_{name}" for name in names}
    weights = student.loss_weights
    by_hand = sum(weights[n.removeprefix("teacher_")] * float(v) for n, v in parts.items())
    assert float(total) == pytest.approx(by_hand, rel=1e-5) and by_hand > 0.0
    gradients = tape.gradient(total, student.trainable_variables)
    head = [g for g, v in zip(gradients, student.trainable_variables, strict=True) if g is not None]
    assert head and all(np.isfinite(g).all() for g in head)
    # Who says the same learns nothing.
    student.set_weights(teacher.get_weights())
    same = lessons.losses(student(images), told)
    for name, value in same.items():
        assert float(value) == pytest.approx(0.0, abs=1e-4), name


def test_settings_that_cannot_be_are_refused_before_anything_is_built(
    tiny_recipe, data_dir, tmp_path
):
    for lines, words in (
        (["train.teacher = @Teacher()"], "Teacher.run is None, expected a path in quotes"),
        (["train.teacher = @Teacher"], r"train.teacher is the class Teacher \(without brackets\)"),
        (lessons_of("x", weight=0.0), "Teacher.weight is 0.0, expected a number above 0"),
        (lessons_of("x", temperature=-1), "Teacher.temperature is -1, expected"),
    ):
        with pytest.raises(ValueError, match=words):
            run(tiny_recipe, data_dir, tmp_path / "run", *lines)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run(tiny_recipe, data_dir, tmp_path / "run", *lessons_of(tmp_path / "nowhere"))
    assert not (tmp_path / "run").exists()


def test_the_settings_of_a_teacher_are_data(tiny_recipe, data_dir, teacher_dir, tmp_path):
    hostile = tmp_path / "hostile"
    shutil.copytree(teacher_dir, hostile)
    settings = hostile / "config.gin"
    settings.write_text("import antigravity\n" + settings.read_text())
    with pytest.raises(ValueError, match="antigravity"):
        run(tiny_recipe, data_dir, tmp_path / "run", *lessons_of(hostile))
    assert "antigravity" not in sys.modules


def test_the_first_weights_and_images_are_those_without_a_teacher(
    tiny_recipe, data_dir, teacher_dir, tmp_path
):
    """With next to no weight a teacher changes next to nothing."""
    run(tiny_recipe, data_dir, tmp_path / "alone", "train.seed = 3")
    given = lessons_of(teacher_dir, weight=1e-12)
    run(tiny_recipe, data_dir, tmp_path / "taught", "train.seed = 3", *given)
    taught = tensors(tmp_path / "taught")
    for name, value in tensors(tmp_path / "alone").items():
        np.testing.assert_allclose(taught[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
