"""What the tests run of the pages: each command once, made small, in groups of pages."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import shlex
from pathlib import Path

from tests.docs import pages
from tests.docs.pages import PAGES
from tests.narrow import NARROW
from tests.process import ROOT

# Commands that cannot run inside the tests; of a script it is checked that it parses.
NOT_RUN = {
    r"bash scripts/demo\.sh": "makes an environment and trains for minutes",
    r"bash scripts/check_device\.sh": "minutes; tests/scripts/test_check_device.py runs a part",
    r"python -m tools\.device_check\.kernels": "a minute; training/test_static_shapes.py asks it",
    r"bash scripts/test\.sh": "runs these tests",
    r"(\w+=\S+ )*bash scripts/setup\.sh": "makes the environment that the tests run in",
    r"docker build": "needs docker; tests/scripts/test_docker.py runs it",
    r"(\w+=\S+ )*bash scripts/run_docker\.sh": "needs docker; tests/scripts/test_docker.py",
    r"python -m tools\.benchmarks_doc": "tests/benchmark/test_compare.py holds the page to it",
    r"source \.venv\S*/bin/activate": "the tests run inside an environment",
    r"(python -m )?pip install": "installs from the network",
    r"pip wheel|python3 -m venv": "tests/test_packaging.py makes wheel and environment",
    r"pip download": "fetches from the network; place.py writes a stand-in",
    r"python benchmarks/input_forms\.py": "minutes, and asks for a quiet machine",
    r"python -m ssd_centernet\.native\.build": "tests/native/test_library.py runs it",
    r"git clone": "fetches from the network",
    r"(\w+=\S+ )*bash scripts/(\w+/\w+|prepare_coco)\.sh": "scripts/test_run_scripts.py",
    r"tensorboard": "serves until it is stopped",
    r"ssd_centernet serve": "serves until it is stopped; tests/serve/test_server.py runs it",
    r"ssd_centernet data_worker": "runs until it is stopped; tests/data_service/test_worker.py",
    r"ssd_centernet train --data_service": "needs workers; tests/data_service/test_training.py",
    r"ssd_centernet benchmark --part=input .*--data_service": "data_service/test_training.py",
    r"ssd_centernet launch --engine=mpi": "needs mpirun; tests/engines/test_mpi.py runs it",
    r"curl": "asks a server; tests/serve/test_server.py runs each line",
    r"python benchmarks/serve\.py": "minutes; tests/serve/test_load.py runs a small part",
    r"docker": "needs an image from the network",
    r"(nice -n 19 )?python benchmarks/growth\.py": "minutes; tests/benchmark/test_growth.py",
    r"python benchmarks/compare\.py": "minutes; tests/benchmark/test_compare.py runs a part",
    r"python benchmarks/(save|start|resume)\.py": "minutes, and asks for a quiet machine",
    r"python benchmarks/pairs\.py": "minutes; tests/benchmark/test_pairs.py runs a part",
    r"python benchmarks/kernels\.py": "minutes; tests/benchmark/test_kernels.py runs a part",
    r"python benchmarks/tracks\.py": "tests/predict/test_tracks.py runs a scene of it",
    r"unzip deepforest": "unpacks what was fetched from the network",
    r"npm pack": "fetches from the network",
    r"tar -xzf vladmandic": "unpacks what was fetched from the network",
    r"(\w+=\S+ )+python -m pytest tests/published": "needs what was fetched; tests/published",
    r"python benchmarks/tiles\.py": "minutes; tests/benchmark/test_tiles.py",
    r"python benchmarks/rematerialize\.py": "minutes; tests/models/test_rematerialized.py",
    r"ssd_centernet export --model_dir=runs/demo/model": "asks for a trained run with AP to hold",
    r"ssd_centernet benchmark --formats=\w+": "minutes; tests/benchmark/test_formats.py",
    r"ssd_centernet train .*--gin_file=scenes": "minutes; tests/training/test_quantized.py",
    r"ssd_centernet export --model_dir=runs/quantized": "export/test_quantized.py exports one",
    r"ssd_centernet benchmark --model=exported/demo": "the export of a run that is not there",
    r"ssd_centernet export .*--output=exported/openvino": "needs nncf; export/test_openvino.py",
    r"ssd_centernet evaluate --model=exported/openvino/model_int8\.xml": "as the export before",
    r"python benchmarks/evaluate\.py": "minutes, and asks for a quiet machine",
    r"python scripts/readme_picture\.py": "needs the run of the demo",
    r"python -m tests\.parity": "minutes; tests/parity/test_parity.py runs it",
    r"python -m tests\.mutations": "a minute; tests/mutations/test_mutations.py runs a part of it",
    r"python -m tests\.faults": "minutes; tests/faults/test_faults.py runs a part of it",
    r"bash examples/build\.sh": "needs a compiler; tests/export/test_programs.py runs it",
    r"build/detect": "what it built; tests/export/test_programs.py runs it",
    r"ssd_centernet launch --engine=tf": "engines/test_workers.py launches such trainings",
    r"bash scripts/install_horovod\.sh": "builds for minutes; scripts/test.sh runs it",
}
if importlib.util.find_spec("horovod") is None:
    NOT_RUN[r"ssd_centernet launch|horovodrun"] = "Horovod is not installed"
# What is appended to a command so that it takes seconds, and fewer channels (NARROW) where it
# trains a published network. Nothing else is changed.
_SMALL_IMAGES = "--gin_params='IMAGE_SIZE = (96, 96)'"
SHRINK = {
    # Two of its trainings, of a study that is small as it is.
    "ablate": "--only=giou",
    # The seed is one whose scores of two steps differ enough for the check of an exported file.
    "train": f"--num_steps=2 --batch_size=2 --seed=2 {_SMALL_IMAGES}",
    "compare_precision": f"--dtypes=bf16 --nocontrol --num_steps=2 --batch_size=2 {_SMALL_IMAGES}",
    "make_synthetic": "--num_train=4 --num_val=2",
    # A network of two steps scores low.
    "export": "--score_threshold=0.001 --num_check_images=2",
    "make_static": f"--overwrite {_SMALL_IMAGES}",
    "benchmark": f"--windows=1 --seconds=0.05 --batch_size=2 {_SMALL_IMAGES}",
    "benchmark --part=eval": "--windows=1 --images=20",
    "benchmark --model": "--windows=1 --seconds=0.05",
}
# Words that a page leaves to the reader.
PLACEHOLDERS = {"DATA": "data/coco"}
# Pages that go on with each other's files. Every other page is in the last group. All but README's
# begin with a copy of what its commands make.
GROUPS = {
    "README": ("README.md", "docs/weights.md"),
    "recipes": ("docs/recipes.md",),
    "data": ("docs/data.md", "docs/own_data.md", "docs/python.md", "docs/reports.md"),
    "distributed": ("docs/distributed.md",),
    "export": ("docs/export.md",),
    "others": (),
}
# It trains README's run itself.
BEGIN_ANEW = ("recipes",)
# The settings of a narrow ResNet-34 as arguments of the class.
NARROW_RESNET34 = {"blocks": (1, 1, 1), "widths": (8, 8, 16), "stem_width": 8}
# Backbones whose published weights are installed, and have the channels of the whole one.
_WHOLE_BACKBONES = {"efficientnet_lite0": "EfficientNetLite0."}


@dataclasses.dataclass(frozen=True)
class Step:
    """A command or a Python block: where it stands, its text and its language."""

    place: str
    text: str
    language: str


def name_of(page: Path) -> str:
    """The path of a page in the checkout."""
    return page.relative_to(ROOT).as_posix()


def not_run(command: str) -> bool:
    """Tell whether a command is one of NOT_RUN."""
    return any(re.match(rf"({pattern})\b", command) for pattern in NOT_RUN)


def steps() -> dict[str, list[Step]]:
    """Group -> what is to run of its pages, each command once."""
    group_of = {page: group for group, members in GROUPS.items() for page in members}
    found, seen = {group: [] for group in GROUPS}, set()
    for page in PAGES:
        mine = found[group_of.get(name_of(page), "others")]
        for block in pages.blocks(page):
            if block.language == "python":
                mine.append(Step(block.place, block.text, "python"))
            for command in pages.commands(block) if block.language == "sh" else ():
                if command not in seen and not not_run(command):
                    mine.append(Step(block.place, command, "sh"))
                seen.add(command)
    return found


def trained_recipes() -> set[str]:
    """The recipes that commands of the pages train, each as `ssd_centernet train` does it."""
    texts = [step.text for group in steps().values() for step in group]
    return set(re.findall(r"^ssd_centernet train --gin_file=(\w+)", "\n".join(texts), re.M))


def shrunk(command: str, group: list[Step], *, narrow: bool = True) -> str:
    """The command with SHRINK's arguments behind it, and paths for its placeholders.

    Args:
        command: as a page has it.
        group: the steps among which it runs; a training whose run none of the others reads does
            without the evaluation at its end, which README's has.
        narrow: whether published networks have few channels.
    """
    others = [step.text for step in group if step.text != command]
    # Of a command for several processes: two of them, and what they run.
    command = re.sub(
        r"--num_processes=\d+|-np \d+", lambda m: m[0].rstrip("0123456789") + "2", command
    )
    command = re.sub(r"--hosts=\S+ ", "", command)
    inner = re.sub(r"^(ssd_centernet launch .*? -- |horovodrun -np 2 ssd_centernet )", "", command)
    name = pages.program(inner if inner == command else f"ssd_centernet {inner}")
    name = name.removeprefix("ssd_centernet ")
    if "--part=eval" in shlex.split(command):
        name += " --part=eval"
    if name == "benchmark" and "--model=" in command:
        name += " --model"
    for word, path in PLACEHOLDERS.items():
        command = re.sub(rf"\b{word}\b", path, command)
    # Only training builds a recipe's network by its name.
    settings = _small_training(command, others) if name == "train" and narrow else ()
    small = " ".join(f"--gin_params={shlex.quote(text)}" for text in settings)
    return f"{command} {SHRINK.get(name, '')} {small}".strip()


def _small_training(command: str, others: list[str]) -> list[str]:
    """The settings that make a training small beside its images."""
    recipe = re.search(r"--gin_file=(\w+)", command)[1].removesuffix("_overfit")
    published = re.search(r"--fine_tune_checkpoint=(\w+)", command)
    whole = _WHOLE_BACKBONES.get(published[1] if published else "", "nothing")
    settings = [line for line in NARROW.get(recipe, ()) if not line.startswith(whole)]
    if settings:
        settings.append("train.pictures = 0")
    run = re.search(r"--model_dir=(\S+)", command)[1]
    if not any(re.search(rf"(?<![\w/]){re.escape(run)}(?![\w])", other) for other in others):
        settings.append("train.evaluate_every = 0")
    return settings
