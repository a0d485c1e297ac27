#!/usr/bin/env bash
# SSD ResNet-34 for TensorFlow (Gaudi2): 1 HPU, batch 240 (a multiple of its 24 tensor cores), bf16.
# Original: ssd.py -e 64 -b 240 -d bf16
# RESNET_CHECKPOINT names the folder of the ImageNet backbone.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train ssd300_resnet34 hpu 1 --mode=train --epochs=64 --batch_size=240 --dtype=bf16 \
  ${RESNET_CHECKPOINT:+--resnet_checkpoint="$RESNET_CHECKPOINT"} "$@"
