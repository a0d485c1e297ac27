"""`sc.pretrained`: a whole published detector by its name, from a file that was generated."""

import dataclasses
import hashlib

import numpy as np
import pytest

import ssd_centernet as sc
from ssd_centernet.weights import catalog, ssd_names, torch_names
from tests.narrow import NARROW
from tests.weights import files

LIKE = {"ssd300_vgg16": ssd_names.MMDETECTION_NECK, "ssd300_vgg16_torchvision": torch_names.SSD300}
PREFIXES = {
    "ssd300_vgg16": ("backbone.", "neck.", "bbox_head."),
    "ssd300_vgg16_torchvision": ("backbone.", "backbone.", "head."),
}


def write(path, name) -> dict:
    """Write a file of the published names, with few channels, as its program writes them."""
    settings = [*NARROW["ssd300_vgg16"], "IMAGE_SIZE = (300, 300)"]
    detector = sc.build("ssd300_vgg16", label_map=sc.LabelMap.coco(), settings=settings)
    torchvision = "torchvision" in name
    rng, tensors = np.random.default_rng(0), {}
    for prefix, part in zip(PREFIXES[name], ("backbone", "neck", "head"), strict=True):
        layer = getattr(detector, part)
        shapes = {v.name.removesuffix(":0"): v.shape.as_list() for v in layer.variables}
        for variable, published in LIKE[name].of_part(layer).items():
            shape = shapes[variable]
            if torchvision and "/class" in variable:
                shape[-1] = shape[-1] // 81 * 91
            shape = [shape[i] for i in (3, 2, 0, 1)] if len(shape) == 4 else shape
            tensors[prefix + published] = files.random_value(rng, shape)
    files.save_torch(path, tensors, legacy=True, wrap=None if torchvision else "state_dict")
    return tensors


@pytest.mark.parametrize("name", LIKE)
def test_a_published_detector_by_its_name(tmp_path, monkeypatch, name):
    monkeypatch.setenv("SSD_CENTERNET_WEIGHTS", str(tmp_path))
    row = catalog.ROWS[name]
    path = tmp_path / name / row.opens
    path.parent.mkdir()
    tensors = write(path, name)
    with pytest.raises(ValueError, match="is not what the table of published weights says"):
        sc.pretrained(name)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    file = dataclasses.replace(row.files[0], digest=f"sha256:{digest}")
    monkeypatch.setitem(catalog.ROWS, name, dataclasses.replace(row, files=(file,)))
    detector = sc.pretrained(name, settings=NARROW["ssd300_vgg16"])
    assert detector.num_classes == 80 and detector.class_names[0] == "person"
    mean = {"ssd300_vgg16": 123.675, "ssd300_vgg16_torchvision": 123.0}[name]
    assert detector.preprocessing.mean[0] == mean
    kernel = tensors["backbone.features.0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(detector.backbone.get_layer("conv1_1").kernel, kernel)
    found = detector.detect(np.zeros([60, 80, 3], np.uint8))
    assert set(found) >= {"boxes", "scores", "classes"}
