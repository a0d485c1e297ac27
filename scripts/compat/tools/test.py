#!/usr/bin/env python3
"""tools/test.py of the original: `ssd_centernet compat -- tools/test.py ...`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _compat import run  # noqa: E402

run("tools/test.py")
