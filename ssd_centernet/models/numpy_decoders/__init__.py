"""Decoders of raw int8 maps with NumPy alone; an export puts the one that fits beside its file."""

from ssd_centernet.models.numpy_decoders import centernet, ssd

DECODERS = {"ssd": ssd, "centernet": centernet}
