#!/usr/bin/env bash
# CenterNet ResNet-101-FPN on MLU370: AP of the run of Horovod_Centernet_Float32_8MLUs.sh, or of
# MODEL_DIR.
# Original: eval.sh, one image at a time.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

evaluate Horovod_Centernet_Float32_8MLUs mlu 1 --checkpoint=latest --batch_size=1 "$@"
