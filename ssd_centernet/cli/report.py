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

from absl import flags


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_string("output", None, "Page to write, such as report.html.")


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

    runs = read_runs(argv[1:])
    print(text_report(runs), end="\n\n")
    if flags.FLAGS.output:
        print(f"written: {write_runs_page(flags.FLAGS.output, runs)}")
    else:
        print("Curves and all settings that differ: add --output=report.html")
    return 0
