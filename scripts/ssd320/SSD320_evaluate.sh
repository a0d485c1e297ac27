#!/usr/bin/env bash
# SSD320 ResNet-50-FPN on NVIDIA GPUs: AP of the run of SSD320_FP16_1GPU.sh, or of MODEL_DIR.
# Original: SSD320_evaluate.sh
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

evaluate SSD320_FP16_1GPU gpu 1 --checkpoint=latest "$@"
