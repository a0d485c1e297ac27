"""Command lines of the published systems become commands of this library."""

import os
import re
import shlex

import gin
import pytest
from absl import flags

from ssd_centernet.cli import compat
from ssd_centernet.cli.originals.lines import PROGRAMS, translate_line
from ssd_centernet.cli.originals.mmdetection import VISIBLE
from ssd_centernet.cli.originals.options import Given
from ssd_centernet.cli.originals.program_help import meaning
from tests.cli.command_line import parsed, parsed_recipe
from tests.cli.test_vendor_flags import REFERENCE
from tests.cli.vendor_lines import OTHERS, TRAININGS, split, training_of
from tests.process import ROOT
from tests.scripts.in_process import command


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A directory with no data, and an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("DEVICE", "DATASET", "DATA_DIR", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("line", "processes", "wanted"), TRAININGS)
def test_a_training(line, processes, wanted):
    plan = translate_line(split(line))
    assert plan.processes == processes and (plan.command[0] == "launch") == (processes > 1)
    by_mpi = "--engine=mpi" in plan.command
    assert by_mpi == (line.startswith("mpirun") and processes > 1)
    assert ("use_horovod" in shlex.join(plan.command)) == by_mpi or processes == 1
    first, *arguments = training_of(plan.command)
    assert first == "train"
    with parsed_recipe(arguments) as values:
        for setting, value in wanted.items():
            owner = "build_detector" if setting == "dtype" else "train"
            name = setting if "." in setting else f"{owner}.{setting}"
            assert gin.query_parameter(name) == value, setting
        assert values.model_dir and values.data_dir


@pytest.mark.parametrize("line", OTHERS)
def test_other_commands(line):
    plan = translate_line(split(line))
    assert plan.command == OTHERS[line].split()
    words = training_of(plan.command)
    if words[0] != "predict":  # Its images are no flags.
        with parsed(words[0], words[1:]):
            pass


@pytest.mark.parametrize(
    ("line", "variables"),
    [
        (
            "model_main.py --pipeline_config_path=ssd320_bench.config --model_dir=m --allow_xla",
            {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2"},
        ),
        ("tools/train.py ssd300.py --deterministic", {"TF_DETERMINISTIC_OPS": "1"}),
        ("ssd.py --recipe_cache r", {"TF_RECIPE_CACHE_PATH": "r"}),
        ("A=1 B=c.d python3 ssd.py", {"A": "1", "B": "c.d"}),
    ],
)
def test_variables_that_a_line_needs(line, variables):
    assert translate_line(split(line)).environment == variables


def test_what_is_told(capsys):
    line = "mpirun --allow-run-as-root --bind-to core -x A=1 --np 2 ssd.py --max_cpus=16 -f"
    with parsed("compat", ["--dry_run", "--add=--device=cpu"]):
        assert compat.main(["compat", *split(line)]) == 0
    said = capsys.readouterr()
    launch = "ssd_centernet launch --num_processes=2 --engine=mpi"
    launch += " '--launcher_args=--bind-to core -x A=1' -- train --gin_file=ssd300"
    assert said.out.startswith(launch)
    assert said.out.endswith("--device=hpu --use_horovod --device=cpu\n")
    assert "typed by nobody: --mode=train --dtype=bf16 --batch_size=128" in said.err
    assert "of mpirun" not in said.err
    assert "--max_cpus=16 changes nothing" in said.err


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        ("ssd.py", ["--gin_file=ssd300_resnet34"]),
        (
            "ssd.py -e 64 -b 128 -d bf16 --model_dir m --mode train --data_dir d --no_hpu",
            "gin_file mode dtype batch_size epochs model_dir data_dir device".split(),
        ),
        ("tools/train.py configs/ssd/ssd300_coco_npu.py", ["--gin_file=ssd300_vgg16"]),
        (
            "model_main.py --model_dir=m --pipeline_config_path=models/configs/ssd320_bench.config",
            ["gin_file", "model_dir", "gin_params"],
        ),
        (
            "centernet.py --model_dir=m --pipeline_config_path=mlu_centernet_config.config",
            ["gin_file", "model_dir", "gin_params"],
        ),
    ],
)
def test_every_flag_that_nobody_typed_is_told(line, typed):
    plan = translate_line(split(line))
    typed = {name.removeprefix("--").partition("=")[0] for name in typed}
    rest = [word for word in plan.command[1:] if word not in plan.defaults]
    assert {word.removeprefix("--").partition("=")[0] for word in rest} <= typed, rest
    if "-e 64" in line:
        named = {word.partition("=")[0] for word in plan.defaults}
        assert not named & {f"--{name}" for name in typed}


def test_an_environment_that_says_something_is_the_users(monkeypatch):
    for name in ("DEVICE", "DATA_DIR"):
        monkeypatch.setenv(name, "cpu")
    for line in ("ssd.py", "tools/train.py ssd300_npu.py"):
        plan = translate_line(split(line))
        assert {"--device=cpu", "--data_dir=cpu"} <= {*plan.command} - {*plan.defaults}


def test_dashes_that_were_forgotten_are_told():
    for words, told in (
        ("compat ssd.py -e 3", "stands behind `--`: ssd_centernet compat -- ssd.py -e 3"),
        ("launch --num_processes=2 train --gin_file=a", "launch --num_processes=2 -- train"),
        ("launch --num_processes=2 train --lr=1", "launch --num_processes=2 -- train"),
        ("compat", "give a line of a published system after `--`, such as: ssd_centernet compat"),
    ):
        assert told in command(words.split(), status=2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ls -l", "none of the programs that are known: ssd.py, model_main.py"),
        ("srun ssd.py", "srun in front of the program is no launcher"),
        ("ssd.py --batchsize=3", r"ssd.py has no option --batchsize. Did you mean --batch_size"),
        ("ssd.py --device=cpu", "stands before the `--`: --add=--device=cpu"),
        ("ssd.py -b many", "expected a whole number"),
        ("ssd.py --epochs", "--epochs of ssd.py needs a value"),
        ("ssd.py --vis_dataloader", "cannot be taken over: `ssd_centernet show_inputs`"),
        ("ssd.py --mode test", "expected train or eval"),
        ("model_main.py --model_dir=m", "needs --pipeline_config_path, such as models/configs"),
        ("model_main.py --pipeline_config_path=a.config --model_dir=m", "no such file"),
        ("model_main.py --pipeline_config_path=ssd320_bench.config", "needs --model_dir"),
        (
            "centernet.py --model_dir=m --pipeline_config_path=ssd320_bench.config",
            "describes ssd320_resnet50_fpn, expected centernet_resnet101_fpn",
        ),
        ("centernet.py --model_dir=m --checkpoint_dir=m --num_workers=2", "put `horovodrun -np N`"),
        ("tools/train.py configs/yolo.py", "none that there is a recipe for"),
        ("tools/train.py", "got 0 words .* expected 1"),
        ("tools/train.py ssd300.py --launcher slurm", "Start `ssd_centernet launch"),
        ("tools/train.py ssd300.py --cfg-options model.neck=1", "model.neck=1 cannot be taken"),
        ("tools/train.py ssd300.py --cfg-options a", "expected KEY=VALUE"),
        ("tools/train.py ssd300.py --gpus 2 --gpu-ids 0", "exclude each other"),
        ("tools/test.py ssd300.py a/epoch_3.pth", "is a file of PyTorch"),
        ("tools/test.py ssd300.py a/latest.pth --show", "`ssd_centernet predict` draws"),
        ("torchrun --nnodes=2 --nproc_per_node=8 tools/train.py ssd300.py", "first:8,second:8"),
        ("horovodrun -np x ssd.py", "expected a number of processes"),
        ("mpirun --hostfile a -np 2 ssd.py", "such as -H first:8,second:8"),
        ("tools/dist_train.sh ssd300.py", "needs 1 words and the number of devices"),
        ("calc_fps.py a.json 8", "expected LOG GPU_NUMS BATCH_SIZE"),
    ],
)
def test_what_cannot_be_taken_over(line, message):
    with pytest.raises(flags.Error, match=message):
        translate_line(split(line))


def test_a_process_of_torch_is_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(flags.Error, match="put the whole line behind `ssd_centernet compat --`"):
        translate_line(split("tools/train.py ssd300.py --launcher pytorch"))


def test_visible_devices_are_those_of_the_plug_ins():
    from ssd_centernet.runtime.vendors import PLATFORMS

    plan = translate_line(split("tools/train.py ssd300_npu.py --gpu-ids 3"))
    assert plan.environment == {"ASCEND_RT_VISIBLE_DEVICES": "3"} and plan.processes == 1
    assert all(VISIBLE[kind] in PLATFORMS[kind.upper()].visible for kind in VISIBLE)


def _flags_of_section(page, number):
    """Names in the table of flags of a specification's section."""
    text = (REFERENCE / f"{page}.md").read_text(encoding="utf-8")
    section = re.search(rf"^##+ {re.escape(number)}\.? .*?(?=^##|\Z)", text, re.M | re.S)[0]
    rows = [row for row in section.splitlines() if row.startswith("|")]
    for row in rows[2:]:
        for name in re.split(r",| / ", row.split("|")[1]):
            yield re.sub(r" ?\(.*\)|`", "", name).strip().lstrip("-").replace("-", "_")


@pytest.mark.parametrize(
    ("page", "section", "program"),
    [
        ("ssd_resnet34", "15", "ssd.py"),
        ("ssd320_resnet50_fpn", "12.1", "model_main.py"),
        ("centernet", "7.1", "centernet.py"),
    ],
)
def test_every_flag_of_the_specifications_is_an_option(page, section, program):
    options = PROGRAMS[program].options
    known = {option.name for option in options} | {option.short for option in options}
    names = set(_flags_of_section(page, section))
    assert len(names) > 20 and names - known == set()


def test_every_option_is_understood_by_its_program():
    """Each with its default, or a value that is likely: none may be forgotten by `translate`."""
    for name, program in PROGRAMS.items():
        for option in program.options:
            assert not (option.nothing and option.refused), option
            given = Given(name, program.options, [f"--{option.name}=1"])
            assert option.name in given


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_of_a_program_says_what_each_option_is_here(name):
    options = PROGRAMS[name].options
    for asked in ("--help", "-h"):
        answer = translate_line(["horovodrun", "-np", "8", "python3", f"./{name}", asked]).answer
        assert answer.startswith(f"{name} of ") and "--dry_run" in answer
    for option in options:
        assert f"--{option.name}" in answer and len(meaning(option)) > 5, option
    assert max(map(len, answer.splitlines())) <= 100


def test_help_behind_the_dashes_is_that_of_the_program():
    said = command(["compat", "--", "ssd.py", "--help"])
    assert "-e, --epochs=FLOAT" in said and "(default: 50)" in said
    assert "Flags of compat" in command(["compat", "--help", "--", "ssd.py"])


# calc_fps ---------------------------------------------------------------------------------------


def test_speed_of_a_log(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text(
        '{"kind": "train", "step": 1}\n{"kind": "train", "step": 9, "images_per_second": 30.0}\n'
        '{"kind": "train", "step": 18, "images_per_second": 40.0}\n{"kind": "tr'
    )
    (run / "sessions.jsonl").write_text(
        '{"event": "begin", "step": 0, "time": 1.0, "images": 9, "global_batch_size": 16}\n'
    )
    line = ["python3.7", "calc_fps.py", "run/metrics.jsonl"]
    assert translate_line([*line, "2", "8"]).answer == "FPS: 35.00"
    with pytest.raises(flags.Error, match="16 images a step .* is 8"):
        translate_line([*line, "1", "8"])
    # The original's: lines from step 50 of an epoch are its start.
    (tmp_path / "a.log.json").write_text(
        '{"env_info": ""}\n'
        + "".join(
            f'{{"mode": "train", "epoch": {e}, "iter": {i}, "time": {t}}}\n'
            for e, i, t in ((1, 50, 9.0), (1, 100, 0.5), (1, 150, 0.25), (2, 100, 1.0))
        )
    )
    assert translate_line([line[1], "a.log.json", "8", "8"]).answer == "FPS: 128.00"
    (tmp_path / "empty.json").write_text("{}\n")
    with pytest.raises(flags.Error, match="no line of a training"):
        translate_line([line[1], "empty.json", "8", "8"])


def test_the_files_of_the_programs_are_there():
    for name in PROGRAMS:
        path = ROOT / "scripts" / "compat" / name
        assert os.access(path, os.X_OK), path
