"""Trained detectors that others published: our decoders and metrics give what theirs give."""
