"""Keras layers over the pure functions of `ops`: anchors, heads, criteria, decoders."""
