"""TFDS builders of strangers: no module that their files name is imported."""

import json
import sys

import pytest

from ssd_centernet.data.readers.tfds import read_tfds
from tests.data.readers import own_set

pytest.importorskip("tensorflow_datasets", reason="tensorflow_datasets is not installed")

_SEQUENCE = "tensorflow_datasets.core.features.sequence_feature.Sequence"
_LEGACY = {"type": "payload.Feature", "content": {}}


@pytest.fixture
def payload(tmp_path, monkeypatch):
    """A module on Python's path that leaves a mark when it is imported; returns the mark."""
    mark = tmp_path / "it_ran"
    text = (
        "import tensorflow_datasets as tfds\n"
        f"open({str(mark)!r}, 'w').close()\n"
        "class Feature(tfds.features.Text): pass\n"
    )
    (tmp_path / "payload.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield mark
    sys.modules.pop("payload", None)


def _hostile(folder, change):
    """A builder that works, with a feature more."""
    builder = own_set.write_tfds(folder)
    path = builder / "features.json"
    features = json.loads(path.read_text())
    change(features)
    path.write_text(json.dumps(features))
    return builder


def _add(feature):
    return lambda top: top["featuresDict"]["features"].update(extra=feature)


@pytest.mark.parametrize(
    "change",
    [
        _add({"pythonClassName": "payload.Feature", "text": {}}),
        _add({"python_class_name": "payload.Feature", "text": {}}),
        _add(
            {
                "pythonClassName": _SEQUENCE,
                "jsonFeature": {"json": json.dumps({"feature": _LEGACY})},
            }
        ),
        _add(
            {
                "pythonClassName": _SEQUENCE,
                "sequence": {"feature": {"pythonClassName": "payload.Feature", "text": {}}},
            }
        ),
        lambda top: top.update(pythonClassName="payload.Feature"),
        lambda top: top.update(_LEGACY),
        lambda top: (top.clear(), top.update(type="payload.Feature", content={}, proto_cls="")),
    ],
    ids=["class", "snake", "json-in-json", "nested", "root", "legacy-too", "legacy"],
)
def test_classes_of_other_modules_are_refused_before_they_are_imported(payload, tmp_path, change):
    builder = _hostile(tmp_path, change)
    with pytest.raises(ValueError, match=r"features\.json names classes that .*'payload\.Feature'"):
        read_tfds(builder, split="train")
    assert not payload.exists() and "payload" not in sys.modules


def test_the_module_that_a_builder_says_it_is_of_is_not_imported(payload, tmp_path):
    builder = own_set.write_tfds(tmp_path)
    info = json.loads((builder / "dataset_info.json").read_text())
    (builder / "dataset_info.json").write_text(json.dumps({**info, "moduleName": "payload"}))
    source = read_tfds(builder, split="train")
    assert len(source.content["images"]) == 3
    assert not payload.exists()


@pytest.mark.parametrize("text", ["{", '{"a": ' * 100_000, "[1, 2", "\xff"])
def test_a_description_that_cannot_be_read_is_told(tmp_path, text):
    builder = own_set.write_tfds(tmp_path)
    (builder / "features.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"features\.json (cannot be read|names|is not UTF-8)"):
        read_tfds(builder, split="train")
