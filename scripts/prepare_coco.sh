#!/usr/bin/env bash
# Convert COCO 2017 to the records that the run scripts read.
#
#   bash scripts/prepare_coco.sh COCO [OUTPUT]
#   DOWNLOAD=1 bash scripts/prepare_coco.sh COCO
#
# COCO holds train2017/, val2017/ and annotations/, from https://cocodataset.org/#download; with
# DOWNLOAD=1 what is not there is fetched (19 GB, and as much again unpacked). COCO_URL is the address
# of the archives. OUTPUT is data/coco. DRY_RUN=1 prints the commands.
source "$(dirname "${BASH_SOURCE[0]}")/_run.sh"

coco="${1:?usage: bash scripts/prepare_coco.sh COCO [OUTPUT]}"
address="${COCO_URL:-http://images.cocodataset.org}"

# fetch FOLDER ARCHIVE: unpacks an archive into COCO unless the folder is there.
fetch() {
  [ ! -e "$coco/$1" ] || return 0
  local archive="$coco/$(basename "$2")" unpacked="$coco/.$1.unpacking"
  mkdir -p "$coco"
  echo "== $address/$2"
  curl --fail --location --retry 5 --continue-at - --output "$archive" "$address/$2"
  rm -rf "$unpacked"
  "$PYTHON" -m zipfile --extract "$archive" "$unpacked"
  mv "$unpacked/$1" "$coco/$1"
  rm -r "$unpacked" "$archive"
}

if [ -n "${DOWNLOAD:-}" ] && [ -z "$DRY_RUN" ]; then
  fetch annotations annotations/annotations_trainval2017.zip
  fetch train2017 zips/train2017.zip
  fetch val2017 zips/val2017.zip
fi
for split in train val; do
  run convert --annotations="$coco/annotations/instances_${split}2017.json" \
    --image_dir="$coco/${split}2017" --output_dir="${2:-data/coco}" --split="$split" --name=coco
done
