"""Data on disk and its way to the network."""
