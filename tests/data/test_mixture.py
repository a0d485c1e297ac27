"""Several data sets as one, and rare classes that come more often."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.data import pipeline
from ssd_centernet.data.augment.ssd import SSDAugment
from ssd_centernet.data.mixture import Mixture, copies, merged_label_map
from ssd_centernet.evaluation.detector import split_ground_truth
from ssd_centernet.labels import LabelMap
from tests.data.foreign import BOXES, record, write, write_labels

CHAIN = SSDAugment((24, 32), compiled=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two data sets: 8 images of cats and dogs, 4 of emus and cats, with other ids."""
    root = tmp_path_factory.mktemp("mixture")
    one, two = root / "one", root / "two"
    for shard in range(2):
        items = [record(n) for n in range(shard, 8, 2)]
        write(one / f"train-{shard:05d}-of-00002", items)
    write_labels(one)
    items = [record(100 + n, labels=(1, 2), texts=("emu", "Cat")) for n in range(4)]
    write(two / "train.tfrecord", items, "GZIP")
    write_labels(two, ("emu", "Cat"))
    return [str(one), str(two)]


def train_on(data_dir, **options):
    arguments = {"batch_size": 1, "augment": CHAIN, "split": "train", "max_boxes": 2}
    arguments |= {"label_map": merged_label_map(data_dir)[0]}
    return pipeline.training_batches(data_dir, **{**arguments, **options})


def take(batches, count, key="source_id"):
    got = next(batches.unbatch().batch(count).take(1).as_numpy_iterator())
    return got if key is None else got[key].tolist()


def test_label_maps_are_joined_by_name(folders):
    label_map, notes = merged_label_map(folders)
    # The ids of the first stay; 1 is taken, so that the emu gets the next free one.
    assert label_map == LabelMap(["cat", "dog", "emu"], [1, 2, 3])
    assert notes == [
        f"'Cat' of {folders[1]} is taken for 'cat' of the others",
        f"{folders[1]} adds the classes emu",
    ]
    assert merged_label_map(folders[::-1])[0] == LabelMap(["emu", "Cat", "dog"], [1, 2, 3])
    assert merged_label_map(folders[0]) == (LabelMap(["cat", "dog"]), [])


def test_folders_may_name_their_splits_differently(folders, tmp_path):
    three = tmp_path / "three"
    write(three / "coco_train.record", [record(200)])
    write_labels(three)
    several = [*folders, str(three)]
    assert sorted(take(train_on(several, split="train, train,coco_train"), 13)) == [
        *range(8),
        *range(100, 104),
        200,
    ]
    with pytest.raises(ValueError, match="'train,coco_train' names 2 splits for 3 data dir"):
        train_on(several, split="train,coco_train")
    # Where nothing else is called so, it is found as train too.
    assert sorted(take(train_on(several), 13))[-1] == 200
    (three / "coco_train.record").rename(three / "trn.record")
    with pytest.raises(FileNotFoundError, match="three.*Give --train_split=trn"):
        train_on(several)


@pytest.mark.parametrize("cache", [False, True])
def test_an_epoch_has_every_image_of_both_with_the_joined_classes(folders, cache):
    got = take(train_on(folders, cache=cache), 24, key=None)
    for epoch in np.split(got["source_id"], 2):
        assert sorted(epoch) == [*range(8), *range(100, 104)]
    plain = SSDAugment((24, 32), crop=False, flip_probability=0.0, jitter=False, compiled=False)
    got = take(train_on(folders, cache=cache, augment=plain), 12, key=None)
    for source_id, classes, boxes in zip(
        got["source_id"], got["classes"], got["boxes"], strict=True
    ):
        # The emu and the cat of the second folder; the cat and the dog of the first.
        assert classes.tolist() == ([2, 0] if source_id >= 100 else [0, 1])
        np.testing.assert_allclose(boxes, BOXES, atol=1e-6)


@pytest.mark.parametrize(
    ("weights", "first", "second"),
    [((1, 1), 6, 6), ((3.0, 1.0), 9, 3), ((0.0, 2.0), 0, 12), ((1, 2), 4, 8), ((1.0, 1.4), 5, 7)],
)
def test_weights_are_shares_of_every_epoch(folders, weights, first, second):
    ids = np.reshape(take(train_on(folders, data_weights=weights), 36), (3, 12))
    for epoch in ids:
        assert ((epoch < 100).sum(), (epoch >= 100).sum()) == (first, second)
        counts = Counter(epoch.tolist())
        # Images of a folder come equally often, but for one.
        for images, drawn in ((range(8), first), (range(100, 104), second)):
            often = [counts[image] for image in images]
            assert max(often) - min(often) <= 1 and sum(often) == drawn
    assert pipeline.count_examples(folders, split="train", data_weights=weights) == 12


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("options", [{"data_weights": (3, 1)}, {"repeat_threshold": 0.9}])
def test_a_mixture_goes_on_where_it_was_bit_for_bit(folders, cache, options):
    options = {**options, "cache": cache, "seed": 5, "shuffle_buffer": 3}
    count = pipeline.count_examples(
        folders, split="train", **{k: v for k, v in options.items() if k in _MIXED}
    )
    whole = take(train_on(folders, **options), 2 * count + 3, key=None)
    for start in (1, count, count + 2):
        part = take(train_on(folders, start_example=start, **options), count, key=None)
        for key, value in part.items():
            np.testing.assert_array_equal(value, whole[key][start : start + count])
    other = take(train_on(folders, **{**options, "seed": 6}), 2 * count + 3)
    assert other != whole["source_id"].tolist()


_MIXED = ("data_weights", "repeat_threshold")


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("world_size", [2, 5])
def test_ranks_share_a_mixture_out(folders, cache, world_size):
    weights = {"data_weights": (1, 2)}
    epochs = ([], [])
    for rank in range(world_size):
        ranks = {"rank": rank, "world_size": world_size, **weights}
        count = pipeline.count_examples(folders, split="train", **ranks)
        ids = take(train_on(folders, cache=cache, **ranks), 2 * count)
        epochs[0].extend(ids[:count])
        epochs[1].extend(ids[count:])
    for epoch in epochs:
        assert len(epoch) == 12 and sum(number >= 100 for number in epoch) == 8
    assert Counter(epochs[0]) != Counter(epochs[1])  # Which ones come once more is drawn anew.


def test_copies_are_augmented_differently(folders):
    batches = train_on(folders, data_weights=(0, 1), augment=SSDAugment((24, 32), compiled=False))
    got = take(batches, 12, key=None)
    assert Counter(got["source_id"].tolist()) == {100 + n: 3 for n in range(4)}
    assert len({image.tobytes() for image in got["image"]}) > 8


# --- rare classes ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rare(tmp_path_factory):
    """16 images: cats in all, a dog in one, gnus in four; and one image without objects."""
    folder = tmp_path_factory.mktemp("rare")
    items = []
    for n in range(16):
        labels = [1, 2 if n == 0 else 3 if 4 <= n < 8 else 1]
        items.append(record(n, labels=labels, texts=None))
    items.append(record(50, [], [], []))
    write(folder / "train.tfrecord", items)
    write_labels(folder, ("cat", "dog", "gnu", "yak"))
    return str(folder)


def parts_of(folder, threshold):
    options = {"keep_empty": False, "crowd": "object", "repeat_threshold": threshold}
    return Mixture(folder, "train", 0, 1, **options).parts() / (1 << 20)


def test_repeat_factors_are_those_of_lvis(rare):
    # The dog is in 1 of 16 images, gnus in 4: sqrt(t / f), at least 1; the rarest class decides.
    # The empty image is not used.
    np.testing.assert_allclose(
        parts_of(rare, 1.0), [4.0, 1, 1, 1, 2, 2, 2, 2, *[1] * 8, 0], atol=1e-6
    )
    np.testing.assert_allclose(parts_of(rare, 0.25), [2.0, *[1] * 15, 0], atol=1e-6)
    np.testing.assert_allclose(parts_of(rare, 0.05), [*[1] * 16, 0], atol=1e-6)
    # 1.5 dogs, so that an epoch has 16.5 images: rounded up to 17 for all of them together.
    found = parts_of(rare, 0.140625)
    assert found.sum() == 17 and 1.5 <= found[0] <= 2.0


def test_rare_images_come_more_often(rare):
    options = {"repeat_threshold": 1.0, "label_map": merged_label_map(rare)[0]}
    assert pipeline.count_examples(rare, split="train", repeat_threshold=1.0) == 23
    for cache in (False, True):
        ids = np.reshape(take(train_on(rare, cache=cache, **options), 46), (2, 23))
        for epoch in ids:
            counts = Counter(epoch.tolist())
            assert counts == {n: 4 if n == 0 else 2 if 4 <= n < 8 else 1 for n in range(16)}
    # Two classes without a text: read by label; the same by text alone.
    assert Mixture(rare, "train", 0, 1, False, "object", repeat_threshold=1.0).notes() == [
        "images of rare classes come more often, up to 4.0 times: an epoch has 23 images"
    ]


def test_copies_have_the_fractions_on_average_and_one_sum():
    fractions = np.array([0.25, 1.5, 0.0, 2.0, 0.75, 0.5])
    parts = (fractions * (1 << 20)).astype(np.int64)
    folders = np.array([0, 0, 0, 0, 0, 0])
    draw = tf.function(lambda seed: copies(parts, folders, seed))
    drawn = np.stack([draw(tf.constant([3, n], tf.int64)).numpy() for n in range(400)])
    assert (drawn.sum(axis=1) == 5).all()
    assert (drawn >= np.floor(fractions)).all() and (drawn <= np.ceil(fractions)).all()
    np.testing.assert_allclose(drawn.mean(axis=0), fractions, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_weights": (1.0,)}, r"data_weights are \(1.0,\); expected 2 numbers"),
        ({"data_weights": (1.0, -1.0)}, "expected 2 numbers of 0 or more"),
        ({"data_weights": (0, 0)}, "expected 2 numbers"),
        ({"repeat_threshold": 0.0}, "repeat_threshold is 0.0; expected a share"),
        ({"repeat_threshold": 20.0}, "repeat_threshold is 20.0; expected a share"),
        ({"rank": 2, "world_size": 2}, "rank is 2"),
    ],
)
def test_settings_out_of_range(folders, options, message):
    with pytest.raises(ValueError, match=message):
        train_on(folders, **options)


def test_one_folder_twice_is_refused(folders):
    with pytest.raises(ValueError, match="one or more different folders.*data_weights"):
        pipeline.count_examples([folders[0], folders[0] + "/"], split="train")


def test_the_first_folder_is_evaluated_with_all_classes(folders):
    label_map = merged_label_map(folders)[0]
    truth = split_ground_truth(folders[0], "train", label_map)
    assert truth.category_ids == (1, 2, 3) and truth.num_objects == 16
