#!/usr/bin/env bash
# SSD300 VGG-16 (SSD for PyTorch, Ascend): 8 NPUs, batch 8 each, 24 epochs of 5 passes, mixed
# precision.
# Original: test/train_full_8p.sh --data_path=xxx (ssd300_coco_npu_8p.py, learning rate 2e-3)
# BACKBONE names the initial weights; unset, the published ImageNet VGG-16 where it can be had.
# RECIPE=ssd512_vgg16 trains SSD512.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train "${RECIPE:-ssd300_vgg16}" npu 8 --batch_size=8 --use_amp --epochs=120 \
  --fine_tune_checkpoint="${BACKBONE:-}" -- "$@"
