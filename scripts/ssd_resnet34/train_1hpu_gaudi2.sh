#!/usr/bin/env bash
# SSD ResNet-34 for TensorFlow (Gaudi2): 1 HPU, batch 240 (a multiple of its 24 tensor cores), bf16.
# Original: ssd.py -e 64 -b 240 -d bf16
# RESNET_CHECKPOINT names the initial weights; unset: the published ImageNet ResNet-34, if it can be
# had.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train ssd300_resnet34 hpu 1 --mode=train --epochs=64 --batch_size=240 --dtype=bf16 \
  --log_step_count_steps=1 --save_checkpoints_epochs=5 --keep_ckpt_max=20 \
  --fine_tune_checkpoint="${RESNET_CHECKPOINT:-}" -- "$@"
