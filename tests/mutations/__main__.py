"""`python -m tests.mutations`: change inputs, read them, and judge what became of them.

Prints one line for each input that ended wrong, and a table; the exit status is 1 if any did.
"""

from __future__ import annotations

import argparse
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main(argv: list[str] | None = None) -> int:
    """Run the changes that the arguments name and return the exit status."""
    from tests.mutations.harness import WRONG, run_kind, table
    from tests.mutations.kinds import KINDS

    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--all", action="store_true", help="all seeds of each change, not one")
    parser.add_argument("--seed", type=int, default=0, help="another run of changes (default: 0)")
    parser.add_argument("--kind", choices=sorted(KINDS), action="append", help="only this kind")
    parser.add_argument("--mutation", help="only the changes whose name has this text")
    parser.add_argument(
        "--show",
        type=int,
        default=0,
        help="print so many inputs of each change, whatever they end in",
    )
    arguments = parser.parse_args(argv)
    results = []
    for name in arguments.kind or KINDS:
        kind = KINDS[name]()
        if arguments.mutation:
            kind.mutations = [m for m in kind.mutations if arguments.mutation in m.name]
        shown: dict[str, int] = {}
        for result in run_kind(kind, seed=arguments.seed, rounds=None if arguments.all else 1):
            results.append(result)
            shown[result.mutation] = shown.get(result.mutation, 0) + 1
            verdict = result.verdict
            if verdict.verdict == WRONG or shown[result.mutation] <= arguments.show:
                place = f"{name}: {result.mutation} [{result.claim}, seed {result.seed}]"
                print(f"{verdict.verdict:<8} {place}: {verdict.why}", flush=True)
    print(table(results))
    return 1 if any(result.verdict.verdict == WRONG for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
