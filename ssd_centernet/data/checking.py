"""Pictures of a split, read and checked by threads, some ahead of what writes them."""

from __future__ import annotations

import collections
import concurrent.futures
import os
from collections.abc import Iterator

import tensorflow as tf

from ssd_centernet.data.decoder_lines import DecoderLines
from ssd_centernet.data.images import CheckedImage, check_image
from ssd_centernet.data.readers.coco import CocoImage, CocoIndex
from ssd_centernet.data.readers.source import EncodedImages
from ssd_centernet.data.tiling import Cutting
from ssd_centernet.data.validate import MISSING

_CORRUPT = "JPEG with corrupt data: the decoder goes on, and what is seen may be wrong"


def encoded_contents(
    images: list[CocoImage], image_dir, encoded: EncodedImages | None
) -> Iterator[str | bytes]:
    """Yield the path of each image, or its bytes if the annotations hold them."""
    if encoded is None:
        yield from (os.path.join(image_dir, image.file_name) for image in images)
        return
    stream = encoded.read()
    for image in images:
        yield next(data for name, data in stream if name == image.file_name)


def checked_images(
    index: CocoIndex,
    contents: Iterator[str | bytes],
    files: list[tuple],
    max_pixels: int,
    workers: int,
    said: DecoderLines,
    cutting: Cutting | None = None,
) -> Iterator[tuple[CocoImage, CheckedImage]]:
    """Yield the images in order; threads read a bounded number of images ahead.

    Args:
        index, contents, files, max_pixels, workers: of the conversion.
        said: what the decoder says, which gives notes about the images that it means.
        cutting: how pictures are cut into tiles; None for not at all.
    """
    # Pictures that are cut into tiles are large.
    ahead = (4 if cutting is None else 1) * workers

    def check(image: CocoImage, content: str | bytes, size: int) -> CheckedImage:
        if size < 0:
            return CheckedImage(dropped=MISSING)
        checked = check_image(
            content,
            listed_width=image.width,
            listed_height=image.height,
            max_pixels=max_pixels,
            decode=_decode,
            upright=index.upright,
        )
        return checked if cutting is None else cutting.cut_picture(checked)

    # Threads, not processes: hashing and decoding release the interpreter lock, and a spawned
    # process would spend seconds on importing tensorflow.
    waiting: collections.deque = collections.deque()

    def first() -> tuple[CocoImage, CheckedImage]:
        result = waiting[0][1].result()
        if said.take():
            # It names no file, and several threads decode: each of these once more, alone.
            concurrent.futures.wait([future for _, future, _ in waiting])
            said.take()
            for image, future, given in waiting:
                check(image, *given)
                if said.take() and _CORRUPT not in future.result().notes:
                    future.result().notes.append(_CORRUPT)
        return waiting.popleft()[0], result

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for image, content, (_, size, _) in zip(index.images, contents, files, strict=True):
            given = (content, size)
            waiting.append((image, pool.submit(check, image, *given), given))
            if len(waiting) > ahead:
                yield first()
        while waiting:
            yield first()


def _decode(encoded: bytes) -> None:
    """Decode as training would; the smallest JPEG scale still reads every byte of the stream."""
    try:
        with tf.device("cpu"):
            if encoded[:2] == b"\xff\xd8":
                tf.io.decode_jpeg(encoded, channels=3, ratio=8)
            else:
                tf.io.decode_png(encoded, channels=3)
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(error.message) from error
