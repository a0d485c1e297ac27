"""Detectors: each a network, a criterion and a decoder."""
