#!/usr/bin/env bash
# SSD320 ResNet-50-FPN on MLU370: AP of the run of SSD_Float32_1E_1MLU.sh, or of MODEL_DIR.
# Original: infer_run_eager_SSD.sh (--do_train=False), one image at a time.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

evaluate SSD_Float32_1E_1MLU mlu 1 --checkpoint=latest --batch_size=1 "$@"
