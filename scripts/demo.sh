#!/usr/bin/env bash
# Run every stage on the CPU: synthetic data, records, training, evaluation, pictures.
# Writes runs/demo/ (metrics.json, per_class.csv, detections.json, model/ with config.gin and
# checkpoints, predictions/contact_sheet.png) and fails if AP50 on the held-out images is below
# 0.70. A second call continues where the first one ended.
#
# OUT names another folder. Arguments go to `ssd_centernet train`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
OUT="${OUT:-runs/demo}"
RECIPE="${RECIPE:-ssd_demo}"
WANTED_AP50="0.70"
PYTHON="$PWD/.venv/bin/python"

run() {
  echo "== ssd_centernet $*"
  "$PYTHON" -m ssd_centernet "$@"
}

run make_synthetic --output_dir="$OUT/coco" --seed=0
for split in train val; do
  run convert --annotations="$OUT/coco/annotations/instances_$split.json" \
    --image_dir="$OUT/coco/$split" --output_dir="$OUT/records" --split="$split" --name=shapes
done
run train --gin_file="$RECIPE" --data_dir="$OUT/records" --model_dir="$OUT/model" \
  --device=cpu --seed=0 "$@"
run evaluate --model_dir="$OUT/model" --data_dir="$OUT/records" --checkpoint=best \
  --output_dir="$OUT" --device=cpu
run predict --model_dir="$OUT/model" --checkpoint=best --annotations="$OUT/coco/annotations/instances_val.json" \
  --output_dir="$OUT/predictions" --max_images=12 --contact_sheet --device=cpu "$OUT/coco/val"

"$PYTHON" - "$OUT/metrics.json" "$WANTED_AP50" <<'PY'
import json
import sys

metrics = json.load(open(sys.argv[1], encoding="utf-8"))
metrics = metrics.get("metrics", metrics)
print(f"AP {metrics['AP']:.3f}, AP50 {metrics['AP50']:.3f} on held-out images")
if not metrics["AP50"] >= float(sys.argv[2]):
    sys.exit(f"demo: AP50 is below {sys.argv[2]}")
PY
