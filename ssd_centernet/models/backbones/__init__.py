"""Backbones: Keras models from images to a dict of features by pyramid level ("3": stride 8)."""
