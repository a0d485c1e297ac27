#!/usr/bin/env bash
# SSD320 ResNet-50-FPN on MLU370: 8 MLUs, batch 32 each, 12500 steps, mixed precision.
# Original: Horovod_SSD_AMP_1E_8MLUs.sh (ssd320_full_8mlus.config). It says --num_steps=100000, but its
#   learning rate is 0 from step 12500 on; here the schedule spans the steps that are given.
# BACKBONE names the initial weights; unset: the published ImageNet ResNet-50 v1, if it can be had.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train ssd320_resnet50_fpn mlu 8 --mode=train_and_post_eval --batch_size=32 \
  --num_steps=12500 --use_amp --fine_tune_checkpoint="${BACKBONE:-}" \
  --fine_tune_checkpoint_type=classification -- "$@"
