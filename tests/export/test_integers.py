"""Files of integers: what is in them, and that they detect what their own integers say."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.export import integers, joining, parity, portable
from ssd_centernet.export.export import export
from ssd_centernet.export.integers import HeadsRunner, Integers
from ssd_centernet.export.pictures import rendered_pictures, spread
from ssd_centernet.layers.preprocessing import Preprocessing
from ssd_centernet.models.halves import Halves, normalized
from ssd_centernet.models.numpy_decoders import centernet, ssd
from tests.export.lively import enliven, lively_detector
from tests.tiny import tiny_detector

RECIPES = ["ssd300_resnet34", "ssd320_resnet50_fpn", "centernet_resnet101_fpn"]
THRESHOLDS = {
    "ssd300_resnet34": {"score_threshold": 0.05, "iou_threshold": 0.5},
    "ssd320_resnet50_fpn": {"score_threshold": 0.01, "iou_threshold": 0.6},
    "centernet_resnet101_fpn": {"score_threshold": 0.1},
}
FLOAT32, INT8, UINT8 = (joining.schema.TensorType.__dict__[n] for n in ("FLOAT32", "INT8", "UINT8"))


@pytest.fixture(scope="module")
def pictures():
    return rendered_pictures(6)


def order(recipe, folder, pictures, detector=None, **changes):
    detector = detector or lively_detector(recipe)
    options = {"frame": tuple(detector.image_size), "batch_size": 1, "pairs": 512, **changes}
    return Integers(
        detector=detector,
        pictures=pictures,
        folder=str(folder),
        thresholds=THRESHOLDS[recipe],
        **options,
    )


@pytest.fixture(scope="module", params=RECIPES)
def made(request, tmp_path_factory, pictures):
    """A detector's files: (recipe, order, path of the whole file, path of the one of heads)."""
    folder = tmp_path_factory.mktemp("integers")
    files = order(request.param, folder, pictures)
    (folder / "full.tflite").write_bytes(files.with_decoder(wide=False))
    integers.save_heads(folder / "heads.tflite", *files.heads())
    return request.param, files, folder / "full.tflite", folder / "heads.tflite"


def fitted(files, pictures):
    size = files.detector.image_size
    return [tf.cast(tf.image.resize(one, size), tf.uint8).numpy() for one in pictures]


def tensors(graph, numbers):
    return [graph.tensors[int(number)] for number in numbers if int(number) >= 0]


def test_no_float_stands_before_the_raw_maps(made):
    recipe, files, full, heads = made
    network = joining.read(heads.read_bytes())
    (graph,) = network.subgraphs
    assert all(tensor.type != FLOAT32 for tensor in graph.tensors)
    assert [tensor.type for tensor in tensors(graph, graph.inputs)] == [UINT8]
    assert {tensor.type for tensor in tensors(graph, graph.outputs)} == {INT8}
    # The whole file begins with the same operations.
    whole = joining.read(full.read_bytes()).subgraphs[0]
    assert len(whole.operators) > len(graph.operators)
    for ours, theirs in zip(graph.operators, whole.operators, strict=False):
        assert list(ours.inputs) == list(theirs.inputs)
    kernels = [
        tensors(graph, operator.inputs)[1]
        for operator in graph.operators
        if network.operatorCodes[operator.opcodeIndex].builtinCode
        == joining.schema.BuiltinOperator.CONV_2D
    ]
    assert len(kernels) > 10
    for kernel in kernels:  # One scale for each channel.
        assert len(kernel.quantization.scale) == kernel.shape[0]


def test_levels_and_kinds_have_scales_of_their_own(made):
    recipe, files, _, heads = made
    scales = joining.output_scales(heads.read_bytes())
    if recipe == "centernet_resnet101_fpn":
        assert set(scales) == {"center", "offset", "size"}
    else:
        levels = range(len(files.detector.feature_sizes))
        names = {f"{kind}_{level}" for kind in ("class_logits", "box_codes") for level in levels}
        assert set(scales) == names
    values = [entry["scale"] for entry in scales.values()]
    assert min(values) > 0.0 and len(set(values)) == len(values)
    assert all(-128 <= entry["zero_point"] <= 127 for entry in scales.values())


def test_raw_maps_are_those_of_the_model_to_a_few_steps(made, pictures):
    _, files, _, heads = made
    run = portable.tflite_signature(heads)
    scales = joining.output_scales(heads.read_bytes())
    halves = Halves(files.detector)
    for image in fitted(files, pictures)[:2]:
        want = halves.predict(tf.constant(image[np.newaxis], tf.float32))
        for name, got in run(images=image[np.newaxis]).items():
            real = (got.astype(np.float32) - scales[name]["zero_point"]) * scales[name]["scale"]
            spread_of_map = float(tf.math.reduce_std(want[name])) or 1.0
            error = np.sqrt(np.mean(np.square(real - want[name].numpy())))
            assert error < 0.25 * spread_of_map, name


def test_numpy_decodes_what_our_decoder_decodes(made, pictures):
    recipe, files, full, heads = made
    numpy_decoder, whole = HeadsRunner(heads), portable.TFLiteRunner(full)
    run = portable.tflite_signature(heads)
    scales = joining.output_scales(heads.read_bytes())
    pairs = []
    for image in fitted(files, pictures):
        raw = run(images=image[np.newaxis])
        real = {
            name: (value.astype(np.float32) - np.float32(scales[name]["zero_point"]))
            * np.float32(scales[name]["scale"])
            for name, value in raw.items()
        }
        steps = {name: entry["scale"] for name, entry in scales.items()}
        ours = Halves(files.detector).decode(
            real, None, steps=steps, portable_pairs=512, **files.thresholds
        )
        (theirs,) = numpy_decoder(image)
        pairs += [(parity.Found.first(ours), theirs), (whole(image)[0], theirs)]
    limit = files.thresholds["score_threshold"]
    result = parity.compare(pairs, parity.FLOAT, score_threshold=limit)
    assert result.compared > 100 and result.share > 0.995, result


def test_equal_neighbours_are_one_peak(tmp_path, pictures):
    """Four cells of a heatmap that 8 bits made equal: one detection, and the same one in both."""
    detector = lively_detector("centernet_resnet101_fpn")
    halves = Halves(detector)
    shapes = {
        key: tuple(int(side) for side in value.shape[1:])
        for key, value in halves.predict(tf.zeros([1, *detector.image_size, 3])).items()
    }
    maps = {name: np.full(shape, -80, np.int8) for name, shape in shapes.items()}
    maps["center"][4:6, 8:10, 1] = 40
    maps["center"][15, 3, 0] = 41
    maps["center"][15, 4, 0] = 40
    entry = {"scale": 0.05, "zero_point": 0}
    settings = {"classes": 3, "max_detections": 20, "kernel_size": 3, "score_threshold": 0.5}
    settings["outputs"] = dict.fromkeys(maps, entry)
    boxes, scores, classes = centernet.decode(maps, settings)
    assert classes.tolist() == [0, 1]
    # Half a step at most below the integer's own score.
    wanted = 1 / (1 + np.exp(-np.array([41, 40]) * 0.05))
    assert np.all(scores <= wanted) and np.all(scores > wanted - 0.05 / 2 / 4)
    real = {name: value[np.newaxis].astype(np.float32) * 0.05 for name, value in maps.items()}
    found = parity.Found.first(
        halves.decode(real, None, steps=dict.fromkeys(maps, 0.05), score_threshold=0.5)
    )
    assert found.classes.tolist() == [0, 1]
    np.testing.assert_allclose(found.boxes, boxes, atol=1e-6)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    # As published, all of a plateau are peaks.
    assert len(parity.Found.first(halves.decode(real, None, score_threshold=0.5)).scores) == 5


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_one_convolution_normalises(channels):
    layer = Preprocessing((5, 4), mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0), channels=channels)
    pixels = tf.constant(np.random.default_rng(3).integers(0, 256, (1, 5, 4, 3)), tf.float32)
    np.testing.assert_allclose(normalized(layer, pixels), layer.normalize(pixels), rtol=1e-5)


def test_sixteen_bits_are_nearer_than_eight(made, pictures):
    recipe, files, full, heads = made
    path = full.with_name("wide.tflite")
    path.write_bytes(files.with_decoder(wide=True))
    detect = parity.reference(files.detector, files.thresholds)
    images = fitted(files, pictures)[:3]
    limit = files.thresholds["score_threshold"]
    shares = []
    for one in (path, full):
        pairs = parity.pairs_of(portable.TFLiteRunner(one), detect, images)
        shares.append(parity.compare(pairs, parity.INT8, score_threshold=limit))
    wide, narrow = shares
    # Random weights are hard; the difference between the two is for weights of 8 bits in both.
    assert wide.compared > 20 and wide.share > 0.9 and wide.share > narrow.share - 0.02, shares


def test_other_sizes_and_batches(tmp_path, pictures):
    """Fitted in with its aspect ratio inside the file; two images, as a batch holds them."""
    recipe = "centernet_resnet101_fpn"
    files = order(recipe, tmp_path, pictures, frame=(90, 130), batch_size=2)
    detect = parity.reference(files.detector, files.thresholds)
    images = [tf.cast(tf.image.resize(p, (90, 130)), tf.uint8).numpy() for p in pictures[:2]]
    for wide in (False, True):
        path = tmp_path / "f.tflite"
        path.write_bytes(files.with_decoder(wide=wide))
        run = portable.TFLiteRunner(path)
        assert run.frame == (90, 130)
        result = parity.compare(
            parity.pairs_of(run, detect, images), parity.INT8, score_threshold=0.1
        )
        assert result.compared > 10 and result.share > 0.9, result
    with pytest.raises(
        ValueError, match=r"tflite_int8_heads takes.*96,96, got --input_size=90,130"
    ):
        files.heads()


class Measure:
    """Gives one AP for the model and another one for files; notes what it was asked."""

    def __init__(self, model, file):
        self.model, self.file, self.asked = model, file, []

    def __call__(self, run, frame):
        of_file = isinstance(run, portable.TFLiteRunner | HeadsRunner)
        self.asked.append((of_file, frame))
        assert len(run(np.zeros((*frame, 3), np.uint8))) == 1
        return (self.file if of_file else self.model), 50


def test_ap_judges_calibrated_files_and_stands_in_the_card(tmp_path, pictures, monkeypatch):
    detector = enliven(tiny_detector())
    formats = ["tflite", "tflite_full_int8", "tflite_int8_heads"]
    options = {"formats": formats, "images": pictures[:1], "calibration": pictures[:2]}
    measure = Measure(0.5, 0.4905)
    card = export(detector, tmp_path / "out", measure=measure, **options)
    # The model once; of float files nothing.
    assert measure.asked == [(False, (64, 64)), (True, (64, 64)), (True, (64, 64))]
    assert "ap" not in card["formats"]["tflite"]
    for name in formats[1:]:
        wanted = {"file": 0.4905, "model": 0.5, "images": 50, "max_loss": 0.01}
        assert card["formats"][name]["ap"] == wanted
    options["formats"] = ["tflite_full_int8"]
    with pytest.raises(parity.ParityError, match="loses 2.00 points of AP: 0.4800, the model has"):
        export(detector, tmp_path / "no", measure=Measure(0.5, 0.48), **options)
    export(detector, tmp_path / "yes", measure=Measure(0.5, 0.48), max_ap_loss=0.03, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "yes"]
    # Detections that are not found again do not matter where AP says that it is as good,

    def check(name, result, tolerance):
        raise parity.ParityError(f"{name} is not found again")

    monkeypatch.setattr(parity, "check", check)
    export(detector, tmp_path / "ap", measure=Measure(0.5, 0.5), **options)
    # and they decide where AP says little, and for weights of 8 bits alone.
    with pytest.raises(parity.ParityError, match="full_int8 is not found again"):
        export(detector, tmp_path / "low", measure=Measure(0.04, 0.04), **options)
    options |= {"formats": ["tflite_int8"], "calibration": ()}
    with pytest.raises(parity.ParityError, match="int8 is not found again"):
        export(detector, tmp_path / "old", measure=Measure(0.5, 0.5), **options)


def test_the_decoders_are_short_and_need_numpy_alone():
    # Votes are 12 lines, and the overlaps that both need 8.
    for module, lines in ((ssd, 80), (centernet, 82)):
        code = Path(module.__file__).read_text()
        assert len(code.splitlines()) <= lines
        imports = [line for line in code.splitlines() if line.startswith(("import", "from"))]
        assert imports == ["import json", "import numpy as np"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ["tflite_16x8"]}, "tflite_16x8: the ranges.*--calibration_images"),
        ({"formats": ["tflite"], "calibration": [0]}, "1 calibration pict.*have no effect on tfl"),
    ],
)
def test_pictures_and_formats_belong_together(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(lively_detector("ssd300_resnet34"), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_heads_that_compute_in_floats_are_refused(tmp_path, pictures, monkeypatch):
    files = order("ssd300_resnet34", tmp_path, pictures)
    # What the converter leaves in float32: a file of floats throughout.
    monkeypatch.setattr(Integers, "_network", files._convert(files.function))
    with pytest.raises(
        ValueError, match="tflite_int8_heads: ADD, CONV_2D, .* of SSD compute in fl"
    ):
        files.heads()


def test_two_looks_are_refused(tmp_path, pictures):
    detector = lively_detector("ssd300_resnet34", "SSDDecoder.test_time = ('flip',)")
    with pytest.raises(ValueError, match=r"SSDDecoder.test_time = \('flip',\) looks at each image"):
        order("ssd300_resnet34", tmp_path, pictures, detector).with_decoder(wide=False)


def test_spread_takes_items_at_even_distances():
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread(range(3), 10) == [0, 1, 2]
    assert spread([], 3) == []
