"""Augmentation chains, one module for each published chain: `chain(example, seed) -> example`."""
