"""Pictures that are unpacked once: the batches stay what they are without the cache."""

import os
import re
import shutil
import threading

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet.data import decoded, loading, pipeline, shards
from ssd_centernet.data.augment.joining import CopyPaste
from ssd_centernet.data.augment.on_device import DeviceRendering
from ssd_centernet.data.scan import summarize
from ssd_centernet.ops import image as image_ops
from tests.data.foreign import picture
from tests.data.test_on_device import CHAINS, SIZE
from tests.data.test_pipeline import LABELS, assert_same, record, write

COUNT = 13


def nameless(serialized):
    """Leave an id to the hash of the picture, and its size to its header."""
    example = tf.train.Example.FromString(serialized)
    for name in ("source_id", "filename", "key/sha256", "height", "width"):
        del example.features.feature[f"image/{name}"]
    return example.SerializeToString()


def items(seed=0):
    """13 records of pictures of several kinds and sizes; two of them (3 and 8) have no box."""
    made = []
    for n in range(COUNT):
        changes = {"height": 40 + 3 * n + seed, "width": 90 - n}
        kind = {1: "PNG", 2: "GIF"}.get(n, "JPEG")
        changes["encoded"] = picture(changes["height"], changes["width"], kind)
        made.append(record(n, count=0 if n in (3, 8) else 1 + n % 4, **changes))
    return [*made[:5], nameless(made[5]), *made[6:]]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data"), items(), 4)


@pytest.fixture(scope="module")
def folders(data_dir, tmp_path_factory):
    """Two data sets to mix."""
    other = write(tmp_path_factory.mktemp("other"), items(seed=20)[:6], 2)
    for folder in (data_dir, other):
        LABELS.to_pbtxt(os.path.join(folder, "label_map.pbtxt"))
    return data_dir, other


@pytest.fixture
def cache(tmp_path):
    return {"cache": "decoded", "cache_dir": str(tmp_path / "cache")}


def training(data_dir, **changes):
    arguments = {"label_map": LABELS, "batch_size": 2, "augment": CHAINS["ssd"], "max_boxes": 30}
    arguments |= {"image_size": SIZE, "shuffle_buffer": 4, "seed": 3, **changes}
    return pipeline.training_batches(data_dir, **arguments)


def take(batches, count):
    """Return examples as one dict of arrays."""
    return next(batches.unbatch().batch(count).take(1).as_numpy_iterator())


def decoded_folder(cache, data_dir):
    """The folder of whole pictures."""
    source = shards.RecordSource(data_dir, "coco_train", 0, 1, True, "object")
    return decoded.DecodedRecords([source], folder=cache["cache_dir"]).path


def plain(image):
    return tf.ensure_shape(tf.image.resize(image, SIZE), [*SIZE, 3])


@pytest.mark.parametrize("name", [*CHAINS, "resize_only"])
def test_the_batches_are_those_without_it(data_dir, cache, name, form):
    options = {"augment": CHAINS.get(name) or loading.resize_only(plain), "native": form}
    expected = take(training(data_dir, **options), 26)
    assert_same(take(training(data_dir, **options, **cache), 26), expected)
    # Of a picture that was reduced, this could not be.
    assert len(set(expected["source_id"])) == 11 and expected["height"].max() == 76


def test_images_that_the_step_makes_are_those_without_it(data_dir, cache):
    rendering = DeviceRendering(CHAINS["ssd"], window_size=(100, 104))
    options = {"augment": rendering.ship, "image_size": None}
    with_it = rendering.render(take(training(data_dir, **options, **cache), 22))
    assert_same(with_it, rendering.render(take(training(data_dir, **options), 22)))


def test_joined_pictures_are_those_without_it(data_dir, cache):
    options = {"compose": CopyPaste(probability=0.5)}
    with_it = training(data_dir, **options, **cache)
    assert_same(take(with_it, 22), take(training(data_dir, **options), 22))


@pytest.mark.parametrize(
    ("mixed", "world_size", "where"),
    [
        (False, 1, "host"),
        (False, 2, "host"),
        (False, 2, "device"),
        (False, 3, "host"),
        (True, 2, "host"),
    ],
)
def test_every_process_goes_on_bit_for_bit(folders, cache, mixed, world_size, where):
    chain = CHAINS["ssd"]
    if where == "device":
        chain = DeviceRendering(chain, window_size=(100, 104)).ship
    options = {"augment": chain, "world_size": world_size, **cache}
    options |= {"image_size": None, "data_weights": (2.0, 1.0) if mixed else None}
    ids = []
    for rank in range(world_size):
        options["rank"] = rank
        data = folders if mixed else folders[0]
        whole = take(training(data, **options), 20)
        start = 12 if rank else 3  # In the second epoch, and in the first one.
        part = take(training(data, start_example=start, **options), 8)
        cut = slice(start, start + 8)
        assert_same(part, tf.nest.map_structure(lambda value, cut=cut: value[cut], whole))
        count = pipeline.count_examples(
            data, rank=rank, world_size=world_size, data_weights=options["data_weights"]
        )
        ids += list(whole["source_id"][:count])
    assert mixed or len(set(ids)) == len(ids) == 11
    # Processes that read the same files share one folder.
    written = [name for name in os.listdir(cache["cache_dir"]) if not name.startswith(".")]
    assert len(written) == (2 if world_size == 2 and not mixed else 1)


def test_compressed_records_are_unpacked_too(tmp_path, cache):
    with tf.io.TFRecordWriter(str(tmp_path / "coco_train.record-00000-of-00001"), "GZIP") as file:
        for one in items():
            file.write(one)
    whole = take(training(str(tmp_path), **cache), 22)
    assert_same(whole, take(training(str(tmp_path)), 22))


def test_larger_pictures_are_reduced_by_means(data_dir, cache, caplog):
    plainly = {"augment": loading.resize_only(plain), "batch_size": 1, "keep_empty": True}
    made = take(training(data_dir, **plainly, **cache, cache_scale=1.25), COUNT)
    assert f"unpacking {COUNT} pictures, 0.00 GiB, to {cache['cache_dir']}" in caplog.text
    assert f"cache_scale reduces {COUNT} of {COUNT} pictures to 70 pixels" in caplog.text
    caplog.clear()
    full = take(training(data_dir, **plainly), COUNT)
    training(data_dir, **cache)
    assert "unpacking" in caplog.text and "reduces" not in caplog.text
    assert np.abs(made.pop("image") - full.pop("image")).max() > 1
    assert_same(made, full)  # Boxes, areas and sizes are those of the whole picture.
    shutil.rmtree(decoded_folder(cache, data_dir))
    (folder,) = os.listdir(cache["cache_dir"])
    with np.load(os.path.join(cache["cache_dir"], folder, decoded.INDEX)) as index:
        sizes = index["sizes"]
    # 1.25 times the 56 columns of the input.
    source = shards.RecordSource(data_dir, "coco_train", 0, 1, True, "object")
    whole = np.concatenate([one.sizes for one in source.summaries])
    np.testing.assert_array_equal(
        sizes, np.round(whole * 70 / whole.max(axis=1, keepdims=True)).astype(int)
    )
    blocks = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
    halved = image_ops.reduce_to(tf.constant(blocks), 4)
    np.testing.assert_array_equal(
        halved, np.round(blocks.reshape(4, 2, 3, 2, 3).astype(float).mean((1, 3)))
    )
    np.testing.assert_array_equal(image_ops.reduce_to(tf.constant(blocks), 8), blocks)
    assert image_ops.reduce_to(tf.zeros([100, 1, 3], tf.uint8), 10).shape == (10, 1, 3)


def test_other_records_are_not_taken_for_these(tmp_path, cache):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder, items(), 2)
    training(str(folder), **cache)
    first = os.listdir(cache["cache_dir"])
    write(folder, items(), 2)  # The same again: nothing is written.
    training(str(folder), **cache)
    assert os.listdir(cache["cache_dir"]) == first
    changed = items()
    changed[4] = record(4, encoded=picture(52, 86, "PNG"), height=52, width=86)
    write(folder, changed, 2)
    assert_same(take(training(str(folder), **cache), 10), take(training(str(folder)), 10))
    assert len(os.listdir(cache["cache_dir"])) == 2


def test_what_does_not_fit_is_refused_before_anything_is_written(data_dir, cache, monkeypatch):
    words = r"would hold 0.00 GiB of pictures, but only 80% of the available 0.00 GiB of memory"
    with monkeypatch.context() as patch, pytest.raises(ValueError, match=words) as told:
        patch.setattr(decoded, "available_memory", lambda: 10_000)
        training(data_dir, **cache)
    assert "training_batches.cache_scale = 1.5" in str(told.value)
    assert "training_batches.cache = False" in str(told.value)
    usage = shutil.disk_usage("/")._replace(free=10_000)
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="cache_dir = ") as told:
        patch.setattr(decoded.shutil, "disk_usage", lambda path: usage)
        training(data_dir, **cache, cache_scale=1.5)
    assert f"{cache['cache_dir']} has 0.00 GiB free" in str(told.value)
    assert os.listdir(cache["cache_dir"]) == []
    # The estimate is what is written.
    training(data_dir, **cache)
    (name,) = os.listdir(cache["cache_dir"])
    source = shards.RecordSource(data_dir, "coco_train", 0, 1, False, "object")
    sizes = np.concatenate([one.sizes for one in source.summaries]).prod(axis=1) * 3
    expected = int((-(-sizes // 64) * 64).sum())
    assert 0 <= expected - os.path.getsize(f"{cache['cache_dir']}/{name}/pixels") < 64
    with monkeypatch.context() as patch:  # What is there already takes nothing more.
        patch.setattr(decoded, "available_memory", lambda: 10_000)
        training(data_dir, **cache)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cache": "decode"}, "training_batches.cache is 'decode'; expected False, True"),
        ({"cache_scale": 2.0}, "cache_scale is 2.0, but training_batches.cache is False"),
        ({"cache": True, "cache_dir": "x"}, "cache_dir is 'x', but training_batches.cache is True"),
        ({"cache": "decoded", "cache_scale": 0.5}, "cache_scale is 0.5; expected a number from 1"),
        ({"cache": "decoded", "cache_scale": True}, "cache_scale is True; expected a number"),
        ({"cache": "decoded", "cache_scale": "2"}, "cache_scale is '2'; expected a number"),
        (
            {"cache": "decoded", "cache_scale": 2.0, "image_size": None},
            "a multiple of image_size, which is not given",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(data_dir, tmp_path, monkeypatch, settings, words):
    monkeypatch.setenv(decoded.VARIABLE, str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=re.escape(words)):
        training(data_dir, **settings)
    assert not (tmp_path / "cache").exists()


def test_what_is_damaged_there_is_refused(data_dir, cache):
    training(data_dir, **cache)
    (name,) = os.listdir(cache["cache_dir"])
    pixels = os.path.join(cache["cache_dir"], name, decoded.PIXELS)
    os.truncate(pixels, os.path.getsize(pixels) - 1)
    with pytest.raises(ValueError, match="Remove this folder; it is then written again"):
        training(data_dir, **cache)
    shutil.rmtree(os.path.dirname(pixels))
    take(training(data_dir, **cache), 2)
    os.truncate(os.path.join(os.path.dirname(pixels), decoded.INDEX), 10)
    words = "is not what training_batches.cache = 'decoded' wrote"
    with pytest.raises(ValueError, match=words):
        training(data_dir, **cache)
    objects = np.array([{}] * COUNT)  # Pickled, they could run code.
    np.savez(os.path.join(os.path.dirname(pixels), decoded.INDEX), places=objects)
    with pytest.raises(ValueError, match=words + ".*allow_pickle=False"):
        training(data_dir, **cache)


def test_what_a_killed_command_left_is_removed(data_dir, cache):
    training(data_dir, **cache)
    (name,) = os.listdir(cache["cache_dir"])
    whole = os.path.join(cache["cache_dir"], name)
    left = os.path.join(cache["cache_dir"], f".{name}.ssd-0123456789.tmp")
    os.rename(whole, left)
    for path in (left, *(os.path.join(left, one) for one in os.listdir(left))):
        os.utime(path, (0, 0))
    training(data_dir, **cache)
    assert os.listdir(cache["cache_dir"]) == [name]


def test_processes_that_begin_together_write_it_once(data_dir, cache, monkeypatch):
    written = []
    whole = decoded.DecodedRecords._write_files

    def write_files(self, folder, size):
        written.append(folder)
        whole(self, folder, size)

    monkeypatch.setattr(decoded.DecodedRecords, "_write_files", write_files)
    source = shards.RecordSource(data_dir, "coco_train", 0, 1, False, "object")
    assert sum(len(summarize(path).ids) for path in source.files) == COUNT

    def make():
        decoded.DecodedRecords([source], folder=cache["cache_dir"])

    # A lock is of an open file, not of a process: threads wait for each other like processes.
    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 1 and len(os.listdir(cache["cache_dir"])) == 1


def test_a_chain_of_ones_own_is_told_why_there_is_no_file(data_dir, cache):
    def chain(example, seed):
        return {**example, "image": plain(image_ops.decode_image(example.pop("encoded")))}

    words = "but training_batches.cache makes pictures of pixels"
    with pytest.raises(ValueError, match=words):
        training(data_dir, augment=chain, **cache)
