"""Every run script, run: bash resolves its command in smoke mode, and this process runs that.

A real run of a script costs the imports of a process and more; test_run_scripts.py has one with one
process and one with two. Here nothing but the process is spared: the commands are those that the
scripts would start, with all their flags.
"""

import json
import re
import shlex
import subprocess
import sys

import pytest

from ssd_centernet import config
from tests.narrow import TRAINED_BY_SCRIPTS
from tests.process import ROOT, environment
from tests.scripts.in_process import command
from tests.scripts.test_run_scripts import (
    EXPECTED,
    LATENCIES,
    OTHERS,
    dry_run,
    environment_says_nothing,
)
from tests.training.test_observers import traced_steps

COCO_LINE = " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = "
# One keeps the pictures that a run draws.
WITH_PICTURES = "ssd320/Horovod_SSD_AMP_1E_8MLUs"
NO_PICTURES = "--gin_params=train.pictures = 0"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with the rendered scenes, as SMOKE=1 makes them."""
    folder = tmp_path_factory.mktemp("smoke")
    sizes = ("--num_train=8", "--num_val=4", "--min_size=60", "--max_size=90")
    command(("make_synthetic", f"--output_dir={folder}/coco", *sizes))
    for split in ("train", "val"):
        annotations = f"--annotations={folder}/coco/annotations/instances_{split}.json"
        images = f"--image_dir={folder}/coco/{split}"
        places = (annotations, images, f"--output_dir={folder}/data", "--name=coco")
        command(("convert", *places, f"--split={split}"))
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Published weights are neither on this machine nor to be fetched."""
    monkeypatch.setenv("SSD_CENTERNET_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("SSD_CENTERNET_WEIGHTS_MIRROR", "file:///nowhere")


@pytest.fixture(scope="module")
def ran(place):
    """Run the command of a script; returns the folder of its run and what it printed.

    Scripts that only differ in what SMOKE=1 sets, or in processes, have the same command: it is
    run once.
    """
    printed = {}

    def run(name, *arguments):
        words = dry_run(name, *arguments, SMOKE="1", SMOKE_DIR=place)
        if words[0] == "launch":
            # As one process, which the launcher would start.
            words = words[words.index("--") + 1 :]
        same = resolved(words)
        if same not in printed:
            if words[0] == "train" and name != WITH_PICTURES:
                words.append(NO_PICTURES)
            printed[same] = name, command(words)
        return printed[same]

    return run


def test_the_recipes_of_the_scripts_are_known():
    """No other test need train them for a step."""
    texts = [" ".join(dry_run(name, SMOKE="1", SMOKE_DIR="S")) for name in EXPECTED]
    assert {re.search(r"--gin_file=(\w+)", text)[1] for text in texts} == {*TRAINED_BY_SCRIPTS}


def resolved(words):
    """A command without the name of the run that it makes, and each flag as it is given last."""
    flags = {}
    for word in words[1:]:
        name, _, value = word.partition("=")
        several = name in ("--gin_file", "--gin_params")
        flags[name] = (*flags.get(name, ()), value) if several else (value,)
    if words[0] == "train":
        del flags["--model_dir"]
    return words[0], *sorted(flags.items())


def test_a_command_is_its_last_flags():
    ours = ["train", "--gin_file=a", "--batch_size=9", "--model_dir=x", "--gin_file=b"]
    same = resolved([*ours, "--batch_size=2"])
    assert same == resolved(
        ["train", "--gin_file=a", "--gin_file=b", "--model_dir=y", "--batch_size=2"]
    )
    assert same != resolved(ours)
    assert same != resolved([*ours, "--batch_size=2", "--amp"])
    assert same != resolved([*ours, "--batch_size=2", "--gin_file=c"])


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_training(name, ran, place):
    done, said = ran(name)
    folder = place / done
    assert f"finished: {folder}" in said and (folder / "ckpt-3.index").exists()
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["total"] > 0
    # What the run saved is enough to build it again.
    config.parse([folder / "config.gin"])
    config.clear()
    settings = (folder / "config.gin").read_text()
    wanted = EXPECTED[name][1]
    if "dtype" in wanted:
        assert f"build_detector.dtype = '{wanted['dtype']}'" in settings
    evaluates = "train.evaluate_every = 0" not in settings
    assert evaluates == (folder / "evaluation").exists() == (COCO_LINE in said)
    if wanted.get("use_performance"):
        summary = json.loads((folder / "summary" / "summary.json").read_text())
        assert summary["overall_stats"]["throughput_mean"] > 0
    if name == "ssd_resnet34/profile":
        assert traced_steps(folder) == [1, 2]
    assert "starting from random weights" in said and "nowhere" not in said
    assert (folder / "pictures").exists() == (done == WITH_PICTURES)


def trained_by(name):
    """The training script whose run a script reads."""
    words = dry_run(name, SMOKE="1", SMOKE_DIR="S")
    return next(word for word in words if word.startswith("--model_dir=")).partition("S/")[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_of_a_run(name, ran, place):
    trained = trained_by(name)
    done, _ = ran(trained)
    if done != trained and not (place / trained).exists():  # It was made for another script.
        (place / trained).symlink_to(place / done)
    if OTHERS[name] == "predict":
        _, said = ran(name, "--min_score=0", f"{place}/coco/val")
        assert len(list((place / trained / "predictions").glob("*.png"))) == 4, said
        return
    _, said = ran(name)
    assert said.count(COCO_LINE) == 1
    metrics = json.loads((place / trained / "evaluation" / "metrics.json").read_text())
    assert metrics["num_images"] == 4 and metrics["checkpoint"].endswith("ckpt-3")


@pytest.mark.slow
@pytest.mark.parametrize("name", LATENCIES)
def test_latency(name, ran):
    line = json.loads(ran(name, "--json")[1].splitlines()[-1])
    assert line["iterations"] == 2 and line["image_size"] == [96, 96] and line["latency_ms"] > 0


# Programs of the originals -----------------------------------------------------------------------


def compat(program, *arguments, cwd, **variables):
    """The words that a program of scripts/compat would run in smoke mode."""
    unset = environment_says_nothing()
    env = environment(**{**unset, "DRY_RUN": 1, "SMOKE": 1, **variables})
    path = ROOT / "scripts" / "compat" / program
    ended = subprocess.run(
        [sys.executable, path, *map(str, arguments)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return shlex.split(ended.stdout)[1:]


@pytest.mark.slow
def test_ssd_py_trains_on_the_names_of_its_converter_and_is_evaluated(place, tmp_path):
    data = tmp_path / "ssd_tf_records"
    data.mkdir()
    for path in (place / "data").glob("coco_*.record-*"):
        split, _, number = path.name.removeprefix("coco_").partition(".record")
        (data / f"{split}{number}.tfrecord").symlink_to(path)
    (data / "mscoco_label_map.pbtxt").symlink_to(place / "data" / "mscoco_label_map.pbtxt")
    run = tmp_path / "ssd_1_hpu"
    common = ("--model_dir", run, "--data_dir", data)
    line = ("-e", 64, "-b", 128, "-d", "bf16", *common, "--save_summary_steps", 10)
    said = command([*compat("ssd.py", *line, cwd=tmp_path), NO_PICTURES])
    assert f"finished: {run}" in said and not (run / "evaluation").exists()
    words = compat("ssd.py", "--mode", "eval", *common, "--resnet_checkpoint", "r", cwd=tmp_path)
    said = command(words)
    assert "step 3: AP " in said and COCO_LINE in said


@pytest.mark.slow
def test_model_main_trains_on_links_of_env_sh(place, tmp_path):
    env = {"DATASET": place / "data"}
    line = """--batch_size=32 --pipeline_config_path=models/configs/ssd320_full_8mlus.config
        --num_steps=1000 --do_train=True --fine_tune_checkpoint= --model_dir=m --use_horovod=False
        --hvd_device=cpu --use_amp=True --use_performance=False --use_profiler=False""".split()
    words = compat("model_main.py", *line, cwd=tmp_path, **env)
    assert f"--data_dir={place}/data" in words
    words[words.index("--model_dir=m")] = f"--model_dir={tmp_path}/m"
    assert COCO_LINE in command([*words, NO_PICTURES])


@pytest.mark.slow
def test_centernet_train_runs(place, tmp_path):
    line = """--mode=train --num_workers=1 --checkpoint_every_n=1000 --eval_on_train_data=False
        --pipeline_config_path=./models/mlu_centernet_config.config --batch_size=8
        --num_train_steps=140000 --num_steps_per_iter=100 --do_train=True --use_gpus=False
        --use_profiler=False --use_performance=True --use_amp=False""".split()
    run = tmp_path / "mlu_model"
    words = compat(
        "centernet_train.py", *line, f"--model_dir={run}", cwd=tmp_path, DATA_DIR=place / "data"
    )
    assert "summary.json" in command([*words, NO_PICTURES])
    line = (
        f"--model_dir={run}",
        f"--checkpoint_dir={run}",
        "--load_latest_ckpt_continuously=False",
    )
    assert COCO_LINE in command(
        compat("centernet_train.py", *line, "--do_train=False", cwd=tmp_path)
    )


@pytest.mark.slow
def test_tools_train_and_test_take_coco_as_it_is(place, tmp_path):
    coco = tmp_path / "data" / "coco"
    (coco / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        source = place / "coco" / "annotations" / f"instances_{split}.json"
        (coco / "annotations" / f"instances_{split}2017.json").symlink_to(source)
        (coco / f"{split}2017").symlink_to(place / "coco" / split)
    run = tmp_path / "w"
    line = ("configs/ssd/ssd300_coco_npu.py", "--work-dir", run, "--seed", 7, "--no-validate")
    options = ("--cfg-options", "data.samples_per_gpu=2", "total_epochs=1", "--launcher", "none")
    words = compat("tools/train.py", *line, *options, cwd=tmp_path, DATA_DIR=coco)
    assert "COCO as it is downloaded" in command([*words, NO_PICTURES])
    assert (run / "ckpt-3.index").exists()
    line = ("configs/ssd/ssd300_coco_npu.py", run / "latest.pth", "--eval", "bbox")
    assert COCO_LINE in command(compat("tools/test.py", *line, cwd=tmp_path))
    speed = compat_answer("calc_fps.py", run / "metrics.jsonl", 1, 2, cwd=tmp_path)
    assert float(speed.removeprefix("FPS: ")) > 0


def compat_answer(program, *arguments, cwd):
    path = ROOT / "scripts" / "compat" / program
    words = [sys.executable, path, *map(str, arguments)]
    ended = subprocess.run(
        words, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_a_program_of_an_original_becomes_the_command(tmp_path):
    """The one real run: the process of the original's name becomes that of the command."""
    path = ROOT / "scripts" / "compat" / "ssd.py"
    line = ("-s", 3, "--no_hpu")
    env = environment(**environment_says_nothing(), SMOKE=1)
    ended = subprocess.run(
        [sys.executable, path, *map(str, line)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert "compat: ssd_centernet train --gin_file=ssd300_resnet34" in ended.stderr
    assert (tmp_path / "runs" / "smoke" / "compat" / "ssd" / "ckpt-3.index").exists()
    assert (tmp_path / "runs" / "smoke" / "data" / "mscoco_label_map.pbtxt").exists()


def test_programs_without_data_take_the_rendered_scenes(tmp_path):
    for program, name, line in (
        ("ssd.py", "ssd", ("-e", 1)),
        ("tools/train.py", "train", ("configs/ssd/ssd300_coco_npu.py", "--gpus", 8)),
    ):
        words = compat(program, *line, cwd=tmp_path)
        assert "--data_dir=runs/smoke/data" in words
        runs = [word for word in words if word.startswith("--model_dir=")]
        assert runs[-1] == f"--model_dir=runs/smoke/compat/{name}"
        assert ("--num_processes=2" in words) == (name == "train")
    assert not list(tmp_path.iterdir())
    words = compat("ssd.py", "--model_dir", "m", cwd=tmp_path, SMOKE_DIR="S", DATA_DIR="D")
    assert "--data_dir=D" in words and words[-1] != "--model_dir=S/compat/ssd"
    assert [word for word in words if word.startswith("--model_dir=")] == ["--model_dir=m"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (("ssd.py", "--nosuch"), "ssd.py has no option --nosuch"),
        (("model_main_tf2.py", "--pipeline_config_path=centernet.config"), "needs --model_dir"),
    ],
)
def test_a_mistake_in_a_line_is_told_in_smoke_mode_too(line, told, tmp_path):
    program, *words = line
    ended = subprocess.run(
        [sys.executable, ROOT / "scripts" / "compat" / program, *words],
        cwd=tmp_path,
        env=environment(**environment_says_nothing(), SMOKE=1),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2 and told in ended.stderr and "Traceback" not in ended.stderr
