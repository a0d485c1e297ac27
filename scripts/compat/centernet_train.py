#!/usr/bin/env python3
"""centernet_train.py of the original: `ssd_centernet compat -- centernet_train.py ...`."""

from _compat import run

run("centernet_train.py")
