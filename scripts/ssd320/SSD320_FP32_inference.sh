#!/usr/bin/env bash
# SSD320 ResNet-50-FPN on NVIDIA GPUs: latency and throughput of detection with random weights, fp32.
# Original: SSD320_FP32_inference.sh (100 batches to warm up, 300 measured, batch 1)
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

latency ssd320_resnet50_fpn gpu --dtype=fp32 --batch_size=1 --warmup_iters=100 \
  --benchmark_iters=300 -- "$@"
