"""`python -m tests.native`: compare both forms of every chain on random pictures and boxes."""

from __future__ import annotations

import argparse
import sys

from tests.native import both_forms


def main() -> int:
    """Print a line for every chain, and return 1 if one differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.native", description=__doc__)
    parser.add_argument("--number", type=int, default=200, help="pictures of each chain")
    parser.add_argument("--all", action="store_true", help="10,000 in all of each chain")
    parser.add_argument("--only", nargs="*", help="names of chains, or 'matching'")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    number = 10_000 if arguments.all else arguments.number
    failed = False
    for name in [*both_forms.CHAINS, "matching"]:
        if arguments.only and name not in arguments.only:
            continue
        if name == "matching":
            found = both_forms.compare_matching(number, arguments.seed)
        else:
            found = both_forms.compare_chain(both_forms.make_chain(name), number, arguments.seed)
        wrong = found.decisions or found.pixels > both_forms.TOLERANCE or found.boxes > 1e-5
        failed |= bool(wrong)
        print(
            f"{name:<18} {found.images:6} pictures  pixels {found.pixels:8.2e}  boxes "
            f"{found.boxes:8.2e}  {found.decisions} decisions  {'FAIL' if wrong else 'PASS'}",
            flush=True,
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
