#!/usr/bin/env bash
# Install if need be, then lint and run every test. Arguments go to pytest:
#
#   bash scripts/test.sh                     everything
#   bash scripts/test.sh tests/test_cli.py   one file
#
# WORKERS sets the number of test processes (the number of cores, 4 at most, when not given).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
VENV=".venv"
[ "${TF:-2.20}" = "2.20" ] || VENV=".venv-tf$TF"

CORES="$(nproc 2>/dev/null || echo 2)"
WORKERS="${WORKERS:-$((CORES < 4 ? CORES : 4))}"
THREADS="$((CORES / WORKERS > 0 ? CORES / WORKERS : 1))"

# Workers that each take all cores only get in each other's way.
export TF_NUM_INTRAOP_THREADS="${TF_NUM_INTRAOP_THREADS:-$THREADS}"
export TF_NUM_INTEROP_THREADS="${TF_NUM_INTEROP_THREADS:-$THREADS}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$THREADS}"
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"

"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
exec "$VENV/bin/python" -m pytest --numprocesses "$WORKERS" --dist worksteal \
  --durations 10 "$@"
