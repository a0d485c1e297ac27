#!/usr/bin/env bash
# SSD300 VGG-16 (SSD for PyTorch, Ascend): the speed of 8 NPUs over 2 epochs of 5 passes.
# Original: test/train_performance_8p.sh --data_path=xxx
# BACKBONE names the initial weights; unset, the published ImageNet VGG-16 where it can be had.
# RECIPE=ssd512_vgg16 trains SSD512.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train "${RECIPE:-ssd300_vgg16}" npu 8 --batch_size=8 --use_amp --epochs=10 --no_validate --use_performance \
  --fine_tune_checkpoint="${BACKBONE:-}" -- "$@"
