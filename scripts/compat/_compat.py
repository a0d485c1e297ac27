"""What the programs beside this file share: they are called as those of the originals.

DEVICE, DRY_RUN=1 and SMOKE=1 of the environment mean what they mean to the run scripts.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What begins with weights that somebody names; an empty value names none.
_WEIGHTS = r"--(fine_tune_checkpoint|resnet_checkpoint|resume_from|fine_?tune_ckpt)(=.|$)"
_PYTHON = ROOT / ".venv" / "bin" / "python"
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def run(program: str) -> None:
    """Run a program of an original with the arguments of this process."""
    use_environment()
    from ssd_centernet.cli.main import run as run_command

    flags = ["--dry_run"] if os.environ.get("DRY_RUN") else []
    words = [program, *sys.argv[1:]]
    if os.environ.get("SMOKE"):
        added, words = smoke(words)
        flags += added
    run_command(["ssd_centernet", "compat", *flags, "--", *words])


def use_environment() -> None:
    """Go on with the environment of the checkout where this Python has no packages of ours."""
    if importlib.util.find_spec("absl") is not None:
        return
    if sys.executable == str(_PYTHON) or not _PYTHON.exists():
        sys.exit(
            f"{sys.executable} lacks the packages of this library: `bash {ROOT}/scripts/setup.sh` "
            f"makes {_PYTHON}, which is then used."
        )
    os.execv(_PYTHON, [str(_PYTHON), *sys.argv])


def smoke(words: list[str]) -> tuple[list[str], list[str]]:
    """Make a line short and small, on the CPU, with rendered scenes where no data is here.

    Args:
        words: the program and its arguments.

    Returns:
        Flags of `compat`, and the line: in at most two processes.
    """
    from absl import flags

    from ssd_centernet.cli.originals.lines import translate_line

    place = os.environ.get("SMOKE_DIR") or "runs/smoke"
    data = f"{place}/data"
    os.environ["DEVICE"] = "cpu"
    if not any(os.environ.get(name) for name in ("DATASET", "DATA_DIR")):
        os.environ["DATA_DIR"] = data
    try:
        plan = translate_line(words)
        if plan.processes > 2:
            ids = any(word.replace("_", "-").startswith("--gpu-ids") for word in words)
            words = [*words, *(["--gpu-ids", "0", "1"] if ids else ["--gpus=2"])]
            plan = translate_line(words)
    except flags.Error:  # The command tells it, in one line.
        return [], words
    command, added = plan.command, []
    recipes = [word.partition("=")[2] for word in command if word.startswith("--gin_file=")]
    if any(word.startswith("--model_dir=") for word in plan.defaults):
        added.append(f"--model_dir={place}/compat/{Path(words[0]).stem}")
    added += [f"--gin_file={ROOT}/scripts/smoke/{recipe}.gin" for recipe in recipes]
    if recipes:
        added += ["--num_steps=3", "--batch_size=2"]
        profiled = any(word.startswith(("--profile=", "--use_profiler")) for word in command)
        added += ["--profile=1,2"] if profiled else []
        # Published weights have too many channels for a narrow network: none are fetched.
        named = any(re.match(_WEIGHTS, word) for word in command)
        added += [] if named else ["--from_scratch"]
    if f"--data_dir={data}" in command and not os.environ.get("DRY_RUN"):
        render(place)
    return [f"--add={flag}" for flag in added], words


def render(place: str) -> None:
    """Render and convert a few scenes, once, as the run scripts do."""
    if Path(place, "data", "mscoco_label_map.pbtxt").exists():
        return
    scenes = ["--num_train=8", "--num_val=4", "--min_size=60", "--max_size=90"]
    lines = [["make_synthetic", f"--output_dir={place}/coco", *scenes]]
    for split in ("train", "val"):
        annotations = f"--annotations={place}/coco/annotations/instances_{split}.json"
        places = [f"--image_dir={place}/coco/{split}", f"--output_dir={place}/data"]
        lines.append(["convert", annotations, *places, f"--split={split}", "--name=coco"])
    for line in lines:
        print(f"== ssd_centernet {' '.join(line)}", flush=True)
        ended = subprocess.run([sys.executable, "-m", "ssd_centernet", *line], check=False)
        if ended.returncode:
            sys.exit(ended.returncode)
