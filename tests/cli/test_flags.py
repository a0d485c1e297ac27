"""Flags that several commands share."""

from tests.process import python

_FLAGS_PROBE = """
from absl import flags
from ssd_centernet.cli import _flags
for define in (_flags.define_gin, _flags.define_model_dir, _flags.define_data_dir,
               _flags.define_batch_size, _flags.define_seed, _flags.define_dtype,
               _flags.define_device):
    define()
names = ["gin_file", "gin_params", "model_dir", "data_dir", "batch_size", "seed", "dtype", "device"]
flags.FLAGS(["x"])
assert all(flags.FLAGS[name].value is None for name in names)
assert _flags.flag_bindings({name: f"f.{name}" for name in names}) == []
flags.FLAGS(["x", "--batch_size=8", "--dtype=bf16", "--gin_params=a.b=1", "--gin_params=c.d=2"])
assert flags.FLAGS.gin_params == ["a.b=1", "c.d=2"]
assert _flags.flag_bindings({"batch_size": ["train.batch_size", "evaluate.batch_size"]}) == [
    "train.batch_size = 8", "evaluate.batch_size = 8"]
assert _flags.flag_bindings({"dtype": "build.dtype", "seed": "a.seed"}) == ["build.dtype = 'bf16'"]
_flags.require("dtype", "batch_size", "gin_params")
try:
    _flags.require("seed", "dtype", "model_dir")
except flags.Error as error:
    assert "--seed, --model_dir must be given" in str(error), error
else:
    raise AssertionError("missing flags were accepted")
try:
    flags.FLAGS(["x", "--batch_size=0"])
except flags.Error:
    pass
else:
    raise AssertionError("an empty batch was accepted")
"""


def test_shared_flags_give_nothing_until_they_are_given():
    python(_FLAGS_PROBE)
