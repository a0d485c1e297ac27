"""The kinds of inputs; each is a function that makes one with its changes."""

from tests.mutations.kinds.coco import coco, ground_truth
from tests.mutations.kinds.csv_table import csv_table
from tests.mutations.kinds.detections import detections
from tests.mutations.kinds.json_files import comparison, split_images, static
from tests.mutations.kinds.label_map import label_map
from tests.mutations.kinds.recipes import recipes
from tests.mutations.kinds.records import fields, records
from tests.mutations.kinds.run_files import checkpoint, keras_file, run_log, run_settings
from tests.mutations.kinds.voc import voc
from tests.mutations.kinds.weights import h5, npz, safetensors
from tests.mutations.kinds.yolo import data_yaml, yolo

KINDS = {
    "coco": coco,
    "truth": ground_truth,
    "voc": voc,
    "yolo": yolo,
    "data.yaml": data_yaml,
    "csv": csv_table,
    "label map": label_map,
    "records": records,
    "fields": fields,
    "detections": detections,
    "recipes": recipes,
    "npz": npz,
    "safetensors": safetensors,
    "h5": h5,
    "checkpoint": checkpoint,
    "keras": keras_file,
    "run log": run_log,
    "run settings": run_settings,
    "static": static,
    "comparison": comparison,
    "split images": split_images,
}
