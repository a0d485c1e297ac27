"""Run a command line of a published system, as its readme has it.

Examples:
  ssd_centernet compat -- ssd.py -e 64 -b 128 -d bf16 --model_dir /tmp/ssd_1_hpu
  ssd_centernet compat -- horovodrun -np 8 python3 model_main.py --batch_size=32 ...
  ssd_centernet compat --dry_run -- tools/train.py configs/ssd/ssd300_coco_npu.py --gpus 1

After `--` comes the line: a launcher and an interpreter if there are any, the program and its
options, whatever they are called there. It is turned into a command of ssd_centernet, with the
defaults of the original, and run. First it is told which command that is, which of its flags
nobody typed, and which options change nothing here. An option that cannot be taken over is an
error that says what to do instead.
"""

from __future__ import annotations

import os
import shlex
import sys

from absl import flags


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_boolean("dry_run", False, "Print the command and do nothing.")
    flags.DEFINE_multi_string(
        "add", [], "A flag for the command, such as --add=--device=cpu, which wins. Repeatable."
    )


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the program's name and the words of the line.

    Returns:
        The exit status; without --dry_run the command takes the place of this process.
    """
    from ssd_centernet.cli.originals.lines import translate_line

    values = flags.FLAGS
    plan = translate_line(argv[1:])
    if plan.answer is not None:
        print(plan.answer)
        return 0
    command = [*plan.command, *values.add]
    variables = [f"{name}={shlex.quote(value)}" for name, value in plan.environment.items()]
    shown = " ".join([*variables, "ssd_centernet", *map(shlex.quote, command)])
    if values.dry_run:
        print(shown)
    told = [f"compat: {shown}"] if not values.dry_run else []
    if plan.defaults:
        told.append(f"  the original's own, typed by nobody: {shlex.join(plan.defaults)}")
    told += [f"  {note}" for note in plan.notes]
    print("\n".join(told), file=sys.stderr, flush=True)
    if values.dry_run:
        return 0
    for name, value in plan.environment.items():
        os.environ.setdefault(name, value)
    os.execv(sys.executable, [sys.executable, "-m", "ssd_centernet", *command])
