#!/usr/bin/env bash
# Make .venv and install the package with everything that training and the tests need.
# Quick if nothing has changed; an interrupted installation starts again.
#
#   bash scripts/setup.sh            TensorFlow 2.20 in .venv
#   TF=2.15 bash scripts/setup.sh    TensorFlow 2.15 in .venv-tf2.15
#   TF=2.21 bash scripts/setup.sh    TensorFlow 2.21 in .venv-tf2.21
#   TF=2.10 bash scripts/setup.sh    TensorFlow 2.10, the oldest that works, in .venv-tf2.10
#   bash scripts/setup.sh peers      the systems that benchmarks/compare.py compares with in
#                                    .venv-peers (benchmarks/peers.txt)
#   TENSORFLOW=installed bash scripts/setup.sh
#                                    .venv around the TensorFlow of python3, such as a vendor's;
#                                    replaces nothing that is installed there
#
# EXTRAS names extras of setup.py (train,test, and model_garden where the Model Garden has a release
# for this TensorFlow); with "train,model_garden,test,cuda" CUDA comes along for a GPU.
# PYTHON names the interpreter if python3 is another version: 3.10 to 3.13, 3.11 at most for
# TensorFlow 2.15, and 3.10 for TensorFlow 2.10; interpreters of pyenv are found.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

TF="${TF:-2.20}"
CONSTRAINTS="constraints/tf$TF.txt"
VENV=".venv"
[ "$TF" = "2.20" ] || VENV=".venv-tf$TF"
PEERS=""
# An environment around a vendor's TensorFlow stays one in later calls.
AROUND="$VENV/.installed_tensorflow"
TENSORFLOW="${TENSORFLOW:-}"
[ -n "$TENSORFLOW" ] || ! [ -e "$AROUND" ] || TENSORFLOW="installed"

fail() {
  printf 'setup: %s\n' "$*" >&2
  exit 1
}

case "${1:-}" in
  "") ;;
  peers)
    [ "$TF" = "2.20" ] && [ -z "$TENSORFLOW" ] || fail "peers: they are compared with TensorFlow 2.20."
    PEERS="benchmarks/peers.txt" VENV=".venv-peers" AROUND=".venv-peers/.installed_tensorflow"
    ;;
  *) fail "$1: expected 'peers', or nothing. Settings are variables: see the head of this file." ;;
esac
case "$TENSORFLOW" in
  "" | installed) ;;
  *) fail "TENSORFLOW=$TENSORFLOW: expected 'installed', or nothing to install TensorFlow $TF." ;;
esac
[ -f "$CONSTRAINTS" ] ||
  fail "TF=$TF: there is no $CONSTRAINTS. Use one of: $(cd constraints && echo tf*.txt)"
if [ -z "${EXTRAS:-}" ]; then
  EXTRAS="train,test"
  ! grep -q '^tf-models-official==' "$CONSTRAINTS" || EXTRAS="train,model_garden,test"
fi

find_python() {
  local candidate last=13 wanted="Python 3.10 to 3.13 is" how="Install one"
  local pyenv="${PYENV_ROOT:-${HOME:-}/.pyenv}/versions"
  if [ "$TF" = "2.15" ]; then
    last=11 wanted="Python 3.10 or 3.11, the last that TensorFlow 2.15 runs on, is"
  elif [ "$TF" = "2.10" ]; then
    last=10 wanted="Python 3.10, the only one that TensorFlow 2.10 and this library share, is"
    how="Install it (pyenv install 3.10; where the system has it: apt-get install python3.10-venv)"
  fi
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10 \
    "$pyenv"/3.1[0-3].*/bin/python}; do
    if "$candidate" -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $last))" \
      2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  fail "$wanted needed; ${PYTHON:-python3} is" \
    "$("${PYTHON:-python3}" --version 2>&1 | head -n 1 || true). $how and set PYTHON=/path/to/python."
}

# The stamp is written last: it marks the environment as complete for these files.
stamp() {
  {
    cat setup.py pyproject.toml "$CONSTRAINTS" ${PEERS:+"$PEERS"}
    echo "$PWD $EXTRAS${TENSORFLOW:+ $TENSORFLOW $(cat "$AROUND" 2>/dev/null)}"
    "$VENV/bin/python" --version
  } 2>/dev/null | sha256sum | cut -d' ' -f1
}

# Debian's python3 needs python3-venv to make an environment with pip.
make_environment() {
  "$1" -m venv "$VENV" >/dev/null 2>&1 && return
  rm -rf "$VENV"
  "$1" -m venv --without-pip "$VENV" &&
    "$1" -m pip --disable-pip-version-check --quiet --python "$VENV/bin/python" install pip \
      2>/dev/null && return
  rm -rf "$VENV"
  fail "$("$1" --version) cannot make a virtual environment with pip." \
    "On Debian and Ubuntu: sudo apt-get install python3-venv"
}

# look_into INTERPRETER: lets the environment see that interpreter's packages, after its own.
look_into() {
  "$1" - "$VENV" <<'PY'
import pathlib, site, sys

folders = [*site.getsitepackages(), *[site.getusersitepackages()] * bool(site.ENABLE_USER_SITE)]
folders = [folder for folder in folders if pathlib.Path(folder).is_dir()]
(inside,) = pathlib.Path(sys.argv[1]).glob("lib/python*/site-packages")
lines = [f"import site; site.addsitedir({folder!r})\n" for folder in folders]
(inside / "installed_tensorflow.pth").write_text("".join(lines))
PY
}

# still_needed WHAT: writes the file of this name.
still_needed() {
  "$VENV/bin/python" scripts/_installed_tensorflow.py "$1" "$(cat "$AROUND")" "$EXTRAS" >"$work/$1"
}

# Everything but TensorFlow, which pip must neither replace nor shadow.
install_around_tensorflow() {
  local pip=("$VENV/bin/python" -m pip --quiet --disable-pip-version-check install) work isolated=()
  work="$(mktemp -d)"
  # shellcheck disable=SC2064  # the folder is known now
  trap "rm -rf '$work'" EXIT
  "$VENV/bin/python" scripts/_installed_tensorflow.py version >"$work/version" 2>"$work/log" ||
    fail "TENSORFLOW=installed: ${PYTHON:-python3} has no TensorFlow that can be imported:" \
      "$(tail -n 1 "$work/log"). Set PYTHON to the interpreter that has it."
  mv "$work/version" "$AROUND"
  # Without a network this is enough if everything needed is installed.
  "$VENV/bin/python" -c 'import setuptools, wheel' 2>/dev/null && isolated=(--no-build-isolation)
  echo "setup: installing into $VENV around TensorFlow $(cat "$AROUND")"
  # If the vendor's package has another name than tensorflow, pip complains that it is missing.
  {
    SSD_CENTERNET_TF="$(cat "$AROUND")" \
      "${pip[@]}" ${isolated[@]+"${isolated[@]}"} --no-deps --editable . &&
      still_needed alone && "${pip[@]}" --no-deps --requirement "$work/alone" &&
      # What those packages need in turn.
      still_needed alone && "${pip[@]}" --no-deps --requirement "$work/alone" &&
      still_needed rest && still_needed constraints &&
      "${pip[@]}" --constraint "$work/constraints" --requirement "$work/rest"
  } >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    return 1
  }
  ! compgen -G "$VENV/lib/python*/site-packages/tensorflow" >/dev/null ||
    fail "pip installed another TensorFlow over the existing one: a package of EXTRAS=$EXTRAS needs" \
      "it. Leave out that extra."
}

# The input pipeline's compiled operations halve what it costs; everything works without them. A
# failure is told once. They lie outside the environment, and may be gone while it is there.
build_native() {
  local sources built=() library said
  [ -z "$PEERS" ] && [ -e ssd_centernet/native/build.py ] || return 0
  sources="$(cat ssd_centernet/native/*.py ssd_centernet/native/*.cc ssd_centernet/native/*.h | sha256sum)"
  [ ! -e "$VENV/.native" ] || mapfile -t built <"$VENV/.native"
  if [ "${built[0]-}" = "$sources" ] && { [ "${built[1]-}" = "none" ] || [ -e "${built[1]-}" ]; }; then
    return 0
  fi
  said="$(mktemp)"
  if ! library="$(TF_CPP_MIN_LOG_LEVEL=2 "$VENV/bin/python" -m ssd_centernet.native.build 2>"$said")"; then
    library="none"
    echo "setup: the input pipeline does without compiled operations:" "$(tail -n 1 "$said")" >&2
  fi
  rm -f "$said"
  { printf '%s\n' "$sources" "$library" >"$VENV/.native"; } 2>/dev/null || true
}

finished() {
  [ -x "$VENV/bin/python" ] && [ "$(cat "$VENV/.stamp" 2>/dev/null)" = "$(stamp)" ]
}

if finished; then
  build_native
  exit 0
fi

# Two installations into one environment would spoil it: the second waits for the first.
if command -v flock >/dev/null; then
  exec 9<"$CONSTRAINTS"
  flock 9
  if finished; then
    build_native
    exit 0
  fi
fi

# The remains of a killed installation may look complete to pip.
if [ -e "$VENV/.installing" ]; then
  echo "setup: the last installation was interrupted; starting again"
  rm -rf "$VENV"
fi
# An environment with its own TensorFlow cannot become one around another TensorFlow.
if [ "$TENSORFLOW" = "installed" ] && [ -e "$VENV" ] && [ ! -e "$AROUND" ]; then
  rm -rf "$VENV"
fi

if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
  INTERPRETER="$(find_python)"
  echo "setup: making $VENV with $("$INTERPRETER" --version)"
  rm -rf "$VENV"
  make_environment "$INTERPRETER"
  [ "$TENSORFLOW" != "installed" ] || look_into "$INTERPRETER"
fi

touch "$VENV/.installing"
rm -f "$VENV/.stamp"
WHEN_GONE="the installation failed (see above). Fix the cause and run this script again."
if [ "$TENSORFLOW" = "installed" ]; then
  install_around_tensorflow || fail "$WHEN_GONE"
elif [ -n "$PEERS" ]; then
  echo "setup: installing into $VENV (about 9 GB: PyPI's torch brings CUDA, unused here; minutes)"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint "$CONSTRAINTS" --requirement "$PEERS" || fail "$WHEN_GONE"
else
  echo "setup: installing into $VENV (about 3 GB; a minute or more)"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade pip
  SSD_CENTERNET_TF="$TF" "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint "$CONSTRAINTS" --editable ".[$EXTRAS]" || fail "$WHEN_GONE"
fi
WANTED="from ssd_centernet._keras import keras"
[ -z "$PEERS" ] || WANTED="import tensorflow, torch"
TF_CPP_MIN_LOG_LEVEL=2 "$VENV/bin/python" -c "$WANTED" ||
  fail "what is installed cannot be imported (see above)."
rm -f "$VENV/.native"
build_native
stamp >"$VENV/.stamp.new"
mv "$VENV/.stamp.new" "$VENV/.stamp"
rm -f "$VENV/.installing"
if [ -n "$PEERS" ]; then
  echo "setup: done. Compare with: python benchmarks/compare.py"
else
  echo "setup: done. Activate it with: source $VENV/bin/activate"
fi
