#!/usr/bin/env bash
# SSD320 ResNet-50-FPN on MLU370: 1 MLU, batch 32, 100000 steps, fp32.
# Original: SSD_Float32_1E_1MLU.sh (model_main.py with ssd320_full_1mlus.config)
# BACKBONE names the initial weights; unset: the published ImageNet ResNet-50 v1, if it can be had.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train ssd320_resnet50_fpn mlu 1 --mode=train_and_post_eval --batch_size=32 --num_steps=100000 \
  --fine_tune_checkpoint="${BACKBONE:-}" --fine_tune_checkpoint_type=classification -- "$@"
