"""The run scripts of the published systems: their commands parse, and some run end to end."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import sys
import zipfile

import gin
import pytest

from tests.cli.command_line import parsed, parsed_recipe
from tests.process import ROOT, environment, run

SYSTEMS = ("ssd_resnet34", "ssd320", "ssd_vgg16", "centernet")
SCRIPTS = sorted(p for s in SYSTEMS for p in (ROOT / "scripts" / s).glob("*.sh"))
NEEDS_HOROVOD = pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="horovod is not installed"
)

# Script -> processes and the settings that the original's launch line has.
_R34 = {"batch_size": 128, "epochs": 64.0, "dtype": "bf16", "keep_checkpoints": 20}
_EACH_5 = {"checkpoint_every": "5.0 epochs"}
_FPN = {"batch_size": 32}
_AP_AT_THE_END = {"evaluate_every": 10**9}
_VGG = {"batch_size": 8, "dtype": "fp16"}
_CENTER = {"batch_size": 8, "steps": 140000, "log_every": "100", "checkpoint_every": "1000"}
_CENTER["keep_checkpoints"] = 7
EXPECTED = {
    "ssd_resnet34/train_1hpu_bf16": (1, {**_R34, **_EACH_5, "log_every": "10"}),
    "ssd_resnet34/train_1hpu_fp32": (1, {**_R34, **_EACH_5, "dtype": "fp32", "log_every": "1"}),
    "ssd_resnet34/train_1hpu_gaudi2": (1, {**_R34, **_EACH_5, "batch_size": 240}),
    "ssd_resnet34/train_8hpu_bf16": (
        8,
        {**_R34, "log_every": "10", "checkpoint_every": "64.0 epochs"},
    ),
    "ssd_resnet34/profile": (1, {"batch_size": 128, "steps": 100, "profile": (50, 53)}),
    "ssd320/SSD_Float32_1E_1MLU": (1, {**_FPN, **_AP_AT_THE_END, "steps": 100000, "device": "mlu"}),
    "ssd320/Horovod_SSD_Float32_1E_8MLUs": (
        8,
        {**_FPN, **_AP_AT_THE_END, "steps": 12500, "device": "mlu"},
    ),
    "ssd320/Horovod_SSD_AMP_1E_8MLUs": (8, {**_FPN, "steps": 12500, "dtype": "fp16"}),
    "ssd320/SSD320_FP16_1GPU": (1, {**_FPN, "steps": 100000, "dtype": "fp16"}),
    "ssd320/SSD320_FP16_4GPU": (4, {**_FPN, "steps": 25000, "dtype": "fp16"}),
    "ssd320/SSD320_FP16_8GPU": (8, {**_FPN, "steps": 12500, "dtype": "fp16"}),
    "ssd320/SSD320_FP32_1GPU": (1, {**_FPN, "steps": 100000, "device": "gpu"}),
    "ssd320/SSD320_FP32_4GPU": (4, {**_FPN, "steps": 25000}),
    "ssd320/SSD320_FP32_8GPU": (8, {**_FPN, "steps": 12500}),
    "ssd320/SSD320_benchmark": (1, {**_FPN, "dtype": "fp16", "use_performance": True}),
    "ssd_vgg16/train_full_1p": (1, {**_VGG, "epochs": 120.0, "device": "npu"}),
    "ssd_vgg16/train_full_8p": (8, {**_VGG, "epochs": 120.0}),
    "ssd_vgg16/train_performance_1p": (1, {**_VGG, "steps": 2000, "use_performance": True}),
    "ssd_vgg16/train_performance_8p": (8, {**_VGG, "epochs": 10.0, "use_performance": True}),
    "ssd_vgg16/train_performance_multinodes": (16, {**_VGG, "epochs": 5.0}),
    "centernet/Horovod_Centernet_Float32_8MLUs": (8, _CENTER),
    "centernet/Horovod_Centernet_AMP_8MLUs": (8, {**_CENTER, "dtype": "fp16"}),
    "centernet/Centernet_performance_8MLUs": (8, {"batch_size": 10, "use_performance": True}),
    "centernet/Centernet_performance_16MLUs": (16, {"batch_size": 10, "use_performance": True}),
    "centernet/hourglass104_8GPUs": (8, {"batch_size": 8, "steps": 280000, "dtype": "fp16"}),
    "centernet/hourglass104_TPU": (
        1,
        {"batch_size": 128, "steps": 140000, "dtype": "bf16", "strategy": "tpu"},
    ),
}
OTHERS = {  # Script -> command.
    "ssd_resnet34/evaluate": "evaluate",
    "ssd_resnet34/inference": "predict",
    "ssd320/infer_run_eager_SSD": "evaluate",
    "ssd320/SSD320_evaluate": "evaluate",
    "ssd_vgg16/train_eval_8p": "evaluate",
    "centernet/eval": "evaluate",
}
PREPARING = ["centernet/prepare_dataset"]
LATENCIES = {"ssd320/SSD320_FP16_inference": "fp16", "ssd320/SSD320_FP32_inference": "fp32"}


def name_of(path):
    return f"{path.parent.name}/{path.stem}"


def script(name, *arguments, cwd=ROOT, status=0, **variables):
    """Run a run script and return how it ended."""
    unset = environment_says_nothing()
    # Two processes that each take all cores only get in each other's way.
    threads = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), 1)
    env = environment(**{"PYTHON": sys.executable, **unset, **threads, **variables})
    return run("bash", ROOT / "scripts" / f"{name}.sh", *arguments, cwd=cwd, env=env, status=status)


def environment_says_nothing():
    """Variables that a script reads, unset."""
    names = ("DATA_DIR", "MODEL_DIR", "DEVICE", "DATASET", "DATASET_LABEL", "COCO_DIR", "BACKBONE")
    return dict.fromkeys((*names, "RESNET_CHECKPOINT"))


def dry_run(name, *arguments, **variables):
    """The words after `python -m ssd_centernet` of the last command that a script would run."""
    ended = script(name, *arguments, DRY_RUN="1", **variables)
    words = shlex.split(ended.stdout.splitlines()[-1])
    assert words[:3] == [sys.executable, "-m", "ssd_centernet"]
    return words[3:]


def training_flags(words):
    """(processes, flags of the training) of a command."""
    if words[0] == "train":
        return 1, words[1:]
    assert words[0] == "launch"
    split = words.index("--")
    assert words[split + 1] == "train"
    (count,) = [w.removeprefix("--num_processes=") for w in words[:split] if "processes" in w]
    with parsed("launch", words[1:split]):
        return int(count), words[split + 2 :]


def test_every_script_is_listed_and_says_where_it_comes_from():
    assert {name_of(path) for path in SCRIPTS} == {*EXPECTED, *OTHERS, *LATENCIES, *PREPARING}
    for path in SCRIPTS:
        assert os.access(path, os.X_OK), f"{path} is not executable"
        assert "# Original: " in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("name", EXPECTED)
def test_a_training_has_the_settings_of_the_original(name):
    processes, arguments = training_flags(dry_run(name))
    wanted_processes, wanted = EXPECTED[name]
    assert processes == wanted_processes
    with parsed_recipe(arguments) as values:
        for setting, value in wanted.items():
            owner = "build_detector" if setting == "dtype" else "train"
            assert gin.query_parameter(f"{owner}.{setting}") == value, setting
        assert values.model_dir == f"runs/{name}" and values.data_dir == "data/coco"


@pytest.mark.parametrize("name", EXPECTED)
def test_a_smoke_run_is_short_and_small_and_on_the_cpu(name):
    processes, arguments = training_flags(dry_run(name, SMOKE="1"))
    assert processes == min(2, EXPECTED[name][0])
    with parsed_recipe(arguments) as values:
        assert (values.num_steps, values.batch_size, values.device) == (3, 2, "cpu")
        assert values.data_dir == "runs/smoke/data" and values.model_dir == f"runs/smoke/{name}"
        assert gin.query_parameter("IMAGE_SIZE/gin.macro.value") == (96, 96)


@pytest.mark.parametrize("smoke", ["", "1"])
def test_arguments_win_under_any_name_over_those_of_a_script(smoke):
    name = "ssd320/SSD320_FP16_1GPU"
    given = ("-b", "4", "--epochs=2", "--dtype=fp32", "--use_gpus", "--do_train=True")
    with parsed_recipe(dry_run(name, *given, SMOKE=smoke)[1:]) as values:
        assert (values.batch_size, values.epochs, values.num_steps) == (4, 2.0, None)
        assert (values.dtype, values.device, values.mode) == ("fp32", "gpu", "train")
    given = (
        "--batch_size=16",
        "--steps",
        "7",
        "--profile=0,3",
        "--gin_params=IMAGE_SIZE = (64, 64)",
    )
    with parsed_recipe(dry_run("ssd_resnet34/profile", *given, SMOKE=smoke)[1:]) as values:
        assert (values.batch_size, values.num_steps, values.profile) == (16, 7, ["0", "3"])
        assert gin.query_parameter("IMAGE_SIZE/gin.macro.value") == (64, 64)


def test_arguments_win_over_a_smoke_run_of_latencies():
    words = dry_run("ssd320/SSD320_FP16_inference", "--benchmark_iters=5", "--device=gpu", SMOKE=1)
    with parsed("benchmark", words[1:]) as values:
        assert (values.warmup_iters, values.benchmark_iters, values.device) == (1, 5, "gpu")


def test_a_smoke_run_asks_for_no_weights_that_nobody_names():
    name = "ssd_vgg16/train_full_1p"
    assert "--from_scratch" in dry_run(name, SMOKE=1)
    assert "--from_scratch" not in dry_run(name)
    for named in (["--resume_from=a"], ["--fine-tune-checkpoint", "a"], ["--finetune_ckpt=a"]):
        assert "--from_scratch" not in dry_run(name, *named, SMOKE=1)
    assert "--from_scratch" not in dry_run(name, SMOKE=1, BACKBONE="a")
    ended = script("ssd_vgg16/train_full_1p", SMOKE=1, DRY_RUN=1, BACKBONE="a")
    assert "--fine_tune_checkpoint=a" in ended.stdout


@pytest.mark.parametrize("name", OTHERS)
def test_evaluations_and_predictions_read_the_run_of_a_training(name):
    words = dry_run(name, "--gin_params=a.b = 1")
    if name.endswith("_8p"):
        assert words[:3] == ["launch", "--num_processes=8", "--"]
        words = words[3:]
    assert words[0] == OTHERS[name]
    with parsed(words[0], words[1:]) as values:
        assert values.model_dir.removeprefix("runs/") in EXPECTED
        assert values.gin_params == ["a.b = 1"]


@pytest.mark.parametrize("name", LATENCIES)
def test_latencies_are_measured_as_in_the_original(name):
    command, *arguments = dry_run(name)
    assert command == "benchmark"
    with parsed(command, arguments) as values:
        assert (values.part, values.dtype, values.batch_size) == ("inference", LATENCIES[name], 1)
        assert (values.warmup_iters, values.benchmark_iters) == (100, 300)
    with parsed(command, dry_run(name, SMOKE="1")[1:]) as values:
        assert (values.warmup_iters, values.benchmark_iters, values.device) == (1, 2, "cpu")


def test_arguments_and_the_environment_win():
    name = "ssd_vgg16/train_full_1p"
    arguments = ("--data_path=coco", "--work-dir=w", "--epochs=2", "--seed", "7", "--device=gpu")
    words = dry_run(name, *arguments, RECIPE="ssd512_vgg16", BACKBONE="vgg.pth")
    with parsed_recipe(words[1:]) as values:
        assert (values.data_dir, values.model_dir, values.device) == ("coco", "w", "gpu")
        assert (values.epochs, values.seed, values.gin_file) == (2.0, 7, ["ssd512_vgg16"])
        assert values.fine_tune_checkpoint == "vgg.pth"
    words = dry_run(name, DATA_DIR="d e", MODEL_DIR="m", DEVICE="cpu")
    with parsed_recipe(words[1:]) as values:
        assert (values.data_dir, values.model_dir, values.device) == ("d e", "m", "cpu")


def test_the_two_words_that_nvidias_scripts_take_first():
    ended = script("ssd320/SSD320_FP16_8GPU", "/results", "/configs", "--seed", "7", DRY_RUN=1)
    assert "/configs is not read" in ended.stderr
    _, arguments = training_flags(shlex.split(ended.stdout)[3:])
    with parsed_recipe(arguments) as values:
        assert (values.model_dir, values.seed) == ("/results", 7)
    words = dry_run("ssd320/SSD320_evaluate", "/results", "--batch_size=4")
    assert "--model_dir=/results" in words and words[-1] == "--batch_size=4"
    assert dry_run("ssd320/SSD320_FP16_inference", "/configs") == dry_run(
        "ssd320/SSD320_FP16_inference"
    )


def test_a_python_without_packages_gives_way_to_that_of_the_checkout(tmp_path):
    programs = shutil.copytree(ROOT / "scripts" / "compat", tmp_path / "scripts" / "compat")
    line = (sys.executable, "-S", programs / "tools" / "train.py", "a b.py", "--gpus=2")
    ended = run(*line, status=1)
    assert "lacks the packages of this library" in ended.stderr and "setup.sh" in ended.stderr
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$#" "$2" "$3"\n')
    python.chmod(0o755)
    assert run(*line).stdout == "3 a b.py --gpus=2\n"


def test_records_and_label_map_of_another_tool(tmp_path):
    records, labels = tmp_path / "tfrecords", tmp_path / "labels.pbtxt"
    records.mkdir()
    labels.write_text("item { id: 1 name: 'cat' }")
    given = {"DATASET": records, "DATASET_LABEL": labels}
    words = dry_run("ssd320/SSD_Float32_1E_1MLU", **given)
    assert "--data_dir=data/coco2017_tfrecords/tfrecords" in words
    for _ in range(2):  # A second time, the links are there.
        script("centernet/prepare_dataset", cwd=tmp_path, **given)
    linked = tmp_path / "data" / "coco2017_tfrecords"
    assert (linked / "tfrecords").resolve() == records
    assert (linked / "mscoco_label_map.pbtxt").read_text() == labels.read_text()
    ended = script("centernet/prepare_dataset", cwd=tmp_path, status=1)
    assert "set DATASET to the folder of the records" in ended.stderr
    ended = script("centernet/prepare_dataset", cwd=tmp_path, status=1, DATASET="none")
    assert "DATASET=none is no folder" in ended.stderr


def test_links_that_were_made_are_used_without_their_variables(tmp_path):
    (tmp_path / "data" / "coco2017_tfrecords" / "tfrecords").mkdir(parents=True)
    for name in ("centernet/Horovod_Centernet_Float32_8MLUs", "centernet/eval"):
        words = dry_run(name, cwd=tmp_path)
        assert "--data_dir=data/coco2017_tfrecords/tfrecords" in words
        assert "--data_dir=d" in dry_run(name, cwd=tmp_path, DATA_DIR="d")
    assert "--data_dir=runs/smoke/data" in dry_run(name, cwd=tmp_path, SMOKE=1)


def test_an_evaluation_takes_the_names_that_a_training_takes():
    for given in (["--data_path=c d", "--work-dir=w"], ["--data-path", "c d", "--work_dir", "w"]):
        words = dry_run("ssd_vgg16/train_eval_8p", *given)
        with parsed("evaluate", words[words.index("evaluate") + 1 :]) as values:
            assert (values.data_dir, values.model_dir) == ("c d", "w")


def test_several_machines():
    words = dry_run("ssd_vgg16/train_performance_multinodes", HOSTS="a:8,b:8")
    assert "--hosts=a:8,b:8" in words[: words.index("--")]


def test_the_line_that_the_original_starts_on_each_machine():
    name = "ssd_vgg16/train_performance_multinodes"
    addresses = ("--local_addr=10.0.0.2", "--master_addr=10.0.0.1")
    line = ("--data_path=coco", "--batch_size=4", "--nnodes=3", *addresses)
    words = dry_run(name, *line, "--node_rank=0", HOSTS="a:8,b:8,c:8")
    assert words[:3] == ["launch", "--num_processes=24", "--hosts=a:8,b:8,c:8"]
    with parsed_recipe(words[words.index("train") + 1 :]) as values:
        assert (values.batch_size, values.data_dir) == (4, "coco")
    assert "are started from machine 0" in script(name, *line, "--node_rank=2").stdout
    ended = script(name, *line, "--node_rank=0", status=1)
    assert "HOSTS must name the machines" in ended.stderr
    assert dry_run(name, "--nnodes=1", "--node_rank=0")[1] == "--num_processes=8"


def test_coco_is_prepared_by_two_conversions():
    ended = script("prepare_coco", "/coco", DRY_RUN="1")
    commands = [shlex.split(line)[3:] for line in ended.stdout.splitlines()]
    for (command, *arguments), split in zip(commands, ("train", "val"), strict=True):
        assert command == "convert"
        with parsed("convert", arguments) as values:
            assert values.annotations == f"/coco/annotations/instances_{split}2017.json"
            assert (values.image_dir, values.split) == (f"/coco/{split}2017", split)
            assert (values.output_dir, values.name) == ("data/coco", "coco")
    assert script("prepare_coco", status=None).status != 0


def test_coco_is_fetched_once_and_unpacked(pictures, tmp_path, warm):
    folder, paths = pictures
    mirror, coco = tmp_path / "mirror", tmp_path / "coco"
    parts = {"annotations/annotations_trainval2017.zip": {}, "zips/train2017.zip": {}}
    parts["zips/val2017.zip"] = {}
    for split in ("train", "val"):
        parts["annotations/annotations_trainval2017.zip"] |= {
            f"annotations/instances_{split}2017.json": paths[split]
        }
        images = sorted((folder / split).iterdir())
        parts[f"zips/{split}2017.zip"] = {f"{split}2017/{image.name}": image for image in images}
    for name, files in parts.items():
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(mirror / name, "w") as archive:
            for inside, path in files.items():
                archive.write(path, inside)
    given = {"DOWNLOAD": 1, "COCO_URL": mirror.as_uri(), "PYTHON": warm}
    script("prepare_coco", coco, tmp_path / "records", cwd=tmp_path, **given)
    assert {path.name for path in coco.iterdir()} == {"annotations", "train2017", "val2017"}
    assert len(list((tmp_path / "records").glob("coco_*.annotations.json"))) == 2
    shutil.rmtree(mirror)  # Nothing is fetched again; what is converted already is told.
    ended = script("prepare_coco", coco, tmp_path / "records", cwd=tmp_path, **given)
    assert "file:" not in ended.stdout


# Whole runs ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, warm):
    """Run a script for real with SMOKE=1 in a directory of the tests."""
    place = tmp_path_factory.mktemp("smoke")

    def run_small(name, *arguments):
        small = {"SMOKE": 1, "SMOKE_DIR": place, "PYTHON": warm}
        ended = script(name, *arguments, cwd=place, **small)
        return place, ended.stdout

    return run_small


@pytest.mark.slow
def test_smoke_training_evaluation_and_inference(smoke):
    place, said = smoke("ssd_resnet34/evaluate")  # Trains first: there is no run yet.
    run = place / "ssd_resnet34" / "train_1hpu_bf16"
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    assert metrics["num_images"] == 4
    assert re.search(r"step +3/3", said)
    images = place / "coco" / "val"
    smoke("ssd_resnet34/inference", "--min_score=0", str(images))
    assert len(list((run / "predictions").glob("*.png"))) == 4


@NEEDS_HOROVOD
@pytest.mark.slow
def test_smoke_on_two_processes(smoke):
    name = "centernet/Centernet_performance_8MLUs"
    place, said = smoke(name)
    assert "batch 4, 2 processes" in said
    assert (place / name / "ckpt-3.index").exists()
    summary = json.loads((place / name / "summary" / "summary.json").read_text())
    assert summary["overall_stats"]["batch_size"] == 4
    assert said.count("summary.json") == 1  # Of the first process alone.
