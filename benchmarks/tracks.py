"""Count how often objects get another number: tracks of `predict --track` and of other trackers.

python benchmarks/tracks.py

Objects of three classes cross a field, turn at its edges and hide each other; who is who is known.
Their detections are drawn by lot: boxes are off by some pixels, some are missed, what is half
hidden scores low, what is hidden is not found, and a few are of nothing. The same scenes go through
our tracker and, where the package `trackers` is installed, through its ByteTrack, one for each
class.

    pip install trackers

brings opencv-python: give it an environment of its own beside NumPy and this checkout.
"""

import argparse
import dataclasses
import importlib.util
import time

import numpy as np

from ssd_centernet.predict.tracks import Tracker

HEIGHT, WIDTH, RATE, MIN_SCORE = 480, 640, 25.0, 0.4
CLASSES = 3


@dataclasses.dataclass
class Frame:
    """The detections of a frame: boxes yxyx in pixels, and which object each is of (-1: none)."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    objects: np.ndarray


def scene(seed: int, objects: int, frames: int) -> list[Frame]:
    """Draw a scene; objects of higher numbers hide those of lower ones."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(24, 80, (objects, 2))
    middles = rng.uniform(0.1, 0.9, (objects, 2)) * (HEIGHT, WIDTH)
    speeds = rng.uniform(-4.0, 4.0, (objects, 2))
    classes = rng.integers(0, CLASSES, objects)
    made = []
    for _ in range(frames):
        middles += speeds
        speeds += rng.normal(0.0, 0.1, speeds.shape)
        outside = (middles < 0) | (middles > (HEIGHT, WIDTH))
        speeds[outside] *= -1.0
        middles = middles.clip(0, (HEIGHT, WIDTH))
        boxes = np.concatenate([middles - sides / 2, middles + sides / 2], axis=1)
        hidden = np.array([share_hidden(boxes, number) for number in range(objects)])
        scores = 0.9 - 0.8 * hidden + rng.normal(0.0, 0.08, objects)
        seen = (hidden < 0.8) & (rng.random(objects) > 0.08) & (scores > 0.05)
        seen = np.flatnonzero(seen)
        noisy = boxes[seen] + rng.normal(0.0, 0.04, (len(seen), 4)) * np.tile(sides[seen], 2)
        wrong = rng.random(rng.poisson(0.3))
        places = rng.uniform(0, 400, (len(wrong), 2))
        noisy = np.concatenate([noisy, np.concatenate([places, places + 40.0], axis=1)])
        made.append(
            Frame(
                boxes=noisy,
                scores=np.concatenate([scores[seen].clip(0, 1), 0.2 + 0.4 * wrong]),
                classes=np.concatenate([classes[seen], rng.integers(0, CLASSES, len(wrong))]),
                objects=np.concatenate([seen, np.full(len(wrong), -1)]),
            )
        )
    return made


def share_hidden(boxes: np.ndarray, number: int) -> float:
    """Tell which share of an object its nearest cover hides at most."""
    covers = boxes[number + 1 :]
    if not len(covers):
        return 0.0
    own = boxes[number]
    sides = np.minimum(covers[:, 2:], own[2:]) - np.maximum(covers[:, :2], own[:2])
    return float(np.prod(sides.clip(0), axis=1).max() / np.prod(own[2:] - own[:2]))


class Ours:
    """The tracker of `predict --track`."""

    def __init__(self):
        self._tracker = Tracker(min_score=MIN_SCORE, rate=RATE)

    def __call__(self, frame: Frame) -> np.ndarray:
        """Return the number of each detection's track, 0 for none."""
        return self._tracker.update(frame.boxes, frame.scores, frame.classes)


class Roboflow:
    """ByteTrack of the package `trackers`, with the same scores; the rest as it comes."""

    def __init__(self):
        import trackers

        options = {"track_activation_threshold": MIN_SCORE, "high_conf_det_threshold": MIN_SCORE}
        options |= {"frame_rate": RATE, "minimum_consecutive_frames": 1}
        self._trackers = [trackers.ByteTrackTracker(**options) for _ in range(CLASSES)]

    def __call__(self, frame: Frame) -> np.ndarray:
        """Return the number of each detection's track, 0 for none."""
        import supervision

        ids = np.zeros(len(frame.boxes), np.int64)
        for number, tracker in enumerate(self._trackers):
            mine = np.flatnonzero(frame.classes == number)
            given = supervision.Detections(
                xyxy=frame.boxes[mine][:, [1, 0, 3, 2]].reshape(-1, 4),
                confidence=frame.scores[mine],
                data={"place": mine},
            )
            found = tracker.update(given)
            if len(found):
                known = found.tracker_id >= 0
                # Trackers of the classes count from the same number.
                ids[found.data["place"][known]] = 1 + found.tracker_id[known] * CLASSES + number
        return ids


def count(tracker, frames: list[Frame]) -> dict[str, float]:
    """Follow a scene and compare with who is who."""
    had: dict[int, list[int]] = {}
    began = time.perf_counter()
    numbers = [tracker(frame) for frame in frames]
    seconds = time.perf_counter() - began
    for frame, ids in zip(frames, numbers, strict=True):
        for who, number in zip(frame.objects, ids, strict=True):
            if who >= 0 and number > 0:
                had.setdefault(int(who), []).append(int(number))
    switches = sum(int((np.diff(one) != 0).sum()) for one in had.values())
    main = sum(int(np.unique(one, return_counts=True)[1].max()) for one in had.values())
    numbered = sum(map(len, had.values()))
    there = sum(int((frame.objects >= 0).sum()) for frame in frames)
    return {
        "detections": there,
        "numbered": numbered,
        "under their main number": main,
        "switches": switches,
        "ms a frame": 1e3 * seconds / len(frames),
    }


def main() -> None:
    """Print a line for each tracker and number of objects."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=10)
    parser.add_argument("--frames", type=int, default=300)
    chosen = parser.parse_args()
    kinds = {"ours": Ours}
    if importlib.util.find_spec("trackers"):
        kinds["trackers"] = Roboflow
    for objects in (5, 10, 20):
        for name, kind in kinds.items():
            found = [
                # What is set in ours was chosen on scenes 0 to 9.
                count(kind(), scene(100 + number, objects, chosen.frames))
                for number in range(chosen.scenes)
            ]
            total = {key: sum(one[key] for one in found) for key in found[0]}
            right = total["under their main number"] / total["numbered"]
            print(
                f"{objects:3} objects, {name:9} {total['switches']:4} switches, "
                f"{total['numbered'] / total['detections']:.1%} numbered, "
                f"{right:.1%} under their main number, "
                f"{total['ms a frame'] / chosen.scenes:.2f} ms a frame"
            )


if __name__ == "__main__":
    main()
