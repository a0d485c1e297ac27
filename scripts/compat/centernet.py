#!/usr/bin/env python3
"""centernet.py of the original: `ssd_centernet compat -- centernet.py ...`."""

from _compat import run

run("centernet.py")
