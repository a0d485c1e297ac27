#!/usr/bin/env bash
# CenterNet ResNet-101-FPN on MLU370: links to the records, in data/coco2017_tfrecords.
# Original: prepare_dataset.sh, with DATASET and DATASET_LABEL in the environment
source "$(dirname "${BASH_SOURCE[0]}")/../_run.sh"

: "${DATASET:?set DATASET to the folder of the records, and DATASET_LABEL to their label map}"
ls -l "$COCO_DIR"
