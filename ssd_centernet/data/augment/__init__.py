"""Augmentation chains, one module for each published one: `chain(example, seed) -> example`."""
