"""Detect objects in image files and draw them."""
