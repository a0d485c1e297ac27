"""The detector of a run or of an exported file, in two steps: one picture, then a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssd_centernet.export.exported import ExportedDetector
from ssd_centernet.models.detector import Detector
from ssd_centernet.predict.fixed_size import empty_batch, fixed_size_step

# What `prepare` makes of a picture: pixels for the network, and the share that the picture covers;
# both once more for each further size at which a decoder looks.
Prepared = tuple[np.ndarray, ...]
Detections = dict[str, np.ndarray]


class RunEngine:
    """Detect with the Keras model of a run, in batches of a few fixed sizes.

    A batch is filled up to the next power of two, so that one picture does not pay for eight. Each
    size is traced once, by `warm`, and never again.

    Attributes:
        batch_size: most pictures of one call.
        frame: (height, width) of the network's input.
    """

    def __init__(self, detector: Detector, batch_size: int):
        """Take a detector with its weights."""
        self.batch_size = batch_size
        self.frame = tuple(detector.image_size)
        self.sizes = sorted({*(2**n for n in range(batch_size.bit_length())), batch_size})
        steps = [fixed_size_step(detector, size) for size in self.sizes]
        self._prepare = steps[0][0]
        self._detect = {size: step[1] for size, step in zip(self.sizes, steps, strict=True)}

    def warm(self) -> None:
        """Trace and run every size, so that no request pays for it."""
        picture = self.prepare(np.zeros((32, 48, 3), np.uint8))
        for size in self.sizes:
            self.detect([picture] * size)

    def prepare(self, pixels: np.ndarray) -> Prepared:
        """Resize and normalise a picture, uint8 [H, W, 3]; several threads may call it."""
        return tuple(part.numpy() for part in self._prepare(pixels))

    def detect(self, prepared: Sequence[Prepared]) -> list[Detections]:
        """Detect on at most `batch_size` prepared pictures; one thread may call it."""
        size = next(size for size in self.sizes if size >= len(prepared))
        inputs = empty_batch(self._prepare, size)
        for slot, one in enumerate(prepared):
            for rows, value in zip(inputs, one, strict=True):
                rows[slot] = value
        batch = {name: value.numpy() for name, value in self._detect[size](*inputs).items()}
        counts = batch.pop("count")
        return [
            {name: values[slot, : int(counts[slot])] for name, values in batch.items()}
            for slot in range(len(prepared))
        ]


class FileEngine:
    """Detect with an exported file as it is: one picture at a time.

    Attributes:
        batch_size: 1.
        frame: (height, width) that the file takes; None for any size.
    """

    batch_size = 1

    def __init__(self, exported: ExportedDetector):
        """Take a file that is loaded."""
        self._exported = exported
        self.frame = exported.frame

    def warm(self) -> None:
        """Run the file once: some runtimes prepare themselves at the first call."""
        self.detect([self.prepare(np.zeros((32, 48, 3), np.uint8))])

    def prepare(self, pixels: np.ndarray) -> Prepared:
        """Resize a picture, uint8 [H, W, 3], to what the file takes."""
        return self._exported.fit(pixels)

    def detect(self, prepared: Sequence[Prepared]) -> list[Detections]:
        """Detect on prepared pictures, one after the other; one thread may call it."""
        return [self._exported.detect_fitted(*one) for one in prepared]


Engine = RunEngine | FileEngine
