#!/usr/bin/env bash
# SSD ResNet-34 for TensorFlow (Gaudi): 1 HPU, batch 128, 64 epochs, fp32.
# Original: ssd.py -e 64 -b 128 -d fp32
# RESNET_CHECKPOINT names the initial weights; unset: the published ImageNet ResNet-34, if it can be
# had.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train ssd300_resnet34 hpu 1 --mode=train --epochs=64 --batch_size=128 --dtype=fp32 \
  --log_step_count_steps=1 --save_checkpoints_epochs=5 --keep_ckpt_max=20 \
  --fine_tune_checkpoint="${RESNET_CHECKPOINT:-}" -- "$@"
