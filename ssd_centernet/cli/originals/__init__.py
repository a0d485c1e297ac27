"""The command lines of the published systems, turned into those of this library."""
