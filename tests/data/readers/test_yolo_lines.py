"""What lines of YOLO labels mean: boxes, boxes with points, polygons, and what is refused."""

import numpy as np
import pytest

from ssd_centernet.data.readers.yolo import read_yolo
from tests.data.readers import own_set

WIDTH, HEIGHT = own_set.WIDTH, own_set.HEIGHT
# x_center, y_center, width, height of objects in many places, some of them large.
PLACES = [
    (0.2, 0.3, 0.2, 0.3),
    (0.7, 0.25, 0.3, 0.2),
    (0.5, 0.6, 0.5, 0.6),
    (0.85, 0.8, 0.2, 0.25),
    (0.15, 0.85, 0.1, 0.2),
    (0.6, 0.5, 0.7, 0.4),
]


def write(root, lines, yaml=""):
    """A data set of one picture with these lines."""
    own_set.write_images(root / "images/train", ["a.jpg"])
    (root / "labels/train").mkdir(parents=True)
    text = "\n".join(" ".join(f"{v:.6g}" for v in line) for line in lines)
    (root / "labels/train/a.txt").write_text(text)
    (root / "data.yaml").write_text(f"train: images/train\nnames: [cat, emu]\n{yaml}")
    return root


def pixels(places):
    return [
        [(x - w / 2) * WIDTH, (y - h / 2) * HEIGHT, w * WIDTH, h * HEIGHT] for x, y, w, h in places
    ]


def boxes(source):
    return [a["bbox"] for a in source.content["annotations"]]


def posed(place, count, size, flag=2, seed=0):
    """A line of a box with points, most of them inside, one outside and one not seen."""
    x, y, w, h = place
    rng = np.random.default_rng(seed)
    points = np.array([x, y]) + (rng.random((count, 2)) - 0.5) * [w, h] * 0.9
    if count > 2:
        points[0] = x + w * 0.7, y
    if count > 4:
        points[1] = 0
    if size == 3:
        seen = np.full((count, 1), flag)
        seen[1:2] = 0 if count > 4 else flag
        points = np.concatenate([points, seen], axis=1)
    return [0, *place, *points.ravel()]


def ring(place, count, turn=0.3):
    """A line of a polygon that just fits a place."""
    x, y, w, h = place
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False) + turn
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    low, high = points.min(0), points.max(0)
    points = (points - low) / (high - low) * [w, h] + [x - w / 2, y - h / 2]
    return [0, *points.ravel()]


@pytest.mark.parametrize(
    ("count", "size", "flag"), [(8, 2, 0), (4, 3, 1), (4, 3, 2), (17, 3, 2), (1, 2, 0), (2, 2, 0)]
)
def test_kpt_shape_says_that_the_first_four_are_the_box(count, size, flag, tmp_path):
    lines = [posed(p, count, size, flag, i) for i, p in enumerate(PLACES)]
    source = read_yolo(write(tmp_path, lines, f"kpt_shape: [{count}, {size}]\n"), split="train")
    np.testing.assert_allclose(boxes(source), pixels(PLACES), atol=1e-3)
    assert own_set.reasons(source) == {"a box with points: the points are left out": len(PLACES)}


@pytest.mark.parametrize(
    "yaml", ["kpt_shape: [17, 3]", "kpt_shape:\n- 17\n- 3", "kpt_shape: 17, 3"]
)
def test_lines_that_do_not_fit_kpt_shape_are_an_error(yaml, tmp_path):
    lines = [posed(PLACES[0], 17, 3), [0, *PLACES[1]]]
    root = write(tmp_path, lines, yaml + "\n")
    with pytest.raises(ValueError, match=r"a\.txt line 2 has 5 numbers, .* 1 of 2 .*expected 56"):
        read_yolo(root, split="train")


@pytest.mark.parametrize("value", ["[17]", "[17, 4]", "17", "{a: 1}", "[-1, 2]"])
def test_a_kpt_shape_that_is_none(value, tmp_path):
    root = write(tmp_path, [[0, *PLACES[0]]], f"kpt_shape: {value}\n")
    with pytest.raises(ValueError, match=r"data\.yaml: kpt_shape: expected \[points, numbers a po"):
        read_yolo(root, split="train")


@pytest.mark.parametrize(
    ("count", "size", "flag"), [(17, 3, 2), (4, 3, 1), (1, 3, 2), (12, 2, 0), (6, 3, 0.7)]
)
def test_points_are_told_from_polygons_without_kpt_shape(count, size, flag, tmp_path):
    lines = [posed(p, count, size, flag, i) for i, p in enumerate(PLACES)]
    source = read_yolo(write(tmp_path, lines), split="train")
    np.testing.assert_allclose(boxes(source), pixels(PLACES), atol=1e-3)
    assert own_set.reasons(source) == {"a box with points: the points are left out": len(PLACES)}


@pytest.mark.parametrize("count", [3, 4, 5, 6, 8, 12, 40])
def test_polygons_of_one_length_are_told_from_points(count, tmp_path):
    source = read_yolo(write(tmp_path, [ring(p, count) for p in PLACES]), split="train")
    np.testing.assert_allclose(boxes(source), pixels(PLACES), atol=1e-3)
    assert sum(own_set.reasons(source).values()) == len(PLACES)


def test_polygons_of_many_lengths_and_boxes_go_together(tmp_path):
    """As exports of masks have them; one mask crosses itself and one has two parts."""
    lines = [ring(p, n) for p, n in zip(PLACES, (3, 7, 12, 30, 100, 5), strict=True)]
    bow = [0, 0.4, 0.4, 0.6, 0.6, 0.6, 0.4, 0.4, 0.6, 0.4, 0.5]
    source = read_yolo(write(tmp_path, [*lines, bow, [1, 0.5, 0.5, 0.1, 0.1]]), split="train")
    expected = pixels([*PLACES, (0.5, 0.5, 0.2, 0.2), (0.5, 0.5, 0.1, 0.1)])
    np.testing.assert_allclose(boxes(source), expected, atol=1e-3)
    assert own_set.reasons(source) == {"a polygon: replaced by the box around it": 7}


def test_oriented_boxes_become_the_box_around_them(tmp_path):
    lines = []
    for i, (x, y, w, h) in enumerate(PLACES[:3]):
        turn = 0.2 + i
        across, down = (
            np.array([np.cos(turn), np.sin(turn)]),
            np.array([-np.sin(turn), np.cos(turn)]),
        )
        signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        corners = [[x, y] + s * across * w * 0.2 + t * down * h * 0.2 for s, t in signs]
        lines.append([0, *np.ravel(corners)])
    source = read_yolo(write(tmp_path, lines), split="train")
    around = [(min(v[1::2]), min(v[2::2]), max(v[1::2]), max(v[2::2])) for v in lines]
    places = [((a + c) / 2, (b + d) / 2, c - a, d - b) for a, b, c, d in around]
    np.testing.assert_allclose(boxes(source), pixels(places), atol=1e-3)
    assert own_set.reasons(source) == {
        "four corners, an oriented box or a polygon: replaced by the box around them": 3
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            [[0, *p, 0.9] for p in PLACES],
            r"line 1 has six numbers \(so have 6 lines\): likely pred",
        ),
        ([[0, *PLACES[0]], [0, *PLACES[1], 0.9]], r"a\.txt line 2 has six numbers"),
        ([[0, *p, 0.9, i + 1] for i, p in enumerate(PLACES)], r"line 1 has seven.* score track"),
        ([[0, *PLACES[0], 0.9, 1]], r"two readings: a polygon of three .* or 'class x y width"),
        # A polygon with a score at its end, as predictions of masks have it.
        ([[*ring(p, 7), 0.9] for p in PLACES], r"16 numbers, first .*line 1, .* no reading: 0 of"),
    ],
)
def test_predictions_are_refused(lines, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_yolo(write(tmp_path, lines), split="train")


@pytest.mark.parametrize(
    "lines",
    [
        [posed(p, 17, 3) for p in PLACES] + [ring(p, 12) for p in PLACES],
        [ring(p, n) for p, n in zip(PLACES, (5, 6, 7, 8, 9, 10), strict=True)]
        + [posed(PLACES[0], 4, 3, 1)],
        [posed(p, 4, 3, seed=i) for i, p in enumerate(PLACES * 4)] + [ring(PLACES[0], 8)],
        [ring(p, 8) for p in PLACES * 4] + [posed(PLACES[0], 4, 3, 1)],
        [posed(p, 4, 2, seed=i) for i, p in enumerate(PLACES)]
        + [posed(p, 9, 2, seed=i) for i, p in enumerate(PLACES)],
    ],
)
def test_sets_that_mix_readings_are_refused(lines, tmp_path):
    told = (
        r"(different lengths.*a\.txt line \d+|a\.txt line 25 fits).*two kinds.*'kpt_shape: .*segm"
    )
    with pytest.raises(ValueError, match=told):
        read_yolo(write(tmp_path, lines), split="train")


def test_lines_whose_end_is_lost_are_refused(tmp_path):
    root = write(tmp_path, [[0, *p] for p in PLACES])
    path = root / "labels/train/a.txt"
    text = path.read_text()
    for count in (1, 2):
        path.write_text(text.replace("\n", "", count))
        with pytest.raises(ValueError, match=r"a\.txt line 1 has (9|13) numbers, .*lines joined"):
            read_yolo(root, split="train")
    path.write_text("0 0.2 0.3 0.2 0.3 1 0.7\n0.25 0.3 0.2\n" + text)
    with pytest.raises(ValueError, match=r"a\.txt line 1 has 7 numbers and line 2 less than five"):
        read_yolo(root, split="train")
    path.write_text(text.replace("\n", " ", 1))
    with pytest.raises(ValueError, match=r"10 numbers, first .*a\.txt line 1, which fit no r"):
        read_yolo(root, split="train")


def test_what_fits_two_readings_is_refused_until_data_yaml_says_which(tmp_path):
    # A quadrangle near the middle is a box with two points, too.
    line = [0, 0.5, 0.5, 0.6, 0.55, 0.62, 0.66, 0.45, 0.6]
    root = write(tmp_path, [line])
    told = r"9 numbers, first .*a\.txt line 1, which fit two readings: 1 of 1 .* 1 fit a polygon"
    with pytest.raises(ValueError, match=told):
        read_yolo(root, split="train")
    yaml = (root / "data.yaml").read_text()
    (root / "data.yaml").write_text(yaml + "kpt_shape: [2, 2]\n")
    np.testing.assert_allclose(
        boxes(read_yolo(root, split="train")), pixels([line[1:5]]), atol=1e-3
    )
    (root / "data.yaml").write_text(yaml + "task: segment\n")
    expected = pixels([(0.535, 0.58, 0.17, 0.16)])
    np.testing.assert_allclose(boxes(read_yolo(root, split="train")), expected, atol=1e-3)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([1, 20, 15, 10, 10], r"line 2 has x_center 20, which is not a fraction.*likely pixels"),
        ([1, 0.5, 0.5, 0.2, 75], r"line 2 has height 75, which is not a fraction"),
        ([1, 12, 6, 30, 6, 20, 25], r"line 2 has x or width 30, which is not a fraction"),
        ([1, 0.5, -3, 0.2, 0.2], r"line 2 has y_center -3"),
    ],
)
def test_pixels_are_refused_with_their_place(line, message, tmp_path):
    with pytest.raises(ValueError, match=rf"labels/train/a\.txt {message}"):
        read_yolo(write(tmp_path, [[0, *PLACES[0]], line]), split="train")
