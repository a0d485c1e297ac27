"""Inputs that are changed by fixed seeds, and a judge of what the library makes of each.

`python -m tests.mutations --all` prints a table. Every changed input must end in exactly the right
boxes, classes and images, in an error that names the file and the place, or in a loss that the
report counts with its place.
"""
