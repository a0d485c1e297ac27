"""Train on tiles of one aerial picture; measure another one whole and in tiles.

    pip download deepforest==2.1.0 --no-deps
    unzip deepforest-2.1.0-py3-none-any.whl 'deepforest/data/*'
    python benchmarks/tiles.py --pictures=deepforest/data --output=tiles_measured

The pictures and 951 boxes of trees come with the package DeepForest (MIT licence). Three pictures
are trained on, another one is evaluated: no tree is in both. Prints a line for each way to evaluate
the same weights: AP50, the share of the trees that a box finds with an IoU of 0.5 or more, of those
below COCO's 32 x 32 pixels and of the others, the same of boxes with a score of 0.3 or more, how
many of these boxes are right, and seconds of the whole command.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

TRAINED = ("2019_YELL_2_528000_4978000_image_crop2", "OSBS_029", "SOAP_061")
MEASURED = ("2019_YELL_2_541000_4977000_image_crop",)
# More than there are trees in a picture: none is lost to the limit.
MOST = 1000
SMALL = 32.0**2
# Of the default recipe: one pass over a large picture keeps as many detections as count.
UNLIMITED = tuple(
    f"SigmoidSSDDecoder.{limit} = {MOST}" for limit in ("max_detections", "max_per_class")
)
SCORE = 0.3


def run(*words: str) -> float:
    """Run a command of the library; return its seconds."""
    command = [sys.executable, "-m", "ssd_centernet", *words]
    print("$ ssd_centernet", *words, flush=True)
    began = time.perf_counter()
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.perf_counter() - began


def convert(pictures: Path, output: Path, tiles: str) -> Path:
    """Convert the pictures: tiles to train on, whole ones to measure; return the folder."""
    data = output / "data" / "trees"
    output.mkdir(parents=True, exist_ok=True)
    (output / "classes.txt").write_text("Tree\n", encoding="utf-8")
    for split, stems, more in (("train", TRAINED, [f"--tiles={tiles}"]), ("val", MEASURED, [])):
        names = output / f"{split}.txt"
        names.write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
        run(
            "convert",
            f"--annotations={pictures}",
            "--format=voc",
            f"--image_list={names}",
            f"--label_map={output / 'classes.txt'}",
            "--drop_unknown_categories",
            f"--output_dir={data}",
            f"--split={split}",
            "--overwrite",
            *more,
        )
    return data


def train(data: Path, model_dir: Path, size: int, given: argparse.Namespace) -> float:
    """Train a small detector of the size of a tile; return the seconds."""
    words = [f"--gin_file={name}" for name in given.recipe]
    words += [f"--gin_params={line}" for line in given.gin_params]
    if given.weights:
        words.append(f"--fine_tune_checkpoint={given.weights}")
    return run(
        "train",
        *words,
        f"--gin_params=IMAGE_SIZE = ({size}, {size})",
        f"--data_dir={data}",
        "--mode=train",
        f"--model_dir={model_dir}",
        f"--num_steps={given.steps}",
        "--seed=0",
    )


def measure(data: Path, model_dir: Path, output: Path, *more: str) -> dict[str, float]:
    """Evaluate on the whole pictures; return numbers by name."""
    seconds = run(
        "evaluate",
        f"--model_dir={model_dir}",
        f"--data_dir={data}",
        "--split=val",
        f"--output_dir={output}",
        f"--max_detections={MOST}",
        *more,
    )
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    truth = json.loads((data / "trees_val.annotations.json").read_text(encoding="utf-8"))
    found = json.loads((output / "detections.json").read_text(encoding="utf-8"))
    # As many for each way; there is one picture and one class.
    found = sorted(found, key=lambda row: -row["score"])[:MOST]
    return {"AP50": metrics["AP50"], **shares(truth["annotations"], found), "seconds": seconds}


def shares(objects: list[dict], found: list[dict]) -> dict[str, float]:
    """Give each object the best box that finds it, best boxes first; return what is found."""
    best = [0.0] * len(objects)  # The score of the box that finds each object.
    right = 0
    for one in sorted(found, key=lambda row: -row["score"]):
        overlaps = [
            iou(one["bbox"], thing["bbox"])
            if thing["image_id"] == one["image_id"] and not taken
            else 0.0
            for thing, taken in zip(objects, best, strict=True)
        ]
        place = max(range(len(objects)), key=overlaps.__getitem__)
        if overlaps[place] >= 0.5:
            best[place] = one["score"]
            right += one["score"] >= SCORE
    sizes = {
        "small": [score for score, one in zip(best, objects, strict=True) if one["area"] < SMALL],
        "larger": [score for score, one in zip(best, objects, strict=True) if one["area"] >= SMALL],
    }
    shown = sum(one["score"] >= SCORE for one in found)
    return {
        **{name: sum(map(bool, scores)) / len(scores) for name, scores in sizes.items()},
        **{
            f"{name} >= {SCORE}": sum(score >= SCORE for score in scores) / len(scores)
            for name, scores in sizes.items()
        },
        "right": right / max(shown, 1),
    }


def iou(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the IoU of two boxes: left, top, width, height."""
    sides = [
        max(min(one[k] + one[k + 2], other[k] + other[k + 2]) - max(one[k], other[k]), 0.0)
        for k in (0, 1)
    ]
    common = sides[0] * sides[1]
    return common / (one[2] * one[3] + other[2] * other[3] - common)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=Path, required=True, help="deepforest/data")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--tiles", default="192,64", help="SIZE,OVERLAP")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument(
        "--large", default="(1024, 1248)", help="size of a network that sees the whole picture"
    )
    parser.add_argument("--recipe", nargs="+", default=["ssd320_efficientnet_lite0"])
    parser.add_argument("--weights", default="efficientnet_lite0", help="'' begins with none")
    parser.add_argument("--gin_params", nargs="*", default=[], help="of the training")
    given = parser.parse_args(argv)
    if given.recipe == parser.get_default("recipe"):
        given.recipe = [*given.recipe, "optim/finetune"]
    size = int(given.tiles.partition(",")[0])
    data = convert(given.pictures, given.output, given.tiles)
    model_dir = given.output / "run"
    print(f"trained in {train(data, model_dir, size, given):.0f} s")
    large = [f"--gin_params={line}" for line in (f"IMAGE_SIZE = {given.large}", *UNLIMITED)]
    ways = {
        "whole": [],
        f"whole, network of {given.large}": large,
        "tiles": [f"--tiles={given.tiles}"],
        "tiles alone": [f"--tiles={given.tiles}", "--notiles_whole"],
        "tiles without overlap": [f"--tiles={size},0"],
        "tiles, fused": [f"--tiles={given.tiles}", "--tiles_merge=wbf"],
    }
    rows = {
        name: measure(data, model_dir, given.output / f"evaluation_{number}", *way)
        for number, (name, way) in enumerate(ways.items())
    }
    print(f"{'':32}" + "".join(f"{name:>14}" for name in rows["whole"]))
    for name, row in rows.items():
        print(f"{name:32}" + "".join(f"{value:14.3f}" for value in row.values()))


if __name__ == "__main__":
    main()
