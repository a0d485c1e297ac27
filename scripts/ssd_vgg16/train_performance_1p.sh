#!/usr/bin/env bash
# SSD300 VGG-16 (SSD for PyTorch, Ascend): the speed of 1 NPU over 2000 steps, without validation.
# Original: test/train_performance_1p.sh --data_path=xxx
# BACKBONE names the initial weights; unset, the published ImageNet VGG-16 where it can be had.
# RECIPE=ssd512_vgg16 trains SSD512.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train "${RECIPE:-ssd300_vgg16}" npu 1 --batch_size=8 --use_amp --num_steps=2000 --no_validate --use_performance \
  --fine_tune_checkpoint="${BACKBONE:-}" -- "$@"
