"""Detection on videos: a drawn video, and the detections of each frame as lines of JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ssd_centernet.drawing import visualize
from ssd_centernet.files import remove_leftovers, temporary_folder
from ssd_centernet.labels import LabelMap
from ssd_centernet.models.detector import Detector
from ssd_centernet.predict.listing import chosen, listed
from ssd_centernet.predict.prediction import ImageDetector, class_numbers, finder
from ssd_centernet.predict.tracks import Tracker
from ssd_centernet.predict.video_files import Video, VideoWriter

# The header of some containers is off by a few frames.
_FEW = 3


@dataclasses.dataclass(kw_only=True)
class VideoPredictions:
    """What was found on a video.

    Attributes:
        frames: frames that were read.
        detections: of the lowest score or more, or in a track, on all of them.
        tracks: how many there are; None where none are made.
        rate: frames per second of detection, drawing and writing; those of the first batch, which
            prepares the network, do not count where there are more.
        lines: path of the detections.
        drawn: path of the drawn video, or None.
        notes: what is odd about the video, a sentence each.
    """

    frames: int = 0
    detections: int = 0
    tracks: int | None = None
    rate: float = 0.0
    lines: str = ""
    drawn: str | None = None
    notes: list[str] = dataclasses.field(default_factory=list)


def predict_video(
    detector: Detector | ImageDetector,
    video: Video,
    *,
    output: str | os.PathLike,
    label_map: LabelMap,
    batch_size: int = 8,
    min_score: float = 0.3,
    draw: bool = True,
    classes: Sequence[str] | None = None,
    track: bool = False,
    max_frames: int | None = None,
    progress: Callable[[], None] = lambda: None,
    find: Callable | None = None,
) -> VideoPredictions:
    """Detect objects on every frame of a video, with one batch of frames in memory.

    Writes `OUTPUT.jsonl`, a line for each frame: `frame` from 0, `time` in seconds, `height` and
    `width`, and `detections` of `min_score` or more, each with `category_id`, `class`, `bbox`
    (x, y, width, height in pixels) and `score`, and with `track` its `track_id`. And `OUTPUT.mp4`,
    the drawn video. Both appear when they are whole, or not at all.

    Args:
        detector: a detector with its weights, or an exported file.
        video: of `video_files`.
        output: path of the files without their endings.
        label_map: names and data set ids of the detector's classes.
        batch_size: frames per step, at least 1.
        min_score: detections below it are left out, 0..1.
        draw: whether to write the drawn video.
        classes: names of classes; detections of others are left out.
        track: whether to tell which detections are the same object, by a number from 1; None where
            it is seen for the first time. Detections below `min_score` that continue a track are
            then kept too.
        max_frames: stop after this many; None reads all.
        progress: called after every frame.
        find: of `finder` for this detector and batch size, where several videos share it, so that
            the network is traced once; None makes one.

    Returns:
        The counts and the files.

    Raises:
        ValueError: there is no class of a name, no frame can be read, the output would replace
            the video, or frames cannot be drawn to one video.
        OSError: the files cannot be written.
    """
    kept = None if classes is None else class_numbers(classes, label_map)
    output, find = os.fspath(output), find or finder(detector, batch_size)
    found = VideoPredictions(lines=f"{output}.jsonl", drawn=f"{output}.mp4" if draw else None)
    tracker = Tracker(min_score=min_score, rate=video.rate) if track else None
    both = draw and os.path.exists(found.drawn) and os.path.exists(video.path)
    if both and os.path.samefile(found.drawn, video.path):
        raise ValueError(f"{found.drawn} is the video itself: give another --output_dir.")
    folder, name = os.path.split(os.path.abspath(output))
    remove_leftovers(folder, [f"{glob.escape(name)}.frames"])
    # In a hidden folder: what a kill leaves has the name of no video.
    with temporary_folder(f"{output}.frames") as partial:
        writer = VideoWriter(partial / "drawn.mp4", video.rate) if draw else None
        pace = _Pace()
        with open(partial / "lines", "w", encoding="utf-8") as lines:
            for batch in _batches(video, find, batch_size, max_frames):
                for frame in batch:
                    frame.choose(min_score, kept, tracker)
                    lines.write(json.dumps(frame.line(label_map)) + "\n")
                    if writer is not None:
                        writer.add(frame.drawing(label_map))
                    found.detections += len(frame.detections["scores"])
                    progress()
                found.frames += len(batch)
                found.tracks = None if tracker is None else tracker.count
                found.rate = pace.after(found.frames)
        if not found.frames:
            raise ValueError(f"{video.path} has no frame that can be read.")
        if writer is not None:
            writer.close()
            # Where there are lines, the drawn video is of the same call.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(found.lines)
            os.replace(partial / "drawn.mp4", found.drawn)
        os.replace(partial / "lines", found.lines)
    # Where a whole video was to be read, and the file counts more than its header's error.
    if (
        max_frames is None
        and video.count
        and found.frames + _FEW < video.count - len(video.skipped)
    ):
        found.notes.append(
            f"{video.path} ends after {found.frames} of the {video.count} frames that it counts: "
            "it is cut off or damaged there"
        )
    if max_frames is not None and video.count is None and found.frames < max_frames:
        found.notes.append(f"{video.path} ended after {found.frames} of {max_frames} frames")
    return found


@dataclasses.dataclass
class _Frame:
    """One frame in progress: its pixels, its detections and the numbers of their tracks."""

    number: int
    seconds: float
    pixels: np.ndarray
    detections: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    tracks: np.ndarray | None = None

    def choose(self, min_score: float, kept: Sequence[int] | None, tracker: Tracker | None) -> None:
        """Leave out detections of low scores and of other classes; number those of tracks."""
        if tracker is None:
            self.detections = chosen(self.detections, min_score, kept)
            return
        found = chosen(self.detections, 0.0, kept)
        boxes = found["boxes"] * np.tile(self.pixels.shape[:2], 2)
        numbers = tracker.update(boxes, found["scores"], found["classes"])
        wanted = (numbers > 0) | (found["scores"] >= min_score)
        self.detections = {name: one[wanted] for name, one in found.items()}
        self.tracks = numbers[wanted]

    def line(self, label_map: LabelMap) -> dict:
        """Return what is written of it."""
        place = {"frame": self.number, "time": round(self.seconds, 4)}
        found = listed(self.detections, self.pixels.shape[:2], label_map)
        if self.tracks is not None:
            for one, number in zip(found["detections"], self.tracks.tolist(), strict=True):
                one["track_id"] = number or None
        return {**place, **found}

    def drawing(self, label_map: LabelMap) -> np.ndarray:
        """Return the pixels with the boxes on them."""
        found = self.detections
        names, colors = [label_map.names[index] for index in found["classes"]], None
        if self.tracks is not None:
            numbers = [f" {number}" if number else "" for number in self.tracks]
            names = [name + number for name, number in zip(names, numbers, strict=True)]
            colors = [visualize.class_color(int(number)) for number in self.tracks]
        return visualize.draw_boxes(
            self.pixels,
            found["boxes"],
            labels=names,
            scores=found["scores"],
            classes=found["classes"],
            colors=colors,
        )


class _Pace:
    """Measure the frames per second, without the first batch where there are more."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first: tuple[float, int] | None = None

    def after(self, frames: int) -> float:
        """Return the pace after so many frames; call it after each batch."""
        now = time.monotonic()
        began, before = self._first or (self._began, 0)
        self._first = self._first or (now, frames)
        return (frames - before) / max(now - began, 1e-9)


def _batches(
    video: Video, find: Callable, batch_size: int, max_frames: int | None
) -> Iterator[list[_Frame]]:
    """Yield frames with their detections, a batch at a time."""
    frames = itertools.islice(video.frames(), max_frames)
    numbered = (_Frame(number, *frame) for number, frame in enumerate(frames))
    while batch := list(itertools.islice(numbered, batch_size)):
        for frame, found in zip(batch, find([one.pixels for one in batch]), strict=True):
            frame.detections = found
        yield batch
