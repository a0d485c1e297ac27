"""What a restoration takes, what it leaves, what it says, and that it never stops half-way."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.labels import LabelMap
from ssd_centernet.layers.anchors import DefaultBoxes
from ssd_centernet.layers.necks import SSDExtraLevels
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.backbones.hourglass import Hourglass
from ssd_centernet.models.backbones.resnet import ResNet
from ssd_centernet.models.centernet import CenterNet
from ssd_centernet.models.ssd import SSD
from ssd_centernet.run_directory import named_weights
from ssd_centernet.training.checkpoints import RunCheckpoints
from ssd_centernet.weights import restore
from tests.tiny import tiny_trainer
from tests.weights import files


def detector(names=("a", "b"), *, stem_width=8, **settings) -> SSD:
    return SSD(
        ResNet((1,), widths=(8,), strides=(1,), stem_width=stem_width),
        num_classes=len(names),
        image_size=(64, 64),
        neck=SSDExtraLevels(((8, 8),), strides=(2,)),
        anchors=DefaultBoxes((90, 180, 280), aspect_ratios=((2,), (2,))),
        class_names=names,
        **settings,
    )


def save_run(model, folder, names=None) -> str:
    """Write a run directory of a detector with random weights."""
    files.randomize(model.variables)
    folder.mkdir()
    path = RunCheckpoints(tiny_trainer(model), folder, seed=0).save()
    if names:
        LabelMap(names).to_pbtxt(folder / "mscoco_label_map.pbtxt")
    return path


def class_rows(values: dict, level: int = 0) -> np.ndarray:
    kernel = values[f"head/class{level}/kernel"]
    return kernel.reshape(*kernel.shape[:3], 4, -1)


def test_everything_from_a_run_of_the_same_detector(tmp_path):
    trained = detector()
    save_run(trained, tmp_path / "run", ("a", "b"))
    for kind in (None, "full"):
        model = detector()
        table = restore(model, tmp_path / "run", kind=kind)
        assert table.kind == (kind or "detection")
        assert len(table.restored) == len(named_weights(model))
        assert not (table.classes or table.fresh or table.missing or table.mismatched)
        # Slots, step and seed of the run are no weights.
        assert any("optimizer" in name for name in table.skipped)
        for name, value in files.values(trained).items():
            np.testing.assert_array_equal(files.values(model)[name], value, err_msg=name)


def test_classification_takes_the_backbone_alone(tmp_path):
    trained, model = detector(), detector(("x", "y", "z"))
    save_run(trained, tmp_path / "run")
    before = files.values(model)
    table = restore(model, tmp_path / "run", kind="classification")
    backbone = set(files.values(model.backbone))
    assert {name for _, name, _ in table.restored} == backbone
    assert set(table.fresh) == set(before) - backbone
    for name, value in files.values(model).items():
        want = files.values(trained)[name] if name in backbone else before[name]
        np.testing.assert_array_equal(value, want, err_msg=name)


def test_classes_that_both_know_are_taken_by_name(tmp_path):
    trained, model = detector(("cat", "dog")), detector(("dog", "fox", "cat"))
    save_run(trained, tmp_path / "run", ("cat", "dog"))
    fresh = files.values(model)
    table = restore(model, tmp_path / "run")
    assert {(name, known, count) for _, name, known, count in table.classes} == {
        (f"head/class{level}/{part}", 2, 3) for level in (0, 1) for part in ("kernel", "bias")
    }
    old, new = class_rows(files.values(trained)), class_rows(files.values(model))
    for row, source in enumerate((0, 2, None, 1)):  # Background, dog, fox, cat.
        want = class_rows(fresh)[..., row] if source is None else old[..., source]
        np.testing.assert_array_equal(new[..., row], want)
    bias = files.values(model)["head/class1/bias"].reshape(4, 4)
    old_bias = files.values(trained)["head/class1/bias"].reshape(4, 3)
    np.testing.assert_array_equal(bias[:, [0, 1, 3]], old_bias[:, [0, 2, 1]])
    np.testing.assert_array_equal(
        files.values(model)["head/box1/kernel"], files.values(trained)["head/box1/kernel"]
    )
    assert "head.Sclass0.Skernel" in str(table) and "2 of 3 classes" in str(table)
    with pytest.raises(ValueError, match=r"head/class0/kernel needs \[3, 3, 8, 16\]"):
        restore(model, tmp_path / "run", kind="full")


def test_no_class_in_common_leaves_the_predictions_fresh(tmp_path):
    trained, model = detector(("cat", "dog")), detector(("ship", "kite"))
    save_run(trained, tmp_path / "run", ("cat", "dog"))
    fresh = files.values(model)
    table = restore(model, tmp_path / "run")
    assert {known for _, _, known, _ in table.classes} == {0}
    # The background too: it was learned against other classes.
    np.testing.assert_array_equal(class_rows(files.values(model)), class_rows(fresh))


def test_a_best_directory_and_a_prefix_know_the_label_map_of_their_run(tmp_path):
    trained = detector(("cat", "dog"))
    prefix = save_run(trained, tmp_path / "run", ("cat", "dog"))
    tf.train.Checkpoint(weights=named_weights(trained)).write(str(tmp_path / "run/best/ckpt-3"))
    for path in (prefix, tmp_path / "run" / "best"):
        model = detector(("dog", "cat"))
        table = restore(model, path, kind="full")
        assert not table.classes
        old, new = class_rows(files.values(trained)), class_rows(files.values(model))
        np.testing.assert_array_equal(new, old[..., [0, 2, 1]])


def test_as_many_classes_without_names_are_taken_to_be_the_same(tmp_path):
    trained, model = detector(("cat", "dog")), detector(("ship", "kite"))
    np.savez(tmp_path / "w.npz", **files.values(trained))
    restore(model, tmp_path / "w.npz", kind="full")
    np.testing.assert_array_equal(
        class_rows(files.values(model)), class_rows(files.values(trained))
    )


def test_excluded_variables_stay_fresh(tmp_path):
    trained, model = detector(), detector(stem_width=4)
    save_run(trained, tmp_path / "run")
    with pytest.raises(ValueError, match=r"fine_tune_exclude = \('group1_block1_1_conv/', .*stem_"):
        restore(model, tmp_path / "run")
    exclude = ("stem_", "group1_block1_(1_conv|projection)")
    table = restore(model, tmp_path / "run", exclude=exclude)
    assert {name.split("/")[0] for name in table.fresh} == {
        "stem_conv",
        "stem_norm",
        "group1_block1_1_conv",
        "group1_block1_projection_conv",
        "group1_block1_projection_norm",
    }
    with pytest.raises(ValueError, match="'nothing/' of train.fine_tune_exclude matches no"):
        restore(model, tmp_path / "run", exclude=("nothing/",))
    with pytest.raises(ValueError, match="fine_tune_exclude leaves no variable to restore"):
        restore(model, tmp_path / "run", exclude=(".*",))


@pytest.mark.parametrize("problem", ["missing", "mismatched", "unreadable"])
def test_nothing_is_set_unless_everything_fits(tmp_path, problem, monkeypatch):
    tensors = files.values(detector())
    if problem == "missing":
        del tensors["head/box1/kernel"]
    elif problem == "mismatched":
        tensors["head/box1/kernel"] = np.zeros((1, 1, 8, 32), np.float32)
    np.savez(tmp_path / "w.npz", **tensors)
    if problem == "unreadable":
        from ssd_centernet.weights.source import Source

        def fail(source, key):
            if key == "head/box1/kernel":
                raise ValueError("box1 cannot be read")
            return tensors[key]

        monkeypatch.setattr(Source, "read", fail)
    model = detector()
    before = files.values(model)
    message = {
        "missing": r"head/box1/kernel is missing, for head/box1/kernel.*Nothing was restored",
        "mismatched": r"has shape \[1, 1, 8, 32\], head/box1/kernel needs \[3, 3, 8, 16\]",
        "unreadable": "box1 cannot be read",
    }[problem]
    with pytest.raises(ValueError, match=message):
        restore(model, tmp_path / "w.npz")
    for name, value in files.values(model).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_unrelated_weights_are_refused(tmp_path):
    prefix = files.save_tf1(tmp_path / "ckpt", {"dense/kernel": np.zeros((2, 2), np.float32)})
    with pytest.raises(ValueError, match=r"nothing in .*ckpt fits this detector: .*dense/kernel"):
        restore(detector(), prefix)
    path = files.save_objects(tmp_path / "objects", {"model/value": np.float32(1)})
    with pytest.raises(ValueError, match="docs/training.md lists the files that can be read"):
        restore(detector(), path)


def test_a_backbone_alone_is_no_detection_checkpoint(tmp_path):
    np.savez(tmp_path / "w.npz", **files.values(detector().backbone))
    with pytest.raises(ValueError, match="set --fine_tune_checkpoint_type=classification"):
        restore(detector(), tmp_path / "w.npz", kind="detection")
    assert restore(detector(), tmp_path / "w.npz").kind == "classification"


def test_kinds_and_channels_are_checked_before_the_file(tmp_path):
    message = "fine_tune_checkpoint_type must be one of classification, detection, full, got 'all'"
    with pytest.raises(ValueError, match=message):
        restore(detector(), tmp_path, kind="all")
    with pytest.raises(ValueError, match="fine_tune_channels must be one of RGB, BGR, got 'GBR'"):
        restore(detector(), tmp_path, channels="GBR")


def test_the_first_kernel_is_reversed_for_the_other_order_of_channels(tmp_path):
    tensors = files.values(detector())
    np.savez(tmp_path / "w.npz", **tensors)
    bgr = Preprocessing((64, 64), channels="BGR")
    for settings, channels, flipped in (
        ({}, None, False),
        ({}, "RGB", False),
        ({}, "BGR", True),
        ({"preprocessing": bgr}, "RGB", True),
        ({"preprocessing": bgr}, "BGR", False),
    ):
        model = detector(**settings)
        restore(model, tmp_path / "w.npz", channels=channels)
        want = tensors["stem_conv/kernel"]
        got = model.backbone.get_layer("stem_conv").kernel
        np.testing.assert_array_equal(got, want[:, :, ::-1] if flipped else want)


def test_long_reports_are_cut_but_counted(tmp_path):
    model = detector()
    np.savez(tmp_path / "w.npz", **files.values(model), extra=np.zeros(2))
    table = restore(model, tmp_path / "w.npz")
    count = len(model.variables)
    lines = table.report(cap=3).splitlines()
    assert lines[0] == (
        f"weights from {tmp_path / 'w.npz'} (ssd_centernet, detection): {count} variables "
        "restored, 0 left fresh, 0 missing, 0 of another shape; 1 tensors of the checkpoint skipped"
    )
    digest = hashlib.sha256((tmp_path / "w.npz").read_bytes()).hexdigest()
    assert lines.pop(1) == f"  sha256      {digest}  w.npz"
    assert lines[1] == "  restored    stem_conv/kernel -> stem_conv/kernel [7, 7, 3, 8]"
    assert lines[4:] == [f"  restored    ... and {count - 3} more", "  skipped     extra"]
    assert len(str(table).splitlines()) == count + 3


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.float32("nan"), r"has 1152 of 1152 values that are not finite \(NaN or infinite\)"),
        (1e39, "has 1152 of 1152 values that are not finite"),  # Beyond float32.
        (1 + 2j, "holds complex numbers"),
        ("text", "holds texts or objects"),
        (np.int8(5), r"holds int8 numbers, expected floats \(is the file quantized\?\)"),
        (True, "holds bool numbers"),
    ],
)
def test_tensors_that_would_spoil_a_run_are_refused_and_nothing_is_set(tmp_path, bad, message):
    """The bad one is the last: all that could be set is looked at before."""
    model = detector()
    tensors = {**files.values(model), "head/box1/kernel": np.full((3, 3, 8, 16), bad)}
    assert list(named_weights(model)).index("head/box1/kernel") > 10
    np.savez(tmp_path / "w.npz", **tensors)
    files.randomize(model.variables, seed=9)
    before = files.values(model)
    with pytest.raises(ValueError, match=rf"tensor head/box1/kernel of .*w\.npz {message}"):
        restore(model, tmp_path / "w.npz")
    for name, value in files.values(model).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_another_kind_of_detector_is_told_by_what_was_found_and_expected(tmp_path):
    save_run(detector(), tmp_path / "run")
    hourglass = Hourglass(20, width=4)
    model = CenterNet(hourglass, num_classes=2, image_size=(64, 64))
    expected = r"fits this CenterNet with a Hourglass: of \d+ variables to restore, such as \w+/\w+"
    found = r"the checkpoint holds ((\w+/)+kernel, ){3}\.\.\.\. It is of another recipe"
    with pytest.raises(ValueError, match=f"{expected}.*{found}"):
        restore(model, tmp_path / "run")


def test_a_text_is_one_pattern_of_what_stays_fresh(tmp_path):
    np.savez(tmp_path / "w.npz", **files.values(detector()))
    table = restore(detector(), tmp_path / "w.npz", exclude="stem_conv")
    assert table.fresh == ("stem_conv/kernel",)
