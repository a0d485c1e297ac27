"""Two conversions into one folder, and a conversion that is killed while it replaces another."""

import pytest

from ssd_centernet.data import output
from ssd_centernet.labels import LabelMap
from tests.data.coco_set import CATEGORIES, CocoSet


@pytest.fixture
def sets(tmp_path):
    """Two small data sets that are converted into one folder."""
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made.append(CocoSet(tmp_path / name).image().box())
        made[-1].out = tmp_path / "out"
    return made


def convert_during(sets, monkeypatch, **options):
    """Convert the first set as train; when its shards are written, the second one as val."""
    whole = output.SplitOutput.commit

    def commit(*args):
        monkeypatch.setattr(output.SplitOutput, "commit", whole)
        sets[1].convert(split="val")
        whole(*args)

    monkeypatch.setattr(output.SplitOutput, "commit", commit)
    return sets[0].convert(split="train", **options)


@pytest.mark.parametrize(
    "categories",
    [
        [{"id": 1, "name": "emu"}, {"id": 4, "name": "cat"}],  # Exchanged.
        [{"id": 1, "name": "cat"}, {"id": 4, "name": "emu"}, {"id": 5, "name": "gnu"}],
        [{"id": 0, "name": "cat"}, {"id": 4, "name": "emu"}],
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_classes_of_a_conversion_beside_it_are_not_replaced(
    sets, monkeypatch, categories, overwrite
):
    sets[1].content["categories"] = categories
    with pytest.raises(ValueError, match="All splits of an output_dir share a label map"):
        convert_during(sets, monkeypatch, overwrite=overwrite)
    found = LabelMap.from_pbtxt(sets[0].out / "mscoco_label_map.pbtxt")
    assert found == LabelMap.from_categories(categories)
    # The split that was first is whole; of the other one nothing is left.
    assert len(sets[1].examples("val")) == 1
    assert not list(sets[0].out.glob("*coco_train*record*"))


def test_two_splits_of_the_same_classes_may_be_converted_at_once(sets, monkeypatch):
    assert convert_during(sets, monkeypatch)["num_images"] == 1
    assert sets[0].examples("train")[0]["classes"] == sets[0].examples("val")[0]["classes"] == 1
    assert sets[0].content["categories"] == CATEGORIES


def test_a_replacement_that_is_killed_leaves_no_old_annotations_beside_new_records(
    sets, monkeypatch
):
    sets[0].convert(num_shards=2)
    sets[0].image("b.jpg").box()
    path = sets[0].out / "coco_train.annotations.json"
    seen = []
    for number in range(1, 5):
        moved = output.os.replace
        count = 0

        def killed(source, target, number=number, moved=moved):
            nonlocal count
            count += 1
            if count == number:
                raise KeyboardInterrupt
            moved(source, target)

        monkeypatch.setattr(output.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            sets[0].convert(num_shards=3, overwrite=True)
        monkeypatch.undo()
        seen.append(path.exists())
        assert not (sets[0].out / "coco_train.info.json").exists()
    # Three shards, then the annotations: never beside records of another conversion.
    assert seen == [False] * 4
    assert sets[0].convert(num_shards=3, overwrite=True)["num_images"] == 2
    assert len(sets[0].ground_truth()["images"]) == 2
