"""The input pipeline's heaviest steps as operations of our own, where they have been compiled.

The graphs of `data/augment/` and `ops/matching.py` say what is computed, and need nothing but
TensorFlow. The operations do the same for one image each in a fraction of the time: decisions (the
windows of crops, which anchor belongs to which object) bit for bit, pixels and box codes to float32
rounding. `python -m ssd_centernet.native.build` compiles them.
"""
