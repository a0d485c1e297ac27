#!/usr/bin/env bash
# Build examples/detect.cc into a folder: bash examples/build.sh FOLDER
# LITERT is the folder of libLiteRt.so; without it, that of the Python package ai-edge-litert.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
output="${1:?give a folder for the program}"
litert="${LITERT:-$(python -c 'import ai_edge_litert; print(ai_edge_litert.__path__[0])')}"
mkdir -p "$output"
"${CXX:-g++}" -std=c++17 -O2 -Wall -Wextra -ffp-contract=off "$here/detect.cc" \
    -o "$output/detect" -L"$litert" -lLiteRt -Wl,-rpath,"$litert"
echo "built: $output/detect"
