"""Data sets: reading, converting, augmenting and batching."""
