"""What the programs beside this file share: they are called as those of the originals.

DEVICE, DRY_RUN=1 and SMOKE=1 of the environment mean what they mean to the run scripts.
"""

import importlib.util
import os
import re
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
    if os.environ.get("SMOKE"):
        flags += smoke_flags(program, sys.argv[1:])
    run_command(["ssd_centernet", "compat", *flags, "--", program, *sys.argv[1:]])


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


def smoke_flags(program: str, arguments: list[str]) -> list[str]:
    """Return what makes a training short and small, on the CPU; other commands need nothing."""
    from ssd_centernet.cli.originals.lines import translate_line

    os.environ["DEVICE"] = "cpu"
    command = translate_line([program, *arguments]).command
    recipes = [word.partition("=")[2] for word in command if word.startswith("--gin_file=")]
    added = [f"--gin_file={ROOT}/scripts/smoke/{recipe}.gin" for recipe in recipes]
    if recipes:
        added += ["--num_steps=3", "--batch_size=2"]
        profiled = any(word.startswith(("--profile=", "--use_profiler")) for word in command)
        added += ["--profile=1,2"] if profiled else []
        # Published weights have too many channels for a narrow network: none are fetched.
        named = any(re.match(_WEIGHTS, word) for word in command)
        added += [] if named else ["--from_scratch"]
    return [f"--add={flag}" for flag in added]
