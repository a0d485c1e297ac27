"""What a command raises: mistakes are told in a line, defects keep their traceback."""

import json
import re
import sys
from pathlib import Path

import pytest
from absl import flags

from ssd_centernet.cli import main
from ssd_centernet.cli._errors import message_for_user


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
            r"ResNet\.blocks is 3, expected values in brackets, such as \(1, 2\)",
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


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("MultiBoxLoss.box_loss = 'l1'", "MultiBoxLoss.box_loss must be one of .*, got 'l1'"),
        ("MultiBoxLoss.box_loss_weight = -1", ".*box_loss_weight must be .* 0 or more, got -1"),
        ("MultiBoxLoss.normalizer = 'all'", ".*normalizer must be one of .*, got 'all'"),
    ],
)
def test_a_setting_that_a_part_refuses_is_told_with_its_place(command, capsys, param, message):
    def build(argv):
        from ssd_centernet import config
        from ssd_centernet.building import build_detector

        config.parse(["ssd300_resnet34"], [param])
        build_detector(num_classes=2)

    assert command(build) == 1
    printed = capsys.readouterr().err
    place = re.escape(f"(--gin_params: {param})")
    assert re.fullmatch(rf"ssd_centernet probe: {message} {place}\.\n", printed), printed


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
