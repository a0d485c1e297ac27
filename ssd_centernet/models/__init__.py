"""Detectors: a network, a criterion and a decoder, composed."""
