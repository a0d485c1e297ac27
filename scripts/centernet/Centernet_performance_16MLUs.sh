#!/usr/bin/env bash
# CenterNet ResNet-101-FPN on MLU370: the speed of two machines with 8 MLUs each, batch 10 each.
# Original: the training script with --use_performance=True (readme, training performance)
# HOSTS names the machines: host1:8,host2:8
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train centernet_resnet101_fpn mlu 16 --mode=train --batch_size=10 --num_steps=300 \
  --dtype="${PRECISION:-fp32}" --use_performance -- "$@"
