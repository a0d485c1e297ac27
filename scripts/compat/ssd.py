#!/usr/bin/env python3
"""ssd.py of the original: `ssd_centernet compat -- ssd.py ...`."""

from _compat import run

run("ssd.py")
