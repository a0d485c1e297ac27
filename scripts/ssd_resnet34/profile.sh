#!/usr/bin/env bash
# SSD ResNet-34 for TensorFlow (Gaudi): a trace of the steps 50 to 53 of 100, on 1 HPU.
# Original: ssd.py --save_summary_steps 10 --profile 50,53 --steps 100
# RESNET_CHECKPOINT names the initial weights; unset: the published ImageNet ResNet-34, if it can be
# had.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train ssd300_resnet34 hpu 1 --mode=train --batch_size=128 --dtype=bf16 --num_steps=100 \
  --save_summary_steps=10 --profile=50,53 \
  --fine_tune_checkpoint="${RESNET_CHECKPOINT:-}" -- "$@"
