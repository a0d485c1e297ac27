"""Videos: files and cameras through OpenCV, and folders of frames; written whole."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ssd_centernet.predict.image_files import find_files, find_images, read_image
from ssd_centernet.runtime.quiet import held_back

ENDINGS = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv"),
    *(".ts", ".3gp", ".ogv"),
)
# What OpenCV's own builds can encode everywhere; H.264 is left out of them.
_CODE = "mp4v"
# A list of other files or addresses, which a decoder would open.
_LISTS = (b"#EXTM3U", b"ffconcat", b"[playlist]", b"<?xml", b"http:", b"https:", b"rtsp:")
_USUAL_RATE = 25.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Video:
    """A video that can be read from its beginning, or from now on.

    Attributes:
        path: of the file, or of the folder of frames; of a camera its name.
        rate: frames per second.
        count: frames that there should be; None where the file does not say.
        frames: yields each frame with its time in seconds, uint8 [H, W, 3] RGB, one in memory.
        skipped: path -> why it is no frame, while they are read.
    """

    path: str
    rate: float
    count: int | None
    frames: Callable[[], Iterator[tuple[float, np.ndarray]]]
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)


def is_video(path: str | os.PathLike) -> bool:
    """Tell by its ending whether a path is a video file."""
    return Path(path).suffix.lower() in ENDINGS


def find_videos(
    folder: str | os.PathLike, *, without: str | os.PathLike | None = None
) -> list[str]:
    """List the video files of a folder and its sub-folders, as `find_images` lists pictures."""
    return find_files([folder], ENDINGS, without=without)


def open_video(path: str | os.PathLike) -> Video:
    """Open a video file.

    Args:
        path: of a local file, of any container and codec that OpenCV's build can decode.

    Raises:
        FileNotFoundError: there is no such file, or it is the address of one.
        ValueError: it is no video, it is cut off so that it cannot be opened, or has no frame.
        ImportError: OpenCV is not installed.
    """
    path = os.fspath(path)
    _check_file(path)
    cv2 = _opencv()
    with _capture(cv2, path) as capture:
        if not capture.isOpened():
            raise ValueError(
                f"{path} cannot be opened as a video: it is cut off (of an mp4 the end is needed), "
                "it is no video, or OpenCV has no decoder for it. Copy it again, or convert it: "
                f"ffmpeg -i {os.path.basename(path)} converted.mp4"
            )
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if not capture.read()[0]:
            raise ValueError(
                f"{path} has no frame that can be decoded: it is empty or cut off, or OpenCV has "
                "no decoder for its codec. Copy it again, or convert it with ffmpeg."
            )
    rate = float(rate) if 0.0 < rate < 1000.0 else _USUAL_RATE
    known = int(count) if 0 < count < 1e9 else None
    return Video(path=path, rate=rate, count=known, frames=lambda: _decoded(cv2, path, rate))


def open_camera(number: int) -> Video:
    """Open a camera of this machine; its frames come from when they are asked for, without end.

    Args:
        number: of the camera, from 0, as OpenCV counts them: on Linux that of /dev/video0.

    Raises:
        ValueError: there is no such camera, or it gives no picture.
        ImportError: OpenCV is not installed.
    """
    cv2 = _opencv()
    with _capture(cv2, number) as capture:
        rate = float(capture.get(cv2.CAP_PROP_FPS)) if capture.isOpened() else 0.0
        if not capture.isOpened() or not capture.read()[0]:
            raise ValueError(
                f"--camera={number}: there is no such camera, another program has it, or it may "
                "not be opened. On Linux `ls /dev/video*` lists what is there, and the user must "
                "be in the group video."
            )
    rate = rate if 0.0 < rate < 1000.0 else _USUAL_RATE
    name = f"camera_{number}"
    return Video(path=name, rate=rate, count=None, frames=lambda: _seen(cv2, number))


def frames_of_folder(path: str | os.PathLike, rate: float) -> Video:
    """Take the pictures of a folder as the frames of a video, in the order of their numbers.

    Args:
        path: the folder; frame2.png comes before frame10.png.
        rate: frames per second, above 0.

    Raises:
        ValueError: there is no picture in it.
    """
    path, skipped = os.fspath(path), {}
    names = sorted(find_images([path]), key=_natural)
    if not names:
        raise ValueError(f"{path} holds no pictures: expected the frames of a video.")

    def frames() -> Iterator[tuple[float, np.ndarray]]:
        for number, name in enumerate(names):
            try:
                yield number / rate, read_image(name)
            except (OSError, ValueError) as error:
                skipped[name] = getattr(error, "strerror", None) or str(error)

    return Video(path=path, rate=rate, count=len(names), frames=frames, skipped=skipped)


class VideoWriter:
    """Write frames to an mp4 file in MPEG-4, one after the other.

    Args:
        path: of the file, which is not to be read before `close`.
        rate: frames per second.
    """

    def __init__(self, path: str | os.PathLike, rate: float):
        self._path, self._rate = os.fspath(path), rate
        self._cv2, self._writer, self._size, self.count = _opencv(), None, (0, 0), 0

    def add(self, frame: np.ndarray) -> None:
        """Add a frame, uint8 [H, W, 3] RGB, of the size of the first one.

        Raises:
            ValueError: it has another size, or OpenCV cannot encode mp4.
        """
        size = frame.shape[1::-1]
        if self._writer is None:
            self._open(size)
        if size != self._size:
            raise ValueError(
                f"frame {self.count} has {size[0]}x{size[1]} pixels, but the first one has "
                f"{self._size[0]}x{self._size[1]}: frames of several sizes are no video that can "
                "be drawn. Give --no_draw for the detections alone."
            )
        self._writer.write(np.ascontiguousarray(frame[..., ::-1]))
        self.count += 1

    def _open(self, size: tuple[int, int]) -> None:
        cv2 = self._cv2
        with held_back():
            code = cv2.VideoWriter_fourcc(*_CODE)
            self._writer = cv2.VideoWriter(self._path, cv2.CAP_FFMPEG, code, self._rate, size)
        self._size = size
        if not self._writer.isOpened():
            raise ValueError(
                f"OpenCV {cv2.__version__} cannot encode mp4 ({_CODE}, {size[0]}x{size[1]}, "
                f"{self._rate:g} frames per second): its build has no FFmpeg, or the sizes are "
                "too small. Give --no_draw for the detections alone, or install the package "
                "opencv-python-headless."
            )

    def close(self) -> None:
        """Finish the file.

        Raises:
            OSError: not all frames are in it.
        """
        if self._writer is None:
            return
        self._writer.release()
        # The encoder does not say when a disk is full.
        with _capture(self._cv2, self._path) as written:
            found = written.get(self._cv2.CAP_PROP_FRAME_COUNT) if written.isOpened() else 0
        if found != self.count:
            raise OSError(
                f"only {max(0, int(found))} of {self.count} frames of the drawn video could be "
                f"written to {os.path.dirname(self._path)}: is the disk full?"
            )


def _check_file(path: str) -> None:
    if re.match(r"[a-z][a-z0-9+.-]+://", path, re.IGNORECASE):
        raise FileNotFoundError(
            f"{path} is an address: only files are read. Download it first, and give the file."
        )
    if not os.path.isfile(path):
        what = "is no file" if os.path.exists(path) else "does not exist"
        raise FileNotFoundError(f"the video {path} {what}.")
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise ValueError(f"the video {path} is empty: 0 bytes.")
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(_LISTS):
        raise ValueError(f"{path} is no video but a list of other files or addresses.")


@contextlib.contextmanager
def _capture(cv2: ModuleType, source: str | int) -> Iterator[Any]:
    """Open a file or a camera without OpenCV's own lines on standard error, and close it."""
    backend = cv2.CAP_ANY if isinstance(source, int) else cv2.CAP_FFMPEG
    with held_back():
        capture = cv2.VideoCapture(source, backend)
    try:
        yield capture
    finally:
        capture.release()


def _decoded(cv2: ModuleType, path: str, rate: float) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the frames as a player shows them, turned too, until one cannot be read."""
    number, before = 0, -1.0
    with _capture(cv2, path) as capture:
        while True:
            whole, frame = capture.read()
            if not whole:
                return
            seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
            # Some containers have no times of their frames.
            if seconds <= before or not np.isfinite(seconds):
                seconds = number / rate if number / rate > before else before + 1.0 / rate
            before, number = seconds, number + 1
            yield seconds, np.ascontiguousarray(frame[..., ::-1])


def _seen(cv2: ModuleType, number: int) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the frames of a camera with the seconds since the first one, until it is taken away."""
    began = None
    with _capture(cv2, number) as capture:
        while True:
            whole, frame = capture.read()
            if not whole:
                return
            began = began or time.monotonic()
            yield time.monotonic() - began, np.ascontiguousarray(frame[..., ::-1])


def _natural(path: str) -> list:
    """Return a key of order in which 2 comes before 10."""
    parts = re.split(r"(\d+)", path)
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in parts] + [path]


def _opencv() -> ModuleType:
    try:
        import cv2

        return cv2
    except ImportError as error:
        raise ImportError(
            "videos are read and drawn through OpenCV, which is not installed: pip install "
            '"ssd_centernet[video]"; or give a folder of frames with --fps and --no_draw, which '
            "need no video file."
        ) from error
