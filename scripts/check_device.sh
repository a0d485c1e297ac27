#!/usr/bin/env bash
# Check an accelerator from end to end, and write one JSON and one HTML file to send back.
#
#   bash scripts/setup.sh                                   once; see its head for a vendor's TensorFlow
#   bash scripts/check_device.sh --device=gpu               every recipe as it is published
#   bash scripts/check_device.sh --device=cpu --quick       few channels and small images
#
# Each part is a process with a time limit: one that fails or hangs is told, and the others go on.
# The files in runs/device_check/DEVICE are whole after each part, and the same command goes on where
# it was ended. `--help` lists the arguments. PYTHON names another interpreter than .venv/bin/python.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
PYTHON="${PYTHON:-$ROOT/.venv/bin/python}"

fail() {
  printf 'check_device: %s\n' "$*" >&2
  exit 2
}

[ -x "$PYTHON" ] || command -v "$PYTHON" >/dev/null ||
  fail "$PYTHON is missing. Make it with: bash scripts/setup.sh (for a GPU:" \
    "EXTRAS=train,model_garden,test,cuda; around a vendor's TensorFlow: TENSORFLOW=installed)."
for package in tensorflow numpy gin PIL; do
  "$PYTHON" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$package') is None)" ||
    fail "$PYTHON has no package $package. Install it with: bash scripts/setup.sh"
done
export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -m tools.device_check "$@"
