"""`python -m tests.faults`: kill commands before their changes of files, and go on from there.

Prints a line for each fault and a table; the exit status is 1 if there is a fault.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Try the states that the arguments ask for and return the exit status."""
    from tests.faults.commands import commands, make_inputs
    from tests.faults.harness import Trial, sample, table
    from tests.faults.watch import missing
    from tests.warm import warm_python

    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every state, not a few of each command")
    parser.add_argument("--states", type=int, default=5, help="states of a command (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="chooses them (default: 0)")
    parser.add_argument("--command", action="append", help="only commands whose name has this text")
    parser.add_argument("--list", action="store_true", help="print the changes of files alone")
    arguments = parser.parse_args(argv)
    reason = missing()
    if reason:
        sys.exit(f"nothing can be tried: {reason}")
    results, begun = [], time.monotonic()
    with warm_python() as python, tempfile.TemporaryDirectory(prefix="faults") as folder:
        base = Path(folder)
        for name, command in commands(make_inputs(base, python)).items():
            if arguments.command and not any(text in name for text in arguments.command):
                continue
            trial = Trial(command, python, base)
            if arguments.list:
                print(f"{name}: {trial.operations} changes")
                print("\n".join(f"  {point.operation}" for point in trial.points))
                continue
            number = len(trial.points) if arguments.all else arguments.states
            points = sample(trial.points, number, arguments.seed)
            print(f"{name}: {len(points)} of {len(trial.points)} states", file=sys.stderr)
            results.append(
                trial.result(
                    points, lambda f, name=name: print(f"{f.kind}: {name}, {f.point}: {f.why}\n")
                )
            )
    if not arguments.list:
        print(table(results))
        print(f"{time.monotonic() - begun:.0f} s")
    return 1 if any(one.faults for one in results) else 0


if __name__ == "__main__":
    sys.exit(main())
