"""The base of decoders."""

from __future__ import annotations

from collections.abc import Sequence

from ssd_centernet.layers.base import Float32Layer

FLIP = "flip"


class Decoder(Float32Layer):
    """The base of decoders: what they may ask of a detector beside one look at each image."""

    def __init__(self, *, test_time: Sequence[str], **kwargs):
        """Note the setting.

        Args:
            test_time: "flip" or nothing.
            **kwargs: passed to the Keras layer.

        Raises:
            ValueError: another word, or a text instead of a tuple.
        """
        super().__init__(**kwargs)
        given = (test_time,) if isinstance(test_time, str) else tuple(test_time)
        if isinstance(test_time, str) or set(given) - {FLIP}:
            raise ValueError(
                f"{type(self).__name__}.test_time is {test_time!r}; expected () or ('flip',)."
            )
        self.test_time = given
