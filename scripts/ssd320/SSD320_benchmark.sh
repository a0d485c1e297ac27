#!/usr/bin/env bash
# SSD320 ResNet-50-FPN on NVIDIA GPUs: images/s on GPUS (1) GPUs, written to summary/summary.json.
# Original: SSD320_FP16_1GPU_BENCHMARK.sh and those like it; PRECISION=fp32 for the FP32 script.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train ssd320_resnet50_fpn gpu "${GPUS:-1}" --mode=train --batch_size=32 --num_steps=300 \
  --dtype="${PRECISION:-fp16}" --use_performance -- "$@"
