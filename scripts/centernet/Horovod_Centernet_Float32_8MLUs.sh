#!/usr/bin/env bash
# CenterNet ResNet-101-FPN on MLU370: 8 MLUs, batch 8 each, 140000 steps, fp32.
# Original: Horovod_Centernet_Float32_8MLUs.sh
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

train centernet_resnet101_fpn mlu 8 --mode=train --batch_size=8 --num_steps=140000 \
  --num_steps_per_iter=100 --checkpoint_every_n=1000 --gin_params='train.keep_checkpoints = 7' -- "$@"
