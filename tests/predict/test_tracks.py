"""Objects keep their numbers through a video: shapes that move, cross and hide each other."""

import itertools
import json

import numpy as np
import pytest

from benchmarks import tracks
from ssd_centernet.drawing.visualize import class_color
from ssd_centernet.labels import LabelMap
from ssd_centernet.predict.tracks import Tracker, assign
from ssd_centernet.predict.video import predict_video
from ssd_centernet.predict.video_files import VideoWriter, open_video

LABELS = LabelMap(("warm", "cold"), (1, 5))
HEIGHT, WIDTH, RATE, FRAMES = 120, 200, 20.0, 60
# Name -> colour, class, place of the first frame (y, x), pixels in a frame, side.
SHAPES = {
    "red": ((220, 40, 40), 0, (10, 5), (0.6, 2.6), 24),
    "yellow": ((220, 200, 40), 0, (50, 170), (0.0, -2.4), 26),
    "orange": ((230, 120, 30), 0, (48, 4), (0.1, 2.5), 22),
    "blue": ((40, 60, 220), 1, (80, 100), (-0.9, 0.3), 20),
    "cyan": ((40, 200, 220), 1, (90, 150), (-0.2, -1.9), 30),
}


def place_of(name, frame):
    _, _, (y, x), (down, along), side = SHAPES[name]
    top, left = y + down * frame, x + along * frame
    return np.array([top, left, top + side, left + side])


def frame_of(number):
    """Draw a frame; the later ones of SHAPES hide the earlier."""
    pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for name, (color, *_) in SHAPES.items():
        top, left, bottom, right = place_of(name, number).round().astype(int).clip(0)
        pixels[top:bottom, left:right] = color
    return pixels


class ColorFinder:
    """Finds what is seen of each shape by its colour; the less is seen, the lower is the score."""

    def detect(self, image):
        found = []
        for color, number, _, _, side in SHAPES.values():
            # A margin, as the video's compression changes colours.
            rows, columns = np.nonzero((np.abs(image.astype(int) - color) < 45).all(axis=2))
            if len(rows) > side:
                box = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
                found.append((min(1.0, len(rows) / side**2), box, number))
        found.sort(key=lambda one: -one[0])
        boxes = np.array([box for _, box, _ in found], np.float32).reshape(-1, 4)
        return {
            "boxes": boxes / np.tile(image.shape[:2], 2).astype(np.float32),
            "scores": np.array([score for score, _, _ in found], np.float32),
            "classes": np.array([number for _, _, number in found], np.int64),
        }


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    pytest.importorskip("cv2", reason='OpenCV is not installed: pip install "ssd_centernet[video]"')
    path = tmp_path_factory.mktemp("clip") / "shapes.mp4"
    writer = VideoWriter(path, RATE)
    for number in range(FRAMES):
        writer.add(frame_of(number))
    writer.close()
    return path


def shape_at(bbox, class_name, frame):
    """Which shape a detection is of: the nearest of its class."""
    x, y, width, height = bbox
    middle = np.array([y + height / 2, x + width / 2])
    candidates = [name for name, one in SHAPES.items() if LABELS.names[one[1]] == class_name]
    middles = {name: place_of(name, frame).reshape(2, 2).mean(axis=0) for name in candidates}
    return min(candidates, key=lambda name: np.abs(middles[name] - middle).max())


def numbers_of_shapes(lines):
    """Shape -> the track numbers that it had, one after the other."""
    had = {name: [] for name in SHAPES}
    for line in map(json.loads, lines):
        for one in line["detections"]:
            name = shape_at(one["bbox"], one["class"], line["frame"])
            had[name].append((one["track_id"], one["score"]))
    return had


def switches(had):
    """How often a shape got another number."""
    return sum(
        before != after
        for numbers in had.values()
        for (before, _), (after, _) in itertools.pairwise(numbers)
    )


def test_shapes_keep_their_numbers_where_they_cross(clip, tmp_path):
    options = {"label_map": LABELS, "min_score": 0.6, "track": True}
    found = predict_video(ColorFinder(), open_video(clip), output=tmp_path / "o", **options)
    with open(found.lines) as file:
        had = numbers_of_shapes(file)
    # Some are hidden wholly meanwhile, some in part.
    lengths = {name: len(numbers) for name, numbers in had.items()}
    assert min(lengths.values()) <= FRAMES - 3 and max(lengths.values()) == FRAMES
    assert any(score < 0.6 for numbers in had.values() for _, score in numbers)
    assert (found.tracks, switches(had)) == (len(SHAPES), 0), had
    assert sorted({number for numbers in had.values() for number, _ in numbers}) == [1, 2, 3, 4, 5]


def test_a_tracker_that_only_looks_back_a_frame_loses_them(clip):
    """What the test above would see: without patience and weak detections numbers change."""
    whole, hasty = (Tracker(min_score=0.6, rate=RATE, patience=p) for p in (1.0, 0.0))
    find, weakest = ColorFinder(), 0.6
    for _, frame in open_video(clip).frames():
        one = find.detect(frame)
        strong = one["scores"] >= weakest
        boxes = one["boxes"] * np.tile(frame.shape[:2], 2)
        whole.update(boxes, one["scores"], one["classes"])
        hasty.update(boxes[strong], one["scores"][strong], one["classes"][strong])
    assert whole.count == len(SHAPES) < hasty.count


def test_ten_noisy_objects_that_hide_each_other_keep_their_numbers():
    """A scene of benchmarks/tracks.py, whose figures are in docs/own_data.md."""
    found = tracks.count(tracks.Ours(), tracks.scene(0, 10, 150))
    assert found["numbered"] > 0.93 * found["detections"] > 1000
    assert found["under their main number"] > 0.9 * found["numbered"]
    assert found["switches"] <= 4
    # Numbers that are given anew in each frame would not do.
    lost = tracks.count(lambda frame: 1 + np.arange(len(frame.boxes)), tracks.scene(0, 10, 150))
    assert lost["switches"] > 100


def test_the_drawn_video_has_a_colour_for_each_track(tmp_path):
    path, times = tmp_path / "large.mp4", 4  # So that lines are wide: the video blurs colours.
    writer = VideoWriter(path, RATE)
    for number in range(4):
        writer.add(frame_of(number).repeat(times, axis=0).repeat(times, axis=1))
    writer.close()
    options = {"label_map": LABELS, "min_score": 0.6, "track": True}
    found = predict_video(ColorFinder(), open_video(path), output=tmp_path / "o", **options)
    colors = {}
    with open(found.lines) as file:
        lines = [json.loads(line) for line in file]
    for line, (_, drawn) in zip(lines, open_video(found.drawn).frames(), strict=True):
        for one in line["detections"]:
            x, y, width, height = one["bbox"]
            # Inside of the lower edge, where no label is.
            edge = drawn[round(y + height) - 2, round(x + width / 2)]
            colors.setdefault(one["track_id"], []).append(edge.astype(int))
    wanted = np.array([class_color(number) for number in sorted(colors)])
    assert sorted(colors) == [1, 2, 3, 4, 5]
    for number, seen in colors.items():
        distances = np.abs(np.array(seen)[:, np.newaxis] - wanted).max(axis=2)
        assert (1 + distances.argmin(axis=1)).tolist() == [number] * len(seen), (number, seen)


def test_tracks_begin_with_strong_detections_and_go_on_with_weak_ones():
    tracker = Tracker(min_score=0.5, rate=10.0)
    box, zero = np.array([[10.0, 10.0, 30.0, 30.0]]), np.array([0])

    def update(score, moved=0.0, number=zero):
        return tracker.update(box + moved, np.array([score]), number).tolist()

    def wait(frames):
        for _ in range(frames):
            assert tracker.update(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)).tolist() == []

    assert update(0.4) == [0]  # Weak: begins none.
    assert update(0.6) == [0] and update(0.6, 1.0) == [1]  # A number at the second time.
    assert update(0.2, 2.0) == [1]  # Weak, and overlaps.
    assert update(0.1, 3.0) == [0]  # Weaker than a third of the lowest score.
    # Another class, and another place.
    assert update(0.9, 4.0, np.array([1])) == [0] and update(0.9, 5.0, np.array([1])) == [2]
    assert update(0.9, 80.0) == [0]
    wait(6)
    # The first is expected where it would be by now, for a second after it was seen.
    assert update(0.9, 12.0) == [1]
    wait(11)
    assert update(0.9, 13.0) == [0]
    wait(1)
    assert update(0.9, 13.0) == [0]  # What was found once alone is not waited for.
    assert update(0.9, 13.0) == [3] and tracker.count == 3


def test_what_is_there_at_the_beginning_has_its_number_at_once():
    boxes = np.array([[0.0, 0.0, 9.0, 9.0], [50.0, 50.0, 70.0, 70.0], [0.0, 50.0, 9.0, 70.0]])
    tracker = Tracker(min_score=0.5, rate=10.0)
    scores, classes = np.array([0.9, 0.6, 0.4]), np.zeros(3, int)
    assert tracker.update(boxes, scores, classes).tolist() == [1, 2, 0]
    assert tracker.update(boxes[::-1], scores[::-1] + 0.2, classes).tolist() == [0, 2, 1]
    assert tracker.update(boxes, scores + 0.2, classes).tolist() == [1, 2, 3]


def test_pairs_that_gain_most_are_those_of_all_orders():
    rng = np.random.default_rng(4)
    for number in range(60):
        rows, columns = rng.integers(0, 6, 2)
        gains = rng.random((rows, columns)) * (rng.random((rows, columns)) < 0.6)
        if number % 3 == 0:
            gains = gains.round(1)  # With equal ones.
        chosen = assign(gains)
        assert len(set(chosen[0])) == len(set(chosen[1])) == len(chosen[0])
        assert (gains[chosen] > 0).all() and (np.diff(chosen[0]) > 0).all()
        wide = gains if rows <= columns else gains.T
        orders = itertools.permutations(range(wide.shape[1]), wide.shape[0])
        best = max(sum(wide[row, column] for row, column in enumerate(order)) for order in orders)
        assert gains[chosen].sum() == pytest.approx(best)
