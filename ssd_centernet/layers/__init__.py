"""Keras layers on top of the pure functions of `ops`: anchors, heads, criteria, decoders."""
