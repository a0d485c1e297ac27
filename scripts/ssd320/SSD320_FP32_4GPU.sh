#!/usr/bin/env bash
# SSD320 ResNet-50-FPN on NVIDIA GPUs: 4 GPUs, batch 32 each, 25000 steps, fp32.
# Original: SSD320_FP32_4GPU.sh (ssd320_full_4gpus.config)
# BACKBONE names the initial weights; unset: the published ImageNet ResNet-50 v1, if it can be had.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train ssd320_resnet50_fpn gpu 4 --batch_size=32 --num_steps=25000 \
  --fine_tune_checkpoint="${BACKBONE:-}" --fine_tune_checkpoint_type=classification -- "$@"
