"""The command line: help at once, wrong command lines, mistakes without tracebacks."""

import importlib
import json
import os
import re
import sys
from pathlib import Path

import pytest
from absl import flags

from ssd_centernet import __version__
from ssd_centernet.cli import doctor, main
from ssd_centernet.cli._errors import message_for_user
from tests.process import ROOT, cli, environment, python

WRITTEN = [n for n in main.COMMANDS if (ROOT / "ssd_centernet" / "cli" / f"{n}.py").exists()]

# A command line in a fresh interpreter, which prints which heavy packages it has imported.
_PROBE = """
import sys
from ssd_centernet.cli.main import run
try:
    run(sys.argv)
finally:
    print("heavy:", sorted({"tensorflow", "numpy", "gin", "matplotlib"} & set(sys.modules)))
"""


def _run(*arguments, probe=False, status=None):
    # As a user has it: nothing is hidden, neither messages nor devices.
    env = environment(TF_CPP_MIN_LOG_LEVEL=None, CUDA_VISIBLE_DEVICES=None)
    if probe:
        return python(_PROBE, *arguments, env=env, status=status)
    return cli(*arguments, env=env, status=status)


def test_every_command_is_written():
    files = {p.stem for p in (ROOT / "ssd_centernet" / "cli").glob("*.py")}
    assert set(main.COMMANDS) == {n for n in files if n[0] != "_" and n != "main"}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]], ids=str)
def test_overview(arguments):
    result = _run(*arguments, status=0 if arguments else 2)
    text = result.stdout if arguments else result.stderr
    assert [line.split()[0] for line in text.splitlines() if line.startswith("  ")] == list(
        main.COMMANDS
    )
    assert result.seconds < 1.0


def test_version():
    assert _run("--version").stdout == f"ssd_centernet {__version__}\n"


@pytest.mark.parametrize("command", WRITTEN)
def test_help_of_a_command_is_quick_and_complete(command):
    result = _run(command, "--help", probe=True, status=0)
    assert "heavy: []" in result.stdout
    # The promise is 3 seconds; a machine that is busy with other tests gets one more try.
    if result.seconds >= 3.0:
        result = _run(command, "--help", probe=True)
    assert result.seconds < 3.0
    module = importlib.import_module(f"ssd_centernet.cli.{command}")
    assert module.__doc__.strip() in result.stdout
    assert f"ssd_centernet {command}" in module.__doc__, "the help text shows an example"
    assert "--[no]debug" in result.stdout
    assert "repeat this option" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evalute"], "Did you mean evaluate?"),
        (["make-synthetics"], "Did you mean make_synthetic"),
        (["xyzzy"], "Commands: train, launch, evaluate"),
        (["--gin_file=a"], "The command comes before its flags."),
        (["doctor", "--train_stp"], "Did you mean: train_step"),
        (["doctor", "--device=cuda"], "auto|cpu|gpu|tpu|hpu|mlu|npu"),
    ],
)
def test_wrong_command_lines(arguments, message):
    result = _run(*arguments, status=2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not result.stdout


def test_dashes_in_a_command_are_forgiven():
    assert "Usage: ssd_centernet doctor" in _run("doctor", "--help").stdout
    if "make_synthetic" in WRITTEN:
        _run("make-synthetic", "--help", status=0)


# What a command raises ----------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch):
    """Install a command that does what a test says, and return a runner of it."""
    module = type(sys)("ssd_centernet.cli.probe")
    module.__doc__ = "A command of the tests."
    module.define_flags = lambda: None
    monkeypatch.setitem(sys.modules, "ssd_centernet.cli.probe", module)
    monkeypatch.setitem(main.COMMANDS, "probe", "test")

    def run(action, *arguments):
        module.main = action
        with pytest.raises(SystemExit) as caught:
            main.run(["ssd_centernet", "probe", *arguments])
        return caught.value.code

    yield run
    flags.FLAGS.unparse_flags()
    flags.FLAGS["debug"].unparse()


def _explained(argv):
    from ssd_centernet import config

    config.find_recipe("no_such_recipe")


def _defect(argv):
    return json.loads("{")  # A ValueError, but of a library: nobody has explained it.


def test_exit_status_is_that_of_the_command(command):
    assert command(lambda argv: None) == 0
    assert command(lambda argv: 3) == 3


def test_explained_mistake_has_no_traceback(command, capsys):
    assert command(_explained) == 1
    captured = capsys.readouterr().err
    assert captured.startswith("ssd_centernet probe: There is no gin file 'no_such_recipe'")
    assert "Traceback" not in captured


def test_missing_file_has_no_traceback(command, capsys):
    assert command(lambda argv: open("/no/such/file.json")) == 1
    assert "/no/such/file.json" in capsys.readouterr().err


def test_defect_keeps_its_traceback(command):
    with pytest.raises(json.JSONDecodeError):
        command(_defect)


def test_debug_keeps_every_traceback(command):
    with pytest.raises(FileNotFoundError, match="no_such_recipe"):
        command(_explained, "--debug")


def test_full_disk_is_told_in_a_line():
    import tensorflow as tf

    text = "{{function_node __w_SaveV2}} a/ckpt-1.tmp; No space left on device [Op:SaveV2]"
    error = tf.errors.ResourceExhaustedError(None, None, text)
    assert message_for_user(error) == (
        "the disk is full: a/ckpt-1.tmp; No space left on device. Make room and give the same "
        "command again."
    )
    assert message_for_user(tf.errors.ResourceExhaustedError(None, None, "OOM")) is None


def test_call_chain_of_gin_is_dropped():
    for error, text in (
        (OSError("x is 3.\n  In call to configurable 'train' (<f at 0x7f>)"), "x is 3."),
        (FileNotFoundError("no file"), "no file"),
    ):
        assert message_for_user(error) == text


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            ["ResNet.blocks = 3"],
            r"ResNet cannot be built from its settings: .* ResNet\.\* has",
        ),
        (["train.batches = @training_batches()"], "training_batches cannot be built .* brackets"),
    ],
)
def test_part_of_a_recipe_that_cannot_be_built_is_explained(command, capsys, params, message):
    def build(argv):
        from ssd_centernet import config
        from ssd_centernet.train import train

        config.parse(["ssd300_resnet34"], params)
        from ssd_centernet.building import build_detector

        build_detector(num_classes=2) if "ResNet" in params[0] else train("run", "data")

    assert command(build) == 1
    printed = capsys.readouterr().err
    assert re.search(message, printed) and printed.count("\n") == 1
    assert "Traceback" not in printed and "0x" not in printed


def test_assertion_about_the_data_is_told_as_a_sentence(command, capsys):
    """What a graph asserts comes as an error of tensorflow, wrapped by every transformation."""

    def feed_unknown_category(argv):
        import tensorflow as tf

        from ssd_centernet.data.records import encode_example, parse_example
        from ssd_centernet.labels import LabelMap

        record = {"encoded": b"x", "format": "jpeg", "filename": "7.jpg", "source_id": 7}
        objects = {"height": 4, "width": 4, "boxes": [[0, 0, 1, 1]], "labels": [5]}
        data = tf.data.Dataset.from_tensors(encode_example({**record, **objects}))
        labels = LabelMap(names=("cat",), ids=(1,))
        list(data.map(lambda text: parse_example(text, labels)))

    assert command(feed_unknown_category) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("ssd_centernet probe: Category id 5 is not in the label map (1 ")
    assert "convert the data again. source_id: 7" in printed
    assert "Traceback" not in printed and "[" not in printed and "{{" not in printed


@pytest.mark.parametrize("damage", ["cut short", "a changed byte"])
def test_damaged_record_file_is_named(command, capsys, tmp_path, damage):
    def read(argv):
        import tensorflow as tf

        path = str(tmp_path / "coco_train.record-00000-of-00001")
        with tf.io.TFRecordWriter(path) as writer:
            writer.write(b"0123456789")
        content = bytearray(Path(path).read_bytes())
        content[15] ^= 1
        Path(path).write_bytes(content if damage == "a changed byte" else content[:-3])
        list(tf.data.TFRecordDataset(path))

    assert command(read) == 1
    printed = capsys.readouterr().err
    assert "record file is damaged" in printed and "--overwrite" in printed
    assert "Traceback" not in printed


def test_recipe_without_a_detector_is_explained(command, capsys):
    def build(argv):
        from ssd_centernet import config
        from ssd_centernet.building import build_detector

        config.parse(gin_params=["train.batch_size = 8"])
        build_detector()

    assert command(build) == 1
    printed = capsys.readouterr().err
    assert "build_detector has no value for ['model']" in printed and "include" in printed
    assert "Traceback" not in printed


def test_other_errors_of_tensorflow_keep_their_traceback(command):
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError):
        command(lambda argv: tf.reshape([1.0, 2.0], [3]))


def test_interrupt(command, capsys):
    def interrupt(argv):
        raise KeyboardInterrupt

    assert command(interrupt) == 130
    assert "Interrupted" in capsys.readouterr().err


def test_log_level_of_the_user_is_kept(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with pytest.raises(SystemExit):
        main.run(["ssd_centernet", "--version"])
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    with pytest.raises(SystemExit):
        main.run(["ssd_centernet", "--version"])
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] in ("2", "3")


# Shared flags -------------------------------------------------------------------------------------

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


# doctor -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_doctor_reports_as_json_and_trains_a_step():
    from ssd_centernet import config

    recipe = min(config.recipes(), key=lambda name: name != "ssd_demo")  # The smallest one.
    result = _run("doctor", "--json", f"--recipe={recipe}", "--device=cpu", status=0)
    report = json.loads(result.stdout)
    assert report["ok"] is True
    lines = {line["name"]: line for line in report["checks"]}
    assert {"python", "memory", "disk", "tensorflow", "tf_keras", "keras", "devices"} <= set(lines)
    tested = [line for name, line in lines.items() if name.startswith("AP by")]
    assert tested
    assert all("gives AP 1.000" in line["text"] for line in tested)
    assert lines[f"step {recipe}"]["status"] == "ok"
    assert "loss" in lines[f"step {recipe}"]["text"]
    if not os.path.exists("/proc/driver/nvidia"):
        assert result.stderr == "", "tensorflow's search for devices is no news to the user"


def test_doctor_warns_of_a_recipe_whose_package_is_missing(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "official"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "official", None)
    (line,) = doctor._train_steps(["ssd320_mobilenetv3_fpn"])
    assert (line.status, line.name) == ("warn", "step ssd320_mobilenetv3_fpn")
    assert (
        'pip install "ssd_centernet[model_garden]"' in line.text and "configurable" not in line.text
    )


def test_doctor_fails_when_something_is_broken():
    result = _run("doctor", "--notrain_step", "--device=npu", status=1)
    assert "FAIL devices" in result.stdout
    assert "CANN" in result.stdout
    # One broken part does not hide the rest.
    assert "AP by" in result.stdout


def test_the_command_line_asks_tensorflow_for_keras_2_unless_told_otherwise(monkeypatch):
    from ssd_centernet.cli.main import run

    for given, want in (("0", "0"), (None, "1")):
        monkeypatch.setenv("TF_USE_LEGACY_KERAS", given or "")
        if given is None:
            monkeypatch.delenv("TF_USE_LEGACY_KERAS")
        with pytest.raises(SystemExit):
            run(["ssd_centernet", "--version"])
        assert os.environ["TF_USE_LEGACY_KERAS"] == want
