# Links to the records and the label map of another tool, as the originals' env.sh makes them; the run
# scripts source it.
#
#   DATASET        folder of the records, coco_train.record-* and coco_val.record-*
#   DATASET_LABEL  their label map; without it that in DATASET or above it counts
#   COCO_DIR       where the links go (data/coco2017_tfrecords): tfrecords and mscoco_label_map.pbtxt
#
# DATA_DIR then names the links, unless it is set.
export COCO_DIR="${COCO_DIR:-data/coco2017_tfrecords}"
if [ -n "${DATASET:-}" ]; then
  if [ -z "${DRY_RUN:-}" ]; then
    [ -d "$DATASET" ] || { echo "DATASET=$DATASET is no folder" >&2 && exit 1; }
    mkdir -p "$COCO_DIR"
    ln -sfn "$(realpath "$DATASET")" "$COCO_DIR/tfrecords"
    if [ -n "${DATASET_LABEL:-}" ]; then
      [ -f "$DATASET_LABEL" ] || { echo "DATASET_LABEL=$DATASET_LABEL is no file" >&2 && exit 1; }
      ln -sf "$(realpath "$DATASET_LABEL")" "$COCO_DIR/mscoco_label_map.pbtxt"
    fi
  fi
  export DATA_DIR="${DATA_DIR:-$COCO_DIR/tfrecords}"
fi
