#!/usr/bin/env bash
# CenterNet Hourglass-104 (Model Garden): 8 GPUs, batch 8 each, 280000 steps, mixed precision.
# Original: coco-centernet-hourglass-gpu.yaml, AP 40.0
# BACKBONE names the initial weights; unset, the published ExtremeNet hourglass where it can be had.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train centernet_hourglass104 gpu 8 --batch_size=8 --num_steps=280000 --dtype=fp16 \
  --fine_tune_checkpoint="${BACKBONE:-}" --fine_tune_checkpoint_type=classification \
  --evaluate_every=1848 --checkpoint_every=1848 -- "$@"
