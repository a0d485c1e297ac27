"""The commands that are killed, what they begin with, and what must hold in every state.

Their inputs are made once, by the same commands: rendered pictures, records, a trained run.
"""

from __future__ import annotations

import importlib.util
import tarfile
from pathlib import Path

from PIL import Image

from tests.faults.checks import (
    STUDIED,
    archived,
    below,
    evaluation_is_whole,
    exported,
    pictures_are_whole,
    records_are_of_one,
    reported,
    studied,
    together,
    trained,
)
from tests.faults.harness import Command
from tests.process import cli
from tests.tiny import TINY_RECIPE

_SETTINGS = """
train.steps = 4
train.checkpoint_every = 2
train.evaluate_every = 2
train.eval_split = 'coco_val'
"""
# One training of one step, as each state goes on with it.
_STUDY = """
base: {{gin_file: {inputs}/recipe.gin, data_dir: {inputs}/data, num_steps: 1, device: cpu}}
variants: {{}}
seeds: [0]
"""
_SIZES = ("--num_train=4", "--num_val=3", "--min_size=60", "--max_size=90")
_ENDINGS = ("data-00000-of-00001", "index", "meta")
# A recipe of the tests, whose run is not worth a word about its classes.
_OTHER_SHAPES = "--shapes=star,disc"


def make_inputs(base: Path, python) -> Path:
    """Make what the commands read, and return its folder.

    `shapes` and `others` are rendered pictures of other classes, `data` records of the first,
    `run` a run with two checkpoints, with its recipe and a study of that, `detections-STEP.json`
    what these detect, `frames` the pictures of a video, `mirror` published weights, which are not
    opened.
    """
    folder = base / "inputs"
    folder.mkdir()
    (folder / "recipe.gin").write_text(TINY_RECIPE + _SETTINGS)
    (folder / "study.yaml").write_text(_STUDY.format(inputs=folder))

    def command(*arguments) -> None:
        cli(*arguments, python=python, cwd=folder)

    command("make_synthetic", "--output_dir=shapes", *_SIZES)
    command("make_synthetic", "--output_dir=others", *_SIZES, _OTHER_SHAPES)
    for split in ("train", "val"):
        command(*_convert(folder, "shapes", split))
    train = ("train", "--gin_file=recipe.gin", "--data_dir=data", "--model_dir=run")
    command(*train)
    for step in (2, 4):
        command(
            "evaluate",
            f"--checkpoint=run/ckpt-{step}",
            "--model_dir=run",
            "--data_dir=data",
            f"--output_dir=evaluation-{step}",
        )
    (folder / "frames").mkdir()
    for path in (folder / "shapes" / "val").iterdir():
        Image.open(path).resize((64, 48)).save(folder / "frames" / f"{path.stem}.png")
    _mirror(folder / "mirror")
    return folder


_OF_RESNET34 = ("checkpoint", *(f"model.ckpt-28152.{e}" for e in _ENDINGS))


def _mirror(folder: Path) -> None:
    """Write weights of the names of two publications that give no checksums."""
    (folder / "resnet34_mlperf").mkdir(parents=True)
    for number, name in enumerate(_OF_RESNET34):
        (folder / "resnet34_mlperf" / name).write_bytes(bytes([number]) * 1000)
    (folder / "resnet50_v1_slim").mkdir()
    (folder / "resnet_v1_50.ckpt").write_bytes(bytes(1000))
    archive = folder / "resnet50_v1_slim" / "resnet_v1_50_2016_08_28.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder / "resnet_v1_50.ckpt", "resnet_v1_50.ckpt")


def _convert(inputs: Path, pictures: str, split: str, output: str = "data") -> tuple[str, ...]:
    source = inputs / pictures
    return (
        "convert",
        f"--annotations={source}/annotations/instances_{split}.json",
        f"--image_dir={source}/{split}",
        f"--output_dir={output}",
        f"--split={split}",
        "--num_shards=2",
        "--name=coco",
    )


def commands(inputs: Path) -> dict[str, Command]:
    """Return the commands by name.

    Args:
        inputs: of `make_inputs`.
    """
    listed = (*_of_data(inputs), *_of_a_run(inputs), *_trainings(inputs), *_of_weights(inputs))
    if importlib.util.find_spec("cv2") is None:  # Which writes videos.
        listed = [one for one in listed if one.name != "predict a video"]
    return {one.name: one for one in listed}


def _of_data(inputs: Path) -> list[Command]:
    synthetic = ("make_synthetic", "--output_dir=shapes", *_SIZES)
    static = ("make_static", f"--gin_file={inputs}/recipe.gin", f"--data_dir={inputs}/data")
    static += ("--output_dir=static", "--num_steps=2")
    return [
        Command("make_synthetic", "shapes", synthetic, check=pictures_are_whole),
        Command(
            "make_synthetic --overwrite",
            "shapes",
            (*synthetic, _OTHER_SHAPES, "--overwrite"),
            before=(synthetic,),
            check=pictures_are_whole,
        ),
        Command(
            "convert",
            "data",
            _convert(inputs, "shapes", "val"),
            before=(_convert(inputs, "shapes", "train"),),
            check=records_are_of_one("coco_val"),
        ),
        Command(
            "convert --overwrite",
            "data",
            (*_convert(inputs, "others", "train"), "--overwrite"),
            before=(_convert(inputs, "shapes", "train"),),
            check=records_are_of_one("coco_train"),
        ),
        Command(
            "convert --name",
            "data",
            (*_convert(inputs, "shapes", "val"), "--name=birds"),
            before=(_convert(inputs, "shapes", "train"),),
            check=records_are_of_one("birds_val"),
        ),
        Command(
            "make_static --overwrite",
            "static",
            (*static, "--seed=2", "--overwrite"),
            before=((*static, "--seed=1"),),
            check=together("worker_0/static.json", always=True),
        ),
    ]


def _of_a_run(inputs: Path) -> list[Command]:
    data, run = f"--data_dir={inputs}/data", f"--model_dir={inputs}/run"
    first, second = "--checkpoint=ckpt-2", "--checkpoint=ckpt-4"
    evaluate = ("evaluate", "--model_dir=run", data, "--report")
    predict = ("predict", f"{inputs}/shapes/val", run, "--contact_sheet")
    predict += ("--output_dir=predictions",)
    video = ("predict", f"{inputs}/frames", run, "--fps=5", "--min_score=0")
    video += ("--output_dir=predictions",)
    export = ("export", run, data, "--output=out/model")
    truth = f"--annotations={inputs}/data/coco_val.annotations.json"
    score = ("evaluate", truth, "--output_dir=scores", "--report")
    detections = [f"--detections={inputs}/evaluation-{n}/detections.json" for n in (2, 4)]
    return [
        Command(
            "evaluate",
            "run",
            (*evaluate, second),
            copied=inputs / "run",
            before=((*evaluate, first),),
            readers=(("report", "run"),),
            content=lambda state: below(state, "evaluation"),
            check=together("evaluation/metrics.json"),
        ),
        Command(
            "evaluate a file",
            "scores",
            (*score, detections[1]),
            before=((*score, detections[0]),),
            check=together("metrics.json"),
        ),
        Command(
            "predict",
            "predictions",
            (*predict, second),
            before=((*predict, first),),
            check=together("images.json"),
        ),
        Command(
            "predict a video",
            "predictions",
            (*video, second),
            before=((*video, first),),
            check=together("frames.jsonl"),
        ),
        Command(
            "export --overwrite",
            "out",
            (*export, second, "--overwrite"),
            before=((*export, first),),
            content=exported,
            check=together("model/model_card.json", always=True),
        ),
        Command(
            "report",
            "out",
            ("report", f"{inputs}/run", "--output=out/report.html"),
            content=reported,
        ),
    ]


def _trainings(inputs: Path) -> list[Command]:
    recipe, data = f"--gin_file={inputs}/recipe.gin", f"--data_dir={inputs}/data"
    pictures = inputs / "shapes"
    own = ("train", recipe, "--model_dir=run", "--steps=1", "--gin_params=train.evaluate_every = 0")
    own += (f"--annotations={pictures}/annotations/instances_train.json",)
    own += (f"--image_dir={pictures}/train",)
    return [
        Command(
            "train",
            "run",
            ("train", recipe, data, "--model_dir=run"),
            readers=(("report", "run"), ("evaluate", "--model_dir=run", "--output_dir=elsewhere")),
            content=trained,
            aside="damaged",
            check=evaluation_is_whole,
        ),
        Command("train on annotations", "run", own, content=trained, aside="damaged"),
        Command(
            "train on corrected ones",
            "run",
            own,
            before=(_convert(inputs, "others", "train", "run/data"),),
            content=trained,
            aside="damaged",
        ),
        Command(
            "ablate",
            "out",
            ("ablate", f"--study={inputs}/study.yaml", "--output_dir=out"),
            readers=(("ablate", f"--study={inputs}/study.yaml", "--output_dir=out", "--report"),),
            content=studied,
            aside=f"{STUDIED}/damaged",
            starts=True,
        ),
    ]


def _of_weights(inputs: Path) -> list[Command]:
    variables = {
        "SSD_CENTERNET_WEIGHTS": "cache",
        "SSD_CENTERNET_WEIGHTS_MIRROR": (inputs / "mirror").as_uri(),
    }
    convert = ("weights", "convert", "--output=out/model.keras", f"--gin_file={inputs}/recipe.gin")
    convert += (f"--label_map={inputs}/data/mscoco_label_map.pbtxt",)
    of_step = [f"{inputs}/run/ckpt-{step}" for step in (2, 4)]
    return [
        Command(
            f"weights fetch {name}",
            "cache",
            ("weights", "fetch", name),
            readers=(("weights", "check"),),
            variables=variables,
        )
        for name in ("resnet34_mlperf", "resnet50_v1_slim")
    ] + [
        Command(
            "weights convert",
            "out",
            (*convert, of_step[1]),
            before=((*convert, of_step[0]),),
            content=archived,
        )
    ]
