#!/usr/bin/env bash
# SSD ResNet-34 for TensorFlow (Gaudi): AP of each checkpoint of
# train_1hpu_bf16.sh, or of MODEL_DIR.
# Original: ssd.py --mode eval
# The batch size need not divide the number of images: every image counts.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

evaluate train_1hpu_bf16 hpu 1 --every_checkpoint --batch_size=128 "$@"
