#!/usr/bin/env bash
# SSD320 ResNet-50-FPN on NVIDIA GPUs: 8 GPUs, batch 32 each, 12500 steps, mixed precision.
# Original: SSD320_FP16_8GPU.sh (ssd320_full_8gpus.config)
# BACKBONE names the initial weights; unset: the published ImageNet ResNet-50 v1, if it can be had.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train ssd320_resnet50_fpn gpu 8 --batch_size=32 --num_steps=12500 --amp \
  --fine_tune_checkpoint="${BACKBONE:-}" --fine_tune_checkpoint_type=classification -- "$@"
