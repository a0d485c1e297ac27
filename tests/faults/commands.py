"""The commands that are killed, what they begin with, and what must hold in every state.

Their inputs are made once, by the same commands: rendered pictures, records, a trained run.
"""

from __future__ import annotations

from pathlib import Path

from tests.faults.checks import (
    below,
    evaluation_is_whole,
    exported,
    pictures_are_whole,
    records_are_of_one,
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
_SIZES = ("--num_train=4", "--num_val=3", "--min_size=60", "--max_size=90")
# A recipe of the tests, whose run is not worth a word about its classes.
_OTHER_SHAPES = "--shapes=star,disc"


def make_inputs(base: Path, python) -> Path:
    """Make what the commands read, and return its folder.

    `shapes` and `others` are rendered pictures of other classes, `data` records of the first,
    `run` a run with two checkpoints and its recipe, `detections-STEP.json` what these detect.
    """
    folder = base / "inputs"
    folder.mkdir()
    (folder / "recipe.gin").write_text(TINY_RECIPE + _SETTINGS)

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
    return folder


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
    listed = (*_of_data(inputs), *_of_a_run(inputs), *_trainings(inputs))
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
            "export --overwrite",
            "out",
            (*export, second, "--overwrite"),
            before=((*export, first),),
            content=exported,
            check=together("model/model_card.json", always=True),
        ),
        Command("report", "out", ("report", f"{inputs}/run", "--output=out/report.html")),
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
    ]
