#!/usr/bin/env bash
# SSD300 VGG-16 (SSD for PyTorch, Ascend): the speed of several machines with 8 NPUs each over an
# epoch of 5 passes. Started once, on the first machine.
# Original: test/train_performance_multinodes.sh --nnodes=2 --node_rank=... on each machine
# HOSTS names the machines, host1:8,host2:8, and PROCESSES (16) how many processes they have.
# BACKBONE names the initial weights; unset, the published ImageNet VGG-16 where it can be had.
# RECIPE=ssd512_vgg16 trains SSD512.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train "${RECIPE:-ssd300_vgg16}" npu "${PROCESSES:-16}" --batch_size=8 --use_amp --epochs=5 \
  --no_validate --use_performance --fine_tune_checkpoint="${BACKBONE:-}" "$@"
