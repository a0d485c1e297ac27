#!/usr/bin/env python3
"""model_main.py of the original: `ssd_centernet compat -- model_main.py ...`."""

from _compat import run

run("model_main.py")
