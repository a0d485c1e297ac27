"""`ssd_centernet weights`, and trainings that begin with published weights by their name."""

import functools
import os
import sys

import numpy as np
import pytest

import ssd_centernet as sc
from ssd_centernet.weights import catalog, download, tf1_variables
from tests.process import run
from tests.weights.files import save_tf1
from tests.weights.server import serve

# A backbone of few channels under the names of the published one.
SMALL = (
    "ResNet.blocks = (1, 1, 1)",
    "ResNet.widths = (8, 8, 16)",
    "ResNet.stem_width = 8",
    "IMAGE_SIZE = (96, 96)",
)
NAMES = ("checkpoint", *(f"model.ckpt-28152.{e}" for e in ("data-00000-of-00001", "index", "meta")))


@pytest.fixture
def cache(monkeypatch, tmp_path):
    folder = tmp_path / "cache"
    monkeypatch.setenv("SSD_CENTERNET_WEIGHTS", str(folder))
    monkeypatch.delenv("SSD_CENTERNET_WEIGHTS_MIRROR", raising=False)
    monkeypatch.setattr(download, "_PAUSE", 0.01)
    # Whatever would leave this machine ends at once.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder


def write_resnet34(folder) -> dict:
    """Write the published files of a small ResNet-34."""
    backbone = sc.ResNet((1, 1, 1), widths=(8, 8, 16), stem_width=8)
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.uniform(0.5, 1.5, v.shape).astype(np.float32)
        for name, v in tf1_variables(backbone).items()
    }
    folder.mkdir(parents=True)
    save_tf1(folder / "model.ckpt-28152", tensors)
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-28152"\n')
    (folder / "model.ckpt-28152.meta").write_bytes(b"graph")
    return tensors


@pytest.fixture
def program(cache, warm):
    """Run a command to its end, with the environment of the test."""

    def command(*arguments, status=0):
        return run(warm, "-m", "ssd_centernet", *arguments, env=dict(os.environ), status=status)

    return command


@pytest.fixture
def weights(program):
    return functools.partial(program, "weights")


def test_four_files_come_from_a_mirror_and_begin_a_training(cache, weights, monkeypatch, tmp_path):
    tensors = write_resnet34(tmp_path / "published")
    with serve() as site:
        monkeypatch.setenv("SSD_CENTERNET_WEIGHTS_MIRROR", site.address)
        for name in NAMES:
            data = (tmp_path / "published" / name).read_bytes()
            site.files[f"/resnet34_mlperf/{name}"] = data
        said = weights("fetch", "resnet34_mlperf")
        assert f"resnet34_mlperf: {cache}/resnet34_mlperf/model.ckpt-28152" in said.stdout
        assert len(site.asked) == 4
        detector = sc.build(
            "ssd300_resnet34", num_classes=2, settings=SMALL, weights="resnet34_mlperf"
        )
        assert len(site.asked) == 4
    kernel = detector.backbone.get_layer("stem_conv").kernel
    np.testing.assert_array_equal(kernel, tensors["conv2d/kernel"])
    said = weights("check", "resnet34_mlperf").stdout
    assert said.count("right, compared with sha256 of when it came here") == 4
    assert "here" in weights("list", "--here").stdout
    with (cache / "resnet34_mlperf" / NAMES[1]).open("r+b") as file:
        file.seek(100)
        file.write(b"\xff\x00\xff")
    said = weights("check", status=1)
    assert "has changed since it came here" in said.stderr


def test_list_shows_the_table_and_rows(cache, weights):
    said = weights("list").stdout
    for name in catalog.ROWS:
        assert name in said
    said = weights("list", "ssd300_vgg16").stdout
    assert "sha256:d231a06e" in said and "size not given" in said and "AP 25.5" in said
    assert str(cache / "ssd300_vgg16") in said
    assert "Did you mean vgg16_caffe" in weights("list", "vgg16_cafe", status=1).stderr
    assert "say what to do first" in weights(status=2).stderr


def test_without_a_network_the_message_says_what_to_copy_where(cache, weights):
    said = weights("fetch", "keras_vgg16", status=1).stderr
    name = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert f"copy {name} to {cache}/keras_vgg16/" in said and "https://storage.googleapis" in said
    assert "Traceback" not in said


def test_convert_writes_a_detector_that_loads(cache, weights, tmp_path):
    write_resnet34(cache / "resnet34_mlperf")
    given = [f"--gin_params={text}" for text in SMALL]
    output = tmp_path / "new" / "begin.keras"
    said = weights("convert", "resnet34_mlperf", f"--output={output}", *given).stdout
    assert f"wrote {output}" in said and "variables restored" in said
    assert sc.load(output).num_classes == 80 and os.listdir(output.parent) == [output.name]
    said = weights("check", "resnet34_mlperf", "--gin_file=ssd300_resnet34", *given).stdout
    assert "TensorFlow 1 SSD300 ResNet-34, classification" in said
    assert ".keras" in weights("convert", "resnet34_mlperf", "--output=x.npz", status=2).stderr


def test_pretrained_takes_detectors_alone():
    with pytest.raises(ValueError, match=r"vgg16_caffe is a backbone.*weights='vgg16_caffe'"):
        sc.pretrained("vgg16_caffe")
    with pytest.raises(KeyError, match="no published weights are called 'ssd300'"):
        sc.pretrained("ssd300")


def test_the_table_starts_without_tensorflow(cache):
    code = "import sys; from ssd_centernet.cli.main import run; run(['x', 'weights', 'list'])"
    hook = "import atexit, sys; atexit.register(lambda: print('tensorflow' in sys.modules)); "
    ended = run(sys.executable, "-c", hook + code)
    assert ended.stdout.strip().endswith("False"), ended


def test_frozen_layers_are_not_left_random(cache, program, tmp_path, data_dir):
    given = [f"--gin_params={text}" for text in (*SMALL, "train.pictures = 0")]
    command = ["train", "--gin_file=ssd300_resnet34", f"--data_dir={data_dir}", *given]
    command += ["--num_steps=1", "--batch_size=2", "--mode=train", "--device=cpu"]
    ended = program(*command, f"--model_dir={tmp_path / 'a'}", status=1)
    for text in ("would stay random", "--fine_tune_checkpoint=resnet34_mlperf", "--from_scratch"):
        assert text in ended.stderr
    ended = program(*command, f"--model_dir={tmp_path / 'b'}", "--from_scratch")
    assert "the published result of this recipe begins with ResNet-34 of the SSD" in ended.stdout
    write_resnet34(cache / "resnet34_mlperf")
    model_dir = tmp_path / "c"
    name = "--fine_tune_checkpoint=resnet34_mlperf"
    program(*command, f"--model_dir={model_dir}", name)
    assert "sha256 " in (model_dir / "initial_weights.txt").read_text()
    # Of a backbone that the file has only in part, the frozen part counts.
    only = "--gin_params=train.fine_tune_exclude = ('stem_conv',)"
    ended = program(*command, f"--model_dir={tmp_path / 'd'}", name, only, status=1)
    assert "keeps 1 variables as they are (stem_conv/kernel)" in ended.stderr
