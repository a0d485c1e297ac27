#!/usr/bin/env bash
# SSD ResNet-34 for TensorFlow (Gaudi): 1 HPU, batch 128, 64 epochs, bf16, summaries every 10 steps.
# Original: ssd.py -e 64 -b 128 -d bf16 --save_summary_steps 10
# RESNET_CHECKPOINT names the initial weights; unset: the published ImageNet ResNet-34, if it can be
# had.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train ssd300_resnet34 hpu 1 --mode=train --epochs=64 --batch_size=128 --dtype=bf16 \
  --save_summary_steps=10 --save_checkpoints_epochs=5 --keep_ckpt_max=20 \
  --fine_tune_checkpoint="${RESNET_CHECKPOINT:-}" -- "$@"
