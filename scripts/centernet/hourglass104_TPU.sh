#!/usr/bin/env bash
# CenterNet Hourglass-104 (Model Garden): all cores of a TPU slice, batch 128 over them, 140000 steps, bf16, learning rate 1e-3.
# Original: coco-centernet-hourglass-tpu.yaml, AP 40.5
# BACKBONE names the initial weights; unset, the published ExtremeNet hourglass where it can be had.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

SLICE=()
[ -n "$SMOKE" ] || [ "${DEVICE:-tpu}" != tpu ] || given 'device|use_gpus?|hvd_device' "$@" \
  || SLICE=(--strategy=tpu)
train centernet_hourglass104 tpu 1 "${SLICE[@]+"${SLICE[@]}"}" --batch_size=128 --num_steps=140000 --dtype=bf16 \
  --base_lr=1e-3 --fine_tune_checkpoint="${BACKBONE:-}" --fine_tune_checkpoint_type=classification \
  --evaluate_every=924 --checkpoint_every=924 -- "$@"
