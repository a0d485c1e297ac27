"""The base of decoders."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

from ssd_centernet.layers.base import Float32Layer

FLIP = "flip"


class Decoder(Float32Layer):
    """The base of decoders: what they may ask of a detector beside one look at each image."""

    def __init__(self, *, test_time: Sequence[str | float], **kwargs):
        """Note the setting.

        Args:
            test_time: "flip", and factors of the size of the network's input.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: another word, a factor of 0 or less or of 1, or no tuple.
        """
        super().__init__(**kwargs)
        given = None if isinstance(test_time, str | numbers.Real) else tuple(test_time)
        if given is None or any(one != FLIP and not _is_scale(one) for one in given):
            raise ValueError(
                f"{type(self).__name__}.test_time is {test_time!r}; expected () or ('flip',), or "
                "with factors of the input's size, such as ('flip', 0.75, 1.5)."
            )
        self.test_time = given

    def check_vote_iou(self, value: float | None) -> float | None:
        """Return the least overlap of votes, see `ops.voting`.

        Raises:
            ValueError: it is not None and no number above 0 and up to 1.
        """
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 < value <= 1):
            raise ValueError(
                f"{type(self).__name__}.vote_iou is {value!r}; expected a number above 0 and up to "
                "1, without quotes, or None for no votes."
            )
        return value


def scales_of(test_time: Sequence[str | float]) -> list[float]:
    """Return the factors of the input's size among what a decoder asks for."""
    return [one for one in test_time if one != FLIP]


def _is_scale(value: object) -> bool:
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0 and value != 1
