"""What a check consists of: its parts, each a command with a time limit."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The published networks, one of each kind; of each there is a narrow form in scripts/smoke.
QUICK = (
    "ssd300_resnet34",
    "ssd300_vgg16",
    "ssd320_resnet50_fpn",
    "centernet_resnet101_fpn",
    "centernet_hourglass20",
    "ssd320_mobilenetv3_fpn",
    "ssd320_efficientnet_lite0",
)
KINDS = (
    "machine",
    "doctor",
    "parity",
    "steps",
    "bits",
    "speed",
    "detection",
    "training",
    "several",
)
SYSTEMS = ("ssd_resnet34", "ssd_vgg16", "ssd320_resnet50_fpn", "centernet")
# Anchors with ranked negatives, anchors with the focal loss, and heatmaps; quick to train.
_BITS = ("ssd_demo", "ssd_fpn_demo", "centernet_demo")
_TRAINED = "ssd_demo"
_DATA, _ALONE = "training data", "several one device"
_SCENES = 16
_LOSSES = ("train.log_every = 1",)
_PROFILED = ("train.profile = (4, 6)",)
# Processes share out the images in another way than one process draws them, and so each step has
# all of them, as they are; batch norm is over all.
_WHOLE = ("train.augment = None", "train.keep_empty = True", "train.sync_batch_norm = True")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a check is asked to do.

    Attributes:
        device: as `--device` of the commands.
        quick: few channels, small images and short windows, for a CPU or a first look.
        recipes: names of those that are compared step by step and timed.
        kinds: of parts.
        steps: number of train steps.
        limit: seconds after which a part is ended; those of whole networks on the CPU get more.
    """

    device: str
    quick: bool
    recipes: tuple[str, ...]
    kinds: tuple[str, ...]
    steps: int
    limit: float

    def to_dict(self) -> dict:
        """Return the settings as JSON takes them."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One process of a check.

    Attributes:
        name: kind first, such as 'steps ssd_demo bf16'.
        command: what is run; empty where `skipped` says why there is nothing to run.
        limit: seconds.
        output: file of results that it writes; None where it writes none.
        folder: folder of a run, which begins anew with the part; None where it is no training.
        reads: what its results are: 'json', the object in `output`, or else the last one that it
            prints; 'lines', all objects that it prints; 'log', the losses of the run; '' nothing.
        needs: parts without whose results it cannot run.
        skipped: why it is left out, or an empty text.
    """

    name: str
    command: tuple[str, ...] = ()
    limit: float = 600.0
    output: str | None = None
    folder: str | None = None
    reads: str = "json"
    needs: tuple[str, ...] = ()
    skipped: str = ""

    @property
    def kind(self) -> str:
        """The first word of the name."""
        return self.name.split()[0]


def gin_files(recipe: str, *, narrow: bool) -> list[str]:
    """Return the gin files of a recipe, with few channels and small images where that exists."""
    small = ROOT / "scripts" / "smoke" / f"{recipe}.gin"
    return [recipe, str(small)] if narrow and small.exists() else [recipe]


def precisions(kind: str) -> tuple[str, ...]:
    """Return the precisions of a kind of device: only GPUs have TF32."""
    return ("fp32", "tf32", "bf16", "fp16") if kind == "GPU" else ("fp32", "bf16", "fp16")


def first_part(settings: Settings, folder: Path) -> Part:
    """Return the part whose result the others are planned with."""
    output = folder / "parts" / "machine.json"
    command = _module("tools.device_check.machine", settings.device, output)
    return Part(name="machine", command=command, limit=settings.limit, output=str(output))


def plan(settings: Settings, folder: Path, *, kind: str, devices: int) -> list[Part]:
    """Return the parts after the first.

    Args:
        settings: of the check.
        folder: gets the files of the parts.
        kind: type of the device, such as 'GPU'.
        devices: how many of them TensorFlow sees.
    """
    work = folder / "parts"
    parts = [_doctor(settings), *_parity(settings, work)]
    for recipe in settings.recipes:
        parts += _steps(settings, work, recipe, kind)
    for recipe in settings.recipes if not settings.quick else settings.recipes[:3]:
        parts += _speed(settings, recipe, kind)
    parts += _bits(settings, work) + _training(settings, work, devices)
    order = {name: number for number, name in enumerate(KINDS)}
    chosen = _with_needs([part for part in parts if part.kind in settings.kinds], parts)
    return sorted(chosen, key=lambda part: order[part.kind])


def _with_needs(chosen: Sequence[Part], parts: Sequence[Part]) -> list[Part]:
    """Add what chosen parts need, and what these need in turn."""
    known, names = {part.name: part for part in parts}, set()
    waiting = [part.name for part in chosen]
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            waiting += known[name].needs
    return [part for part in parts if part.name in names]


def _module(*words: object) -> tuple[str, ...]:
    return (os.environ.get("PYTHON") or sys.executable, "-m", *map(str, words))


def _cli(*words: object) -> tuple[str, ...]:
    return _module("ssd_centernet", *words)


def _doctor(settings: Settings) -> Part:
    words = ("doctor", "--json", "--notrain_step", f"--device={settings.device}")
    return Part(name="doctor", command=_cli(*words), limit=settings.limit)


def _parity(settings: Settings, work: Path) -> list[Part]:
    """Plan the comparison with the arrays of the originals, in the float32 of these."""
    parts = []
    for system in SYSTEMS:
        output = work / f"parity_{system}_fp32.json"
        words = (f"--system={system}", f"--device={settings.device}", f"--json={output}")
        command, limit = _module("tests.parity", *words), max(settings.limit, 900.0)
        name = f"parity {system} fp32"
        parts.append(Part(name=name, command=command, limit=limit, output=str(output)))
    return parts


def _steps(settings: Settings, work: Path, recipe: str, kind: str) -> list[Part]:
    narrow = ["--narrow"] * settings.quick
    shared = [f"--recipe={recipe}", f"--steps={settings.steps}", *narrow]
    reference = work / f"steps_{recipe}.json"
    name = f"steps {recipe} reference"
    words = (*shared, "--device=cpu", f"--output={reference}")
    # Whole networks take the CPU many seconds a step.
    limit = settings.limit if settings.quick else max(settings.limit, 3600.0)
    command = _module("tools.device_check.steps", *words)
    parts = [Part(name=name, command=command, limit=limit, output=str(reference))]
    for precision in precisions(kind):
        output = work / f"steps_{recipe}_{precision}.json"
        words = [*shared, f"--device={settings.device}", f"--precision={precision}"]
        words += [f"--reference={reference.with_suffix('.npz')}", f"--output={output}"]
        command = _module("tools.device_check.steps", *words)
        mine = {"limit": settings.limit, "output": str(output), "needs": (name,)}
        parts.append(Part(name=f"steps {recipe} {precision}", command=command, **mine))
    return parts


def _speed(settings: Settings, recipe: str, kind: str) -> list[Part]:
    files = [f"--gin_file={one}" for one in gin_files(recipe, narrow=settings.quick)]
    batch, windows, seconds = (4, 2, 0.5) if settings.quick else (16, 5, 2)
    window = (f"--windows={windows}", f"--seconds={seconds}", f"--batch_size={batch}")
    parts = []
    # What TensorFlow computes float32 with where nobody says otherwise.
    whole = "tf32" if kind == "GPU" else "fp32"
    for precision in (whole, "bf16") if settings.quick else (whole, "bf16", "fp16"):
        dtype = "fp32" if precision == "tf32" else precision
        for form, compiled in (("plain", False), ("xla", True)):
            words = [*files, *window, f"--dtype={dtype}", f"--device={settings.device}", "--json"]
            words.append(f"--gin_params=train.jit_compile = {compiled}")
            command = _cli("benchmark", "--part=step", *words)
            name = f"speed {recipe} {precision} {form}"
            parts.append(Part(name=name, command=command, limit=settings.limit, reads="lines"))
    measured = (2, 5) if settings.quick else (20, 100)
    words = [*files, f"--device={settings.device}", "--json", f"--warmup_iters={measured[0]}"]
    command = _cli("benchmark", "--part=inference", *words, f"--benchmark_iters={measured[1]}")
    name = f"detection {recipe} {whole}"
    return [*parts, Part(name=name, command=command, limit=settings.limit, reads="lines")]


def _bits(settings: Settings, work: Path) -> list[Part]:
    parts = []
    for recipe in _BITS:
        for turn in ("first", "second"):
            output = work / f"bits_{recipe}_{turn}.json"
            words = [f"--recipe={recipe}", "--steps=5", "--deterministic", "--batch_size=4"]
            words += [f"--device={settings.device}", f"--output={output}"]
            command = _module("tools.device_check.steps", *words)
            mine = {"limit": settings.limit, "output": str(output)}
            parts.append(Part(name=f"bits {recipe} {turn}", command=command, **mine))
    return parts


def _training(settings: Settings, work: Path, devices: int) -> list[Part]:
    """Plan a training with a profile, and others on one device and two, which are compared."""
    scenes, records = work / "scenes", work / "records"
    sizes = (f"--num_train={_SCENES}", "--num_val=4", "--min_size=100", "--max_size=160")
    commands = [_cli("make_synthetic", f"--output_dir={scenes}", *sizes)]
    for split in ("train", "val"):
        given = f"--annotations={scenes}/annotations/instances_{split}.json"
        words = (given, f"--image_dir={scenes}/{split}", f"--output_dir={records}")
        commands.append(_cli("convert", *words, f"--split={split}", "--name=shapes", "--overwrite"))
    script = " && ".join(shlex.join(command) for command in commands)
    data = Part(name=_DATA, command=("bash", "-c", script), limit=settings.limit, reads="")
    one = _train(settings, work, "training one device", 4, _PROFILED)
    profile = work / "profile.json"
    words = ("tools.device_check.profile", one.folder, profile)
    mine = {"needs": (one.name,), "output": str(profile), "limit": settings.limit}
    parts = [data, one, Part(name="training profile", command=_module(*words), **mine)]
    return [*parts, *_several(settings, work, devices)]


def _several(settings: Settings, work: Path, devices: int) -> list[Part]:
    names = (_ALONE, "several one process", "several two processes")
    if settings.device != "cpu" and devices < 2:
        reason = "needs two devices; TensorFlow sees one"
        return [Part(name=name, skipped=reason) for name in names]
    words, needs = ("--strategy=mirrored", "--devices=2"), (_DATA, _ALONE)
    parts = [_train(settings, work, _ALONE, _SCENES, _WHOLE)]
    parts.append(_train(settings, work, names[1], _SCENES, _WHOLE, words, needs=needs))
    if importlib.util.find_spec("horovod") is None:
        reason = "Horovod is not installed: bash scripts/install_horovod.sh"
        return [*parts, Part(name=names[2], skipped=reason)]
    launched = ("launch", "--num_processes=2", "--max_restarts=0", "--")
    two = _train(settings, work, names[2], _SCENES // 2, _WHOLE, (), launched, needs)
    return [*parts, two]


def _train(
    settings: Settings,
    work: Path,
    name: str,
    batch_size: int,
    lines: Sequence[str],
    words: Sequence[str] = (),
    before: Sequence[str] = (),
    needs: tuple[str, ...] = (_DATA,),
) -> Part:
    folder = work / name.replace(" ", "_")
    flags = [f"--gin_file={_TRAINED}", f"--data_dir={work / 'records'}", "--seed=0"]
    flags += [f"--model_dir={folder}", f"--device={settings.device}", "--num_steps=8"]
    flags += [f"--batch_size={batch_size}", *words]
    flags += [f"--gin_params={one}" for one in (*_LOSSES, *lines)]
    command = _cli(*before, "train", *flags)
    mine = {"limit": settings.limit, "needs": needs, "folder": str(folder)}
    return Part(name=name, command=command, reads="log", **mine)
