#!/usr/bin/env python3
"""model_main_tf2.py of the original: `ssd_centernet compat -- model_main_tf2.py ...`."""

from _compat import run

run("model_main_tf2.py")
