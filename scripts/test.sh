#!/usr/bin/env bash
# Install if need be, then lint and test.
#
#   bash scripts/test.sh                        everything, with TensorFlow 2.20 in .venv
#   bash scripts/test.sh --tf 2.15              the core tests, with TensorFlow 2.15 in .venv-tf2.15
#   bash scripts/test.sh --tf 2.21              fewer of them, with TensorFlow 2.21 in .venv-tf2.21
#   bash scripts/test.sh --tf 2.10              the fewest, with TensorFlow 2.10 in .venv-tf2.10
#   bash scripts/test.sh --tf 2.15 --floor      as few with TensorFlow 2.15
#   bash scripts/test.sh tests/cli/test_main.py one file: other arguments go to pytest
#   bash scripts/test.sh --tf 2.15 tests/data   one folder with TensorFlow 2.15
#   bash scripts/test.sh --no-horovod           without the tests of several processes
#
# If you choose no tests, Horovod is built first (scripts/install_horovod.sh). If that fails, the
# tests of several processes are skipped; with --horovod, or CI=true, that is a failure.
# WORKERS sets the number of test processes (default: one more than there are cores, 4 at most).
# CORE_TESTS in this file lists the core tests, OLDEST_TESTS those that only 2.15 runs as well, and
# FLOOR_TESTS all that 2.10 runs: parity, a run with resume and evaluation, an export, two processes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What another TensorFlow can change: kernels, gradients, graphs, layers and their files, the loop.
# Flags, drawings, reports and annotations work the same under each and are only tested with 2.20.
# Quick tests come first.
CORE_TESTS=(
  tests/ops
  tests/layers
  tests/config
  tests/runtime/test_runtime.py
  tests/training/test_optimizers.py
  tests/training/test_schedules.py
  tests/training/test_loss_scale.py
  tests/training/test_trainer.py
  tests/training/test_fit.py
  tests/training/test_train.py
  tests/training/test_resume.py
  tests/weights
  tests/models
  tests/export
  "tests/training/test_precision.py::test_half_precision_follows_float32[ssd300_resnet34]"
  "tests/distributed/test_training.py::test_several_processes_train_as_one_with_all_their_images[2]"
  tests/test_api.py
  tests/test_end_to_end.py
  tests/parity
)
# Far from 2.20 these can differ too; 2.21 is its neighbour.
OLDEST_TESTS=(
  tests/training/test_dtypes.py
  "tests/training/test_precision.py::test_half_precision_follows_float32[ssd320_resnet50_fpn]"
  "tests/training/test_precision.py::test_half_precision_follows_float32[centernet_hourglass20]"
  tests/distributed/test_collectives.py
)
# The oldest TensorFlow that works. Layers and tensor functions are compared by the golden vectors.
FLOOR_TESTS=(
  tests/test_oldest.py
  tests/training/test_optimizers.py
  tests/training/test_train.py::test_ten_steps_equal_five_and_five
  "tests/distributed/test_training.py::test_several_processes_train_as_one_with_all_their_images[2]"
  tests/test_end_to_end.py
  tests/parity/test_parity.py::test_library_agrees_with_the_reference
)

TF="${TF:-2.20}"
ARGUMENTS=()
CHOSEN=""
FLOOR=""
HOROVOD=""
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help)
      sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' scripts/test.sh
      exit 0
      ;;
    --tf)
      if [ $# -lt 2 ]; then
        echo "test: --tf needs a version, such as --tf 2.15" >&2
        exit 2
      fi
      TF="$2"
      shift 2
      ;;
    --tf=*)
      TF="${1#--tf=}"
      shift
      ;;
    --floor)
      FLOOR="yes"
      shift
      ;;
    --horovod)
      HOROVOD="yes"
      shift
      ;;
    --no-horovod)
      HOROVOD="no"
      shift
      ;;
    *)
      ARGUMENTS+=("$1")
      # tests/cli/test_main.py::test_name is a choice of tests, -x or -k name is not.
      [ -e "${1%%::*}" ] && CHOSEN="yes"
      shift
      ;;
  esac
done

TF="$TF" bash scripts/setup.sh
if [ -z "$HOROVOD" ] && [ -n "$CHOSEN" ]; then
  HOROVOD="no"
fi
if [ "$HOROVOD" != "no" ]; then
  if TF="$TF" bash scripts/install_horovod.sh; then
    export REQUIRE_HOROVOD=1
  elif [ "$HOROVOD" = "yes" ] || [ "${CI:-}" = "true" ]; then
    echo "test: Horovod cannot be built (see above); --no-horovod tests without it" >&2
    exit 1
  else
    # Without a compiler or a network the other tests are still worth running.
    echo "test: without Horovod (see above); tests of several processes are skipped" >&2
  fi
fi
VENV=".venv"
[ "$TF" = "2.20" ] || VENV=".venv-tf$TF"
if { [ "$TF" != "2.20" ] || [ -n "$FLOOR" ]; } && [ -z "$CHOSEN" ]; then
  if [ "$TF" = "2.10" ] || [ -n "$FLOOR" ]; then
    ARGUMENTS+=("${FLOOR_TESTS[@]}")
  else
    ARGUMENTS+=("${CORE_TESTS[@]}")
    [ "$TF" != "2.15" ] || ARGUMENTS+=("${OLDEST_TESTS[@]}")
  fi
fi

CORES="$(nproc 2>/dev/null || echo 2)"
# One more than cores: a test often waits for a process, a server or a disk.
WORKERS="${WORKERS:-$((CORES < 4 ? CORES + 1 : 4))}"
THREADS="$((CORES / WORKERS > 0 ? CORES / WORKERS : 1))"

# Workers that each use all cores only slow each other down.
export TF_NUM_INTRAOP_THREADS="${TF_NUM_INTRAOP_THREADS:-$THREADS}"
export TF_NUM_INTEROP_THREADS="${TF_NUM_INTEROP_THREADS:-$THREADS}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$THREADS}"
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"

if [ "$TF" = "2.20" ]; then
  "$VENV/bin/ruff" check .
  "$VENV/bin/ruff" format --check .
fi
echo "test: TensorFlow $TF, $WORKERS test processes"
exec "$VENV/bin/python" -m pytest --numprocesses "$WORKERS" --dist worksteal \
  --durations 10 ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
