"""Check a device from end to end; `scripts/check_device.sh` calls this.

  bash scripts/check_device.sh --device=gpu
  bash scripts/check_device.sh --device=cpu --quick

Each part is a process with a time limit; a part that fails or hangs is told, and the others go on.
The folder of --output gets result.json and result.html after each part. The same command goes on
where it was ended, and --again also repeats the parts that failed. Both files name versions,
devices and this machine's processor, and nothing else of it: send them as they are.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tools.device_check import page, plan, row, running, verdicts


def main(argv: Sequence[str] | None = None) -> int:
    """Run the check and return the exit status: 1 if a part failed.

    Args:
        argv: arguments; None takes those of the process.
    """
    parser = _parser()
    values = parser.parse_args(argv)
    try:
        if values.row is not None:
            print(row.row(running.read(values.row)))
            return 0
        settings = _settings(parser, values)
        folder = Path(values.output or f"runs/device_check/{values.device}").resolve()
        with running.held(folder):
            return _check(settings, folder, again=values.again)
    except running.ResultError as error:
        parser.error(str(error))


def _check(settings: plan.Settings, folder: Path, *, again: bool) -> int:
    """Run the parts in a folder that nobody else has, and return the exit status."""
    results = running.Results(folder, settings.to_dict())
    if results.parts.get("machine", {}).get("status") != "ended":
        results.parts.pop("machine", None)  # Without it nothing was checked.
    if again:
        wrong = verdicts.failed(results.to_dict())
        results.parts = {name: one for name, one in results.parts.items() if name not in wrong}

    def say(text: str) -> None:
        page.write(folder / running.PAGE_NAME, results.to_dict())
        print(text, flush=True)

    try:
        with running.stoppable():
            running.run_all([plan.first_part(settings, folder)], results, say)
            machine = results.parts["machine"]
            if machine["status"] == "ended":
                found = machine["found"]
                parts = plan.plan(settings, folder, kind=found["kind"], devices=found["devices"])
                running.run_all(parts, results, say)
            else:
                print(f"{machine['said']}\nWithout the device nothing else can be checked.")
    except running.Stopped as stop:
        print(f"\nstopped; the same command goes on. So far: {folder / running.PAGE_NAME}")
        return 128 + stop.number
    judged = verdicts.judge(results.to_dict())
    page.write(folder / running.PAGE_NAME, results.to_dict())
    wrong = [name for name, one in judged.items() if one.verdict == "FAIL"]
    print(verdicts.sentence(judged))
    for name in wrong:
        print(f"FAIL {name}: {judged[name].text}")
    print(f"Send {folder / running.RESULT_NAME} and {folder / running.PAGE_NAME}.")
    return 1 if wrong else 0


class _Parser(argparse.ArgumentParser):
    """Refuses in one line: the usage would hide it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"check_device: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="bash scripts/check_device.sh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="auto", help="as of the commands (default: auto)")
    parser.add_argument("--output", help="folder (default: runs/device_check/DEVICE)")
    parser.add_argument(
        "--quick", action="store_true", help="few channels and small images, as for a CPU"
    )
    parser.add_argument("--recipes", help="names with commas between them (default: all)")
    parser.add_argument("--only", help=f"kinds of parts: {','.join(plan.KINDS)}")
    parser.add_argument("--steps", type=int, default=20, help="train steps (default: 20)")
    parser.add_argument(
        "--limit", type=float, default=600.0, help="seconds of a part (default: 600)"
    )
    parser.add_argument("--again", action="store_true", help="repeat parts that failed")
    parser.add_argument(
        "--row", metavar="RESULT", help="print a result.json as a row for docs/devices.md"
    )
    return parser


def _settings(parser: argparse.ArgumentParser, values: argparse.Namespace) -> plan.Settings:
    from ssd_centernet import config

    known = config.recipes()
    recipes = _names(parser, values, "recipes", known) or (plan.QUICK if values.quick else known)
    if unknown := [name for name in recipes if name not in known]:
        parser.error(f"--recipes names {', '.join(unknown)}; expected some of {', '.join(known)}.")
    kinds = _names(parser, values, "only", plan.KINDS) or plan.KINDS
    if unknown := [name for name in kinds if name not in plan.KINDS]:
        parser.error(f"--only is {', '.join(unknown)}; expected some of {', '.join(plan.KINDS)}.")
    if values.steps < 2:
        parser.error(f"--steps is {values.steps}; expected 2 or more.")
    if not 0 < values.limit < threading.TIMEOUT_MAX:
        parser.error(f"--limit is {values.limit:g}; expected seconds, more than 0.")
    if "" in (values.output, values.device):
        parser.error("--output and --device must not be empty: leave them out, or give a value.")
    return plan.Settings(
        device=values.device,
        quick=values.quick,
        recipes=tuple(recipes),
        kinds=tuple(kinds),
        steps=values.steps,
        limit=values.limit,
    )


def _names(
    parser: argparse.ArgumentParser, values: argparse.Namespace, flag: str, known: Sequence[str]
) -> list[str]:
    """Return the names that a flag has; none where it is not given."""
    given = getattr(values, flag)
    if given is None:
        return []
    names = [name.strip() for name in given.split(",")]
    if not all(names):
        parser.error(
            f"--{flag}={given} has an empty name; expected some of {', '.join(known)}, with commas "
            "between them. Without the flag all are taken."
        )
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    sys.exit(main())
