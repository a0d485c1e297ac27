#!/usr/bin/env bash
# SSD ResNet-34 for TensorFlow (Gaudi): 1 HPU, batch 128, 64 epochs, fp32.
# Original: ssd.py -e 64 -b 128 -d fp32
# RESNET_CHECKPOINT names the folder of the ImageNet backbone.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train ssd300_resnet34 hpu 1 --mode=train --epochs=64 --batch_size=128 --dtype=fp32 \
  ${RESNET_CHECKPOINT:+--resnet_checkpoint="$RESNET_CHECKPOINT"} "$@"
