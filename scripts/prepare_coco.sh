#!/usr/bin/env bash
# Convert COCO 2017 to the records that the run scripts read.
#
#   bash scripts/prepare_coco.sh COCO [OUTPUT]
#
# COCO holds train2017/, val2017/ and annotations/; OUTPUT is data/coco. DRY_RUN=1 prints the commands.
source "$(dirname "${BASH_SOURCE[0]}")/_run.sh"

coco="${1:?usage: bash scripts/prepare_coco.sh COCO [OUTPUT]}"
for split in train val; do
  run convert --annotations="$coco/annotations/instances_${split}2017.json" \
    --image_dir="$coco/${split}2017" --output_dir="${2:-data/coco}" --split="$split"
done
