#!/usr/bin/env bash
# SSD ResNet-34 for TensorFlow (Gaudi): detect objects in images, given as arguments.
# Original: ssd.py --inference IMAGE
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

detect train_1hpu_bf16 hpu --checkpoint=latest "$@"
