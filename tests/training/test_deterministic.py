"""`train.deterministic`: kernels that give the same bits each time, or an error."""

import json

from tests.process import run
from tests.training.test_train import assert_same_bits

# In a process of its own: nothing turns the switch back.
_TRAIN = """
import sys
import tensorflow as tf
from ssd_centernet import config
from ssd_centernet.train import train

recipe, data_dir, *model_dirs = sys.argv[1:]
for model_dir in model_dirs:
    config.parse([recipe], ["train.steps = 4", "train.deterministic = True"])
    print(train(model_dir, data_dir))
    config.clear()
tf.random.set_seed(None)
try:
    tf.random.normal([1])
except RuntimeError as error:
    print("refused:", error)
"""


def test_a_run_trains_and_operations_that_vary_are_refused(tiny_recipe, data_dir, tmp_path, warm):
    runs = [tmp_path / "one", tmp_path / "other"]
    said = run(warm, "-c", _TRAIN, tiny_recipe, data_dir, *runs).stdout
    assert said.splitlines().count("finished") == 2
    # TensorFlow refuses a random operation without a seed only where the switch is on.
    assert "refused: " in said and "determinism" in said
    assert_same_bits(*runs)
    lines = (runs[0] / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    # Reading the time is such an operation, so nobody knows how long a step waited.
    assert any("images_per_second" in one for one in records)
    assert not any("data_wait_share" in one for one in records)
