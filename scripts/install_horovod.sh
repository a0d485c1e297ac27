#!/usr/bin/env bash
# Build Horovod for the TensorFlow in .venv and install it there. The wheel is kept in
# ~/.cache/ssd_centernet, and every environment that it fits uses it again.
#
#   bash scripts/install_horovod.sh            for .venv (scripts/setup.sh makes it if needed)
#   TF=2.15 bash scripts/install_horovod.sh    for .venv-tf2.15
#
# Processes talk to each other by Gloo. To change that, set:
#
#   HOROVOD_GPU_OPERATIONS=NCCL     gradients between GPUs by NCCL
#   HOROVOD_NCCL_HOME=/path         where NCCL is, if not with CUDA
#   HOROVOD_WITH_MPI=1              MPI too, which `ssd_centernet launch --engine=mpi` then uses
#   HOROVOD_WITHOUT_GLOO=1          no Gloo; then horovodrun and mpirun need MPI
#   HOROVOD_SOURCE=FILE             your copy of horovod-0.28.1.tar.gz, instead of PyPI's
#   HOROVOD_WHEELS=FOLDER           where to keep wheels, instead of ~/.cache/ssd_centernet
#   HOROVOD_FORCE=1                 build again
#
# Gaudi's software brings its own Horovod; do not run this there. There is no extra of the package
# for Horovod: as published it does not build for TensorFlow 2.20 and 2.21, and pip cannot mend that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VERSION="0.28.1"
TF="${TF:-2.20}"
VENV=".venv"
[ "$TF" = "2.20" ] || VENV=".venv-tf$TF"
WHEELS="${HOROVOD_WHEELS:-${XDG_CACHE_HOME:-$HOME/.cache}/ssd_centernet}"

say() { printf 'horovod: %s\n' "$*"; }
fail() {
  printf 'horovod: %s\n' "$*" >&2
  exit 1
}

[ -x "$VENV/bin/python" ] || TF="$TF" bash scripts/setup.sh
PYTHON="$PWD/$VENV/bin/python"
PIP=("$PYTHON" -m pip --quiet --disable-pip-version-check)

# Horovod's build reads these, so they are part of the key of the wheel.
export HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1
[ "${HOROVOD_WITH_MPI:-0}" = 1 ] || export HOROVOD_WITHOUT_MPI=1
[ "${HOROVOD_WITHOUT_GLOO:-0}" = 1 ] || export HOROVOD_WITH_GLOO=1
[ "${HOROVOD_WITHOUT_MPI:-0}${HOROVOD_WITHOUT_GLOO:-0}" != 11 ] ||
  fail "HOROVOD_WITHOUT_GLOO=1 leaves no way to communicate: set HOROVOD_WITH_MPI=1 too."

# What a wheel must fit: Python, TensorFlow to the last digit, machine, options, and our changes.
TENSORFLOW="$("$PYTHON" -c 'from importlib.metadata import version; print(version("tensorflow"))' \
  2>/dev/null)" || fail "there is no TensorFlow in $VENV. Run: TF=$TF bash scripts/setup.sh"
OPTIONS="$(env | grep -E '^HOROVOD_' | grep -vE '^HOROVOD_(FORCE|WHEELS|SOURCE)=' | sort || true)"
KEY="$({
  "$PYTHON" -c 'import sys, platform; print(sys.version_info[:2], platform.machine())'
  echo "$VERSION $TENSORFLOW $OPTIONS"
  sed -n '/^# patch begins/,/^# patch ends/p' scripts/install_horovod.sh
} | sha256sum | cut -c1-16)"
CACHE="$WHEELS/horovod-$VERSION-tf$TENSORFLOW-$KEY"
STAMP="$VENV/.horovod"

# Prints what it was built with; fails if the library cannot be loaded.
works() {
  TF_CPP_MIN_LOG_LEVEL=2 "$PYTHON" - <<'CHECK'
import horovod.tensorflow as hvd
backends = {"Gloo": hvd.gloo_built(), "MPI": hvd.mpi_built(), "NCCL": hvd.nccl_built()}
print(", ".join(name for name, built in backends.items() if built))
CHECK
}

if [ "${HOROVOD_FORCE:-0}" != 1 ] && [ "$(cat "$STAMP" 2>/dev/null)" = "$KEY" ] &&
  "$PYTHON" -c 'from importlib.metadata import version; version("horovod")' 2>/dev/null; then
  exit 0
fi

# Two builds for one environment would spoil it: the second waits for the first.
if command -v flock >/dev/null; then
  exec 9<scripts/install_horovod.sh
  flock 9
fi

build() {
  local compiler="${CXX:-g++}" work log
  command -v "$compiler" >/dev/null ||
    fail "no C++ compiler ($compiler) to build Horovod with." \
      "On Debian and Ubuntu: sudo apt-get install g++; or set CXX."
  work="$(mktemp -d)"
  # shellcheck disable=SC2064  # the folder is known now
  trap "rm -rf '$work'" EXIT
  if ! cmake --version >/dev/null 2>&1; then
    say "no cmake on this machine; taking the one from PyPI for this build"
    "${PIP[@]}" install --target "$work/cmake" cmake ||
      fail "cmake is missing and could not be downloaded (see above)." \
        "On Debian and Ubuntu: sudo apt-get install cmake"
    export PATH="$work/cmake/bin:$PATH" PYTHONPATH="$work/cmake"
    cmake --version >/dev/null || fail "the downloaded cmake does not run here; install cmake."
  fi
  "${PIP[@]}" install 'setuptools>=64' wheel packaging
  if [ -n "${HOROVOD_SOURCE:-}" ]; then
    [ -f "$HOROVOD_SOURCE" ] || fail "HOROVOD_SOURCE=$HOROVOD_SOURCE: no such file."
    cp "$HOROVOD_SOURCE" "$work/"
  else
    "${PIP[@]}" download --no-deps --no-binary :all: --no-build-isolation --dest "$work" \
      "horovod==$VERSION" ||
      fail "the source of Horovod $VERSION could not be downloaded (see above): without a network" \
        "set HOROVOD_SOURCE to a copy of horovod-$VERSION.tar.gz."
  fi
  mkdir "$work/source"
  tar -xzf "$work"/horovod-*.tar.gz --strip-components=1 -C "$work/source" ||
    fail "not a source distribution: $(cd "$work" && echo horovod-*.tar.gz)"
# patch begins
  # TensorFlow moved the headers of XLA. The one file that needs them serves collectives inside
  # XLA-compiled functions only, which we do not use; GPU builds need one include renamed.
  sed -i '/xla_mpi_ops\.cc/d' "$work/source/horovod/tensorflow/CMakeLists.txt"
  if [ ! -d "$("$PYTHON" -c 'import importlib.util as u; print(
      u.find_spec("tensorflow").submodule_search_locations[0])')/include/tensorflow/compiler/xla" ]; then
    sed -i 's#"tensorflow/compiler/xla/#"xla/#' "$work/source/horovod/tensorflow/mpi_ops.cc"
  fi
# patch ends
  say "building $VERSION for TensorFlow $TENSORFLOW (some minutes)"
  mkdir -p "$WHEELS"
  log="$WHEELS/build-$KEY.log"
  # One compiler per core; each needs about a gigabyte.
  MAKEFLAGS="${MAKEFLAGS:--j$(nproc 2>/dev/null || echo 2)}" TF_CPP_MIN_LOG_LEVEL=2 \
    PATH="$PWD/$VENV/bin:$PATH" "$PYTHON" -m pip --disable-pip-version-check wheel -v \
    --no-build-isolation --no-deps --wheel-dir "$work/wheel" "$work/source" >"$log" 2>&1 ||
    explain "$log"
  # A killed build must not leave half a wheel where the next one looks for it.
  rm -rf "$CACHE"
  mv "$work/wheel" "$CACHE.new.$$" && mv "$CACHE.new.$$" "$CACHE"
}

# Name the usual cause of a failed build.
explain() {
  tail -n 25 "$1" >&2
  local cause="the log says why"
  if grep -qiE 'Killed signal|cannot allocate|out of memory' "$1"; then
    cause="the compiler ran out of memory: try MAKEFLAGS=-j1"
  elif grep -qiE 'No space left' "$1"; then
    cause="the disk is full: TMPDIR chooses where it builds"
  elif grep -qiE 'Could NOT find MPI' "$1"; then
    cause="HOROVOD_WITH_MPI=1 needs MPI (Debian: openmpi-bin and libopenmpi-dev)"
  elif grep -qiE 'NCCL' "$1" && [ -n "${HOROVOD_GPU_OPERATIONS:-}" ]; then
    cause="NCCL or CUDA was not found: set HOROVOD_NCCL_HOME and HOROVOD_CUDA_HOME"
  elif grep -qiE 'fatal error: .*: No such file' "$1"; then
    cause="a header is missing; Horovod $VERSION is known to build with TensorFlow 2.10, 2.15, 2.20 and 2.21"
  fi
  fail "the build failed: $cause. Whole log: $1"
}

if [ "${HOROVOD_FORCE:-0}" = 1 ] || ! ls "$CACHE"/horovod-*.whl >/dev/null 2>&1; then
  build
fi
rm -f "$STAMP"
"${PIP[@]}" install cloudpickle 'psutil>=5.9' cffi pyyaml packaging
"${PIP[@]}" install --no-deps --force-reinstall "$CACHE"/horovod-*.whl
BACKENDS="$(works)" ||
  fail "it was built and installed but does not load (see above)." \
    "Try again with HOROVOD_FORCE=1 bash scripts/install_horovod.sh"
echo "$KEY" >"$STAMP"
say "$VERSION for TensorFlow $TENSORFLOW, by $BACKENDS"
