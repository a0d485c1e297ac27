"""A whole run on an accelerator, a stub device of the real TensorFlow runtime."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet.recipe import Recipe
from ssd_centernet.runs.evaluation import evaluate_run
from ssd_centernet.runs.opened import open_run
from ssd_centernet.train import train
from tests.process import Running
from tests.runtime import stub
from tests.tiny import TINY_RECIPE, write_data_set

pytestmark = pytest.mark.slow

STEPS = 5

# The command line itself; what it trains is looked at when it has ended.
_WATCHED = """
import collections, json, sys
from ssd_centernet.cli import main
from ssd_centernet import recipe as module

made = []

class Watched(module.Trainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        made.append(self)

module.Trainer = Watched
try:
    main.run(sys.argv)
except SystemExit as ended:
    assert ended.code == 0
(trainer,) = made
variables = [*trainer.detector.variables, *trainer.optimizer.variables, trainer.step]
devices = collections.Counter(v.device.rpartition("device:")[2] for v in variables)
print("DEVICES", json.dumps(devices))
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_data_set(tmp_path_factory.mktemp("data"))


def losses(model_dir):
    records = map(json.loads, (model_dir / "metrics.jsonl").read_text().splitlines())
    return [(r["step"], r["class"], r["box"]) for r in records if r["kind"] == "train"]


def test_a_run_on_an_accelerator_is_the_run_on_the_cpu(data_dir, tmp_path):
    library = stub.compile_stub(tmp_path)
    recipe = tmp_path / "tiny.gin"
    recipe.write_text(TINY_RECIPE)
    settings = (f"train.steps = {STEPS}", "train.log_every = 1", "train.checkpoint_every = 5")
    flags = ["--device=mlu", f"--gin_file={recipe}", f"--data_dir={data_dir}"]
    flags += [f"--model_dir={tmp_path / 'mlu'}", *(f"--gin_params={one}" for one in settings)]
    env = stub.environment(library, "MLU", 2)
    with Running(sys.executable, "-c", _WATCHED, "train", *flags, env=env) as on_device:
        config.parse([recipe], settings)
        assert train(tmp_path / "cpu", data_dir, Recipe(device="cpu")) == "finished"
        config.clear()
        printed = on_device.finish(status=0).stdout
    devices = json.loads(printed.partition("DEVICES ")[2])
    assert "21 variables to train on MLU:0" in printed
    # 21 trained variables, 6 of moving statistics, the slots, the rate, the optimizer's counter.
    assert list(devices) == ["MLU:0"] and devices["MLU:0"] > 2 * 21

    assert len(losses(tmp_path / "mlu")) == STEPS
    # The stub has the CPU's kernels; another number of threads adds up in another order.
    ours, theirs = (np.array(losses(tmp_path / name)) for name in ("mlu", "cpu"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)

    run = open_run(tmp_path / "mlu", device="cpu")
    evaluated = evaluate_run(run, data_dir, split="coco_val", batch_size=5)
    config.clear()
    assert evaluated.result.num_images == 5
    # What was read back from the device's checkpoint are the weights of the run on the CPU.
    reader = tf.train.load_checkpoint(str(tmp_path / "cpu"))
    (kernel,) = [v for v in run.detector.variables if v.name.endswith("stem_conv/kernel:0")]
    (name,) = [n for n in reader.get_variable_to_shape_map() if n.startswith("weights/stem_conv.")]
    np.testing.assert_allclose(kernel, reader.get_tensor(name), rtol=1e-4, atol=1e-6)
