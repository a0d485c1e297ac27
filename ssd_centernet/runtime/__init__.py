"""Devices, precision and processes; imports nothing else of the package."""
