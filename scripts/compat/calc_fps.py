#!/usr/bin/env python3
"""calc_fps.py of the original: `ssd_centernet compat -- calc_fps.py ...`."""

from _compat import run

run("calc_fps.py")
