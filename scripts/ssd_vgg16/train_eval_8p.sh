#!/usr/bin/env bash
# SSD300 VGG-16 (SSD for PyTorch, Ascend): AP of the run of train_full_8p.sh, or of MODEL_DIR.
# Original: test/train_eval_8p.sh --data_path=xxx, on 8 NPUs.
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

evaluate train_full_8p npu 8 --checkpoint=latest "$@"
