"""Compare runs: state, metrics, curves and the settings that differ.

Examples:
  ssd_centernet report runs/ssd300 runs/ssd300_bf16
  ssd_centernet report runs/* --output=report.html

Arguments are run directories, of any recipe. A run may still be training, may have been killed,
or may have no evaluation. Tables are printed. --output also writes a page with the curves of loss,
AP, learning rate and speed, and all settings that differ: one file that loads nothing from the
network. The runs are not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from ssd_centernet.run_directory import CONFIG_NAME, LOCK_NAME, METRICS_NAME

_OF_RUNS = (CONFIG_NAME, METRICS_NAME)


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_string("output", None, "Page to write, such as report.html.")


def _never_begun(folders: Sequence[str]) -> list[str]:
    """Return the folders that only trainings have seen that were refused: they hold a lock."""
    held = [one for one in folders if (Path(one) / LOCK_NAME).is_file()]
    return [one for one in held if not any((Path(one) / name).is_file() for name in _OF_RUNS)]


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the program's name and the run directories.

    Returns:
        The exit status.
    """
    if len(argv) < 2:
        raise flags.Error("Give one or more run directories after the command.")
    from ssd_centernet.runs.logs import read_runs
    from ssd_centernet.runs.report import text_report, write_runs_page

    begun = _never_begun(argv[1:])
    runs = read_runs([one for one in argv[1:] if one not in begun] or argv[1:])
    print(text_report(runs), end="\n\n")
    for folder in begun:
        print(f"{folder}: left out, as no training that was begun there came to its first step\n")
    if flags.FLAGS.output:
        print(f"written: {write_runs_page(flags.FLAGS.output, runs)}")
    else:
        print("Curves and all settings that differ: add --output=report.html")
    return 0
