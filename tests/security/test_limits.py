"""What ends in the middle: files that may not grow, memory, and what nests without an end."""

import contextlib
import errno
import json
import os
import resource

import numpy as np
import pytest
from PIL import Image

from ssd_centernet import config
from ssd_centernet.building import build_detector
from ssd_centernet.cli._errors import message_for_user
from ssd_centernet.data.convert_formats import convert_annotations
from ssd_centernet.files import write_atomically
from tests.tiny import RUN_RECIPE


@contextlib.contextmanager
def _files_up_to(size):
    """As `ulimit -f` does; Python ignores the signal and gets an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_may_not_grow_is_told_in_a_line_and_the_old_one_stays(tmp_path):
    path = tmp_path / "report.html"
    write_atomically(path, "old")
    with _files_up_to(10_000), pytest.raises(OSError) as caught:
        write_atomically(path, "x" * 20_000)
    assert caught.value.errno == errno.EFBIG
    told = message_for_user(caught.value)
    assert "larger than this shell allows" in told and "ulimit -f" in told and "\n" not in told
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["report.html"]


def test_records_that_may_not_grow_leave_nothing_half_written(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 90, 90], "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 200, "height": 200}],
        "annotations": [box],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    give = {"image_dir": tmp_path, "progress": False}
    with _files_up_to(60_000), pytest.raises(Exception) as caught:
        convert_annotations(tmp_path / "a.json", tmp_path / "out", **give)
    told = message_for_user(caught.value)
    assert told and "ulimit -f" in told and "\n" not in told, repr(caught.value)
    assert not list(tmp_path.glob("out/*.record*"))
    assert convert_annotations(tmp_path / "a.json", tmp_path / "out", **give)["num_images"] == 1


def test_memory_and_depth_are_told_in_a_line():
    def endless():
        return endless()

    with pytest.raises(RecursionError) as caught:
        endless()
    assert "nested too deep" in message_for_user(caught.value)
    with pytest.raises(MemoryError) as caught:
        np.zeros(1 << 60, np.uint8)
    told = message_for_user(caught.value)
    assert "the memory does not suffice (Unable to allocate" in told and "\n" not in told


def test_a_value_that_a_part_cannot_use_is_told_with_the_settings_of_the_part(tmp_path):
    path = tmp_path / "mine.gin"
    path.write_text(f"{RUN_RECIPE}\nResNet.stem_width = -8\n")
    config.parse([path])
    with pytest.raises(Exception) as caught:
        build_detector(num_classes=2)
    told = message_for_user(caught.value)
    assert told and "ResNet" in told and "ResNet.stem_width (" in told and "mine.gin, line" in told
