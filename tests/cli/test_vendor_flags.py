"""Flags of the published systems: what they set, contradictions, and the page that lists them."""

import re
from pathlib import Path

import gin
import pytest
from absl import flags

from ssd_centernet.cli import _vendor_flags, train
from ssd_centernet.cli._vendor_table import ALIASES, MODES, REPLACED, SAME, SYSTEMS
from tests.cli.command_line import parsed, parsed_recipe
from tools import flags_doc

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
PLACES = ("--model_dir=m", "--data_dir=d")
SSD = ("--gin_file=ssd300_resnet34", *PLACES)
FPN = ("--gin_file=ssd320_resnet50_fpn", *PLACES)
VGG = ("--gin_file=ssd300_vgg16", *PLACES)
CENTERNET = ("--gin_file=centernet_resnet101_fpn", *PLACES)


def settings(arguments, *names):
    """What gin has for some parameters under a command line of a training."""
    with parsed_recipe(arguments):
        return [str(gin.query_parameter(name)) for name in names]


@pytest.mark.parametrize(
    ("recipe", "words", "parameter", "value"),
    [
        (SSD, ["-e", "64"], "train.epochs", "64.0"),
        (SSD, ["-b", "128"], "train.batch_size", "128"),
        (SSD, ["-d", "bf16"], "build_detector.dtype", "bf16"),
        (SSD, ["-s", "100"], "train.steps", "100"),
        (SSD, ["--steps=100"], "train.steps", "100"),
        (SSD, ["-v", "10"], "train.log_every", "10"),
        (SSD, ["--save_summary_steps", "10"], "train.log_every", "10"),
        (SSD, ["-c", "64"], "train.checkpoint_every", "64.0 epochs"),
        (SSD, ["--keep_ckpt_max=20"], "train.keep_checkpoints", "20"),
        (SSD, ["--k=2"], "WarmupCosine.stretch", "2.0"),
        (SSD, ["--lr_warmup_epoch=5"], "WarmupCosine.warmup_epochs", "5.0"),
        (SSD, ["--base_lr=2.5e-3"], "WarmupCosine.base_learning_rate", "0.0025"),
        (SSD, ["--weight_decay=1e-4"], "train.weight_decay", "0.0001"),
        (SSD, ["--num_parallel_calls=64"], "training_batches.num_parallel_calls", "64"),
        (SSD, ["--threadpool_size=4"], "training_batches.threadpool_size", "4"),
        (SSD, ["--resnet_checkpoint=r34"], "train.fine_tune_checkpoint", "r34"),
        (SSD, ["--resnet_checkpoint=r34"], "train.fine_tune_checkpoint_type", "classification"),
        (SSD, ["--profile", "50,53"], "train.profile", "(50, 53)"),
        (SSD, ["-f"], "train.batches", "@fake_batches"),
        (SSD, ["--use_fake_data"], "fake_batches.batches", "@training_batches"),
        (SSD, ["--static"], "train.batches", "@static_batches"),
        (SSD, ["--mode=train"], "train.evaluate_every", "0"),
        (FPN, ["--base_lr=0.01"], "WarmupCosineSteps.base_learning_rate", "0.01"),
        (FPN, ["--use_amp=True"], "build_detector.dtype", "fp16"),
        (FPN, ["--amp"], "build_detector.dtype", "fp16"),
        (FPN, ["--hvd_device=mlu"], "train.device", "mlu"),
        (FPN, ["--do_train=True"], "train.evaluate_every", "0"),
        (FPN, ["--use_performance=True"], "train.use_performance", "True"),
        (FPN, ["--use_profiler=True"], "train.profile", "(10, 14)"),
        (FPN, ["--use_profiler", "--profile=1,2"], "train.profile", "(1, 2)"),
        (FPN, ["--num_train_steps=7"], "train.steps", "7"),
        (VGG, ["--train_epochs=24"], "train.epochs", "120.0"),
        (VGG, ["--no-validate"], "train.evaluate_every", "0"),
        (VGG, ["--resume-from", "a/ckpt-3"], "train.resume_from", "a/ckpt-3"),
        (VGG, ["--seed", "-4"], "train.seed", "-4"),
        (CENTERNET, ["--finetune_ckpt=a"], "train.resume_from", "a"),
        (CENTERNET, ["--checkpoint_every_n=1000"], "train.checkpoint_every", "1000"),
        (CENTERNET, ["--num_steps_per_iter=100"], "train.log_every", "100"),
        (CENTERNET, ["--use_gpus=True"], "train.device", "gpu"),
        # Two flags that agree are no contradiction.
        (SSD, ["--save_summary_steps=10", "-v", "10", "--log_every=10"], "train.log_every", "10"),
        # --gin_params wins over every flag.
        (SSD, ["--k=2", "--gin_params=WarmupCosine.stretch = 3"], "WarmupCosine.stretch", "3"),
    ],
)
def test_what_a_flag_sets(recipe, words, parameter, value):
    assert settings([*recipe, *words], parameter) == [value]


@pytest.mark.parametrize(
    ("recipe", "words", "parameter"),
    [
        (SSD, ["--profile=0,0"], "train.profile"),
        (SSD, ["--use_amp=False"], "build_detector.dtype"),
        (FPN, ["--fine_tune_checkpoint="], "train.fine_tune_checkpoint"),
        (CENTERNET, ["--use_gpus=False"], "train.device"),
        (SSD, ["--use_performance=False", "--steps=0"], "train.steps"),
    ],
)
def test_what_leaves_the_recipe_as_it_is(recipe, words, parameter):
    with parsed_recipe([*recipe, *words]), pytest.raises(ValueError, match="Configurable|bound"):
        gin.query_parameter(parameter)


@pytest.mark.parametrize(
    ("recipe", "words", "message"),
    [
        (SSD, ["--use_amp", "--dtype=bf16"], "--use_amp and --dtype=bf16 set the same thing"),
        (SSD, ["--steps=5", "--num_train_steps=6"], "--steps=5 and --num_train_steps=6"),
        (SSD, ["--steps=5", "--num_steps=6"], "5 and 6: give one of them"),
        (SSD, ["--batch_size=auto", "-b", "4"], "--batch_size=auto and -b 4 set the same thing"),
        (SSD, ["-b=8", "--batch-size", "4"], r"-b=8 and --batch-size 4 .* \(--batch_size\) to 8"),
        (SSD, ["--steps=5", "-s", "6"], "--steps=5 and -s 6 set the same thing"),
        (SSD, ["--batch_size=x"], "expected a whole number of 1 or more or auto"),
        (SSD, ["--batch_size=0"], "expected a whole number of 1 or more or auto"),
        (SSD, ["-v", "1", "--save_summary_steps=10"], r"\(--log_every\) to 1 and 10"),
        (SSD, ["--work_dir=other"], "--work_dir=other and --model_dir=m"),
        (SSD, ["--do_train=False", "--mode=train"], "--do_train=False and --mode=train"),
        (SSD, ["--static", "--use_fake_data"], "two sources"),
        (SSD, ["--profile=a,b"], "expected the first and the last step"),
        (CENTERNET, ["--k=3"], "--k=3.0 has no effect .* StepDecay"),
        (FPN, ["--lr_warmup_epoch=5"], "--lr_warmup_epoch=5.0 .* WarmupCosineSteps"),
        (FPN, ["--hvd_device=cuda"], "auto|cpu|gpu"),
    ],
)
def test_contradictions_and_flags_without_effect(recipe, words, message):
    with pytest.raises(flags.Error, match=message), parsed_recipe([*recipe, *words]):
        pass


@pytest.mark.parametrize("row", REPLACED, ids=lambda row: row.name)
def test_a_flag_that_is_not_accepted_is_told_what_replaces_it(row):
    for written in (f"--{row.name}", f"--{row.name.replace('_', '-')}=4"):
        with pytest.raises(flags.Error, match=re.escape(row.by.removeprefix("nothing: "))):
            train.rewrite_arguments(["--model_dir=a", written])


@pytest.mark.parametrize("value", MODES)
def test_a_mode_that_is_called_otherwise(value):
    with pytest.raises(flags.Error, match=f"--mode={value} of .* is, here: .*{MODES[value]}"):
        train.rewrite_arguments([f"--mode={value}"])


def test_of_one_name_the_last_value_counts():
    """Scripts append what their user gives; equal values are no contradiction."""
    for words in (["--batch_size=8", "--batch_size=4"], ["-b", "8", "-b", "4", "--batch_size=4"]):
        with parsed("train", words) as values:
            assert values.batch_size == 4
    with parsed("train", ["-e", "5", "--epochs=5.0", "-f", "--use_fake_data"]) as values:
        assert values.epochs == 5.0 and values.use_fake_data


def test_auto_is_known_in_any_case():
    for word in ("Auto", "AUTO", "auto"):
        with parsed("train", [f"--batch_size={word}"]) as values:
            assert values.batch_size == "auto"
        with (
            pytest.raises(flags.Error, match="only train"),
            parsed("benchmark", ["--batch_size", word]),
        ):
            pass


def test_only_names_are_rewritten():
    words = ["--work-dir", "a-b", "--data-path=c-d", "-b=4", "-5", "-", "--", "-b"]
    expected = ["--work_dir", "a-b", "--data_path=c-d", "--batch_size=4", "-5", "-", "--", "-b"]
    assert train.rewrite_arguments(words) == expected


def test_every_row_is_a_flag_once():
    names = [row.name for row in (*SAME, *ALIASES, *REPLACED)]
    assert len(names) == len(set(names))
    assert all(set(row.systems) <= set(SYSTEMS) for row in (*SAME, *ALIASES, *REPLACED))
    with parsed("train", []) as values:
        for row in (*SAME, *ALIASES):
            assert row.name in values
            for setting in getattr(row, "sets", ()):
                assert "." in setting or setting in values, (row.name, setting)
        assert not [row.name for row in REPLACED if row.name in values]


def _reference_flags():
    """Names in the flag tables of the specifications, by system."""
    found = set()
    for page in ("ssd_resnet34", "ssd320_resnet50_fpn", "ssd_vgg16", "centernet"):
        inside = False
        for line in (REFERENCE / f"{page}.md").read_text(encoding="utf-8").splitlines():
            inside = re.match(r"\| *flag *\|", line, re.IGNORECASE) is not None or (
                inside and line.startswith("|")
            )
            if inside:
                for name in re.split(r",| / ", line.split("|")[1]):
                    name = re.sub(r" ?\(.*\)|`", "", name).strip().lstrip("-").replace("-", "_")
                    found.add(name)
    return {name for name in found if len(name) > 1 or name == "k"} - {"flag", "Flag", "___", ""}


def test_every_flag_of_the_specifications_has_a_row():
    known = {row.name for row in (*SAME, *ALIASES, *REPLACED)}
    found = _reference_flags()
    assert len(found) > 60
    assert sorted(found - known) == []


def test_the_page_of_flags_is_that_of_the_code():
    written = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
    assert written == flags_doc.document(), (
        "write it again: python -m tools.flags_doc docs/flags.md"
    )
    assert "| k | R |" in written and "--num_steps=INT" in written


def test_help_lists_the_names_of_other_systems():
    with parsed("train", []) as values:
        modules = {row.name: values.find_module_defining_flag(row.name) for row in ALIASES}
    assert set(modules.values()) == {_vendor_flags.__name__}
