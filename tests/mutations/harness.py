"""Kinds of inputs, their changes, and the run over them."""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutations import canary
from tests.mutations.judge import CLAIMS, VERDICTS, WRONG, Changed, Outcome, Verdict, judge

Files = Mapping[str, bytes]
Change = Callable[[random.Random, Files], Changed | None]


@dataclass(frozen=True)
class Mutation:
    """A change of a kind's clean input; it returns None where it finds nothing to change."""

    name: str
    claim: str
    change: Change
    rounds: int


@dataclass
class Kind:
    """A kind of input.

    Attributes:
        name: for the table and --kind.
        clean: makes the clean files.
        read: reads a folder with these files as a command of the library does.
        mutations: its changes.
    """

    name: str
    clean: Callable[[], Files]
    read: Callable[[Path], Outcome]
    mutations: list[Mutation] = field(default_factory=list)

    def mutation(self, claim: str, *, rounds: int = 3) -> Callable[[Change], Change]:
        """Return a decorator that adds a change under the name of its function.

        Args:
            claim: one of `judge.CLAIMS`.
            rounds: how many seeds `--all` runs; equal inputs count once.
        """

        def add(change: Change) -> Change:
            self.add(change.__name__.strip("_").replace("_", " "), claim, change, rounds=rounds)
            return change

        return add

    def add(self, name: str, claim: str, change: Change, *, rounds: int = 3) -> None:
        """Add a change under a name."""
        if claim not in CLAIMS or any(one.name == name for one in self.mutations):
            raise ValueError(f"{self.name}: {name!r} claims {claim!r}, or stands twice")
        self.mutations.append(Mutation(name, claim, change, rounds))


@dataclass(frozen=True)
class Result:
    """What became of one changed input."""

    kind: str
    mutation: str
    claim: str
    seed: int
    verdict: Verdict


def run_kind(kind: Kind, *, seed: int, rounds: int | None = None) -> Iterator[Result]:
    """Read the changed inputs of a kind and judge each.

    Args:
        kind: the kind.
        seed: number of the whole run.
        rounds: seeds of each change; None takes what it says itself.

    Yields:
        The results; two changes or seeds that give one input give one result.

    Raises:
        AssertionError: the clean input is not read as it is meant.
    """
    files = kind.clean()
    clean = read_files(kind, files)
    if clean.error is not None:
        raise AssertionError(f"{kind.name}: the clean input is refused") from clean.error
    seen = {_digest(files)}
    for mutation in kind.mutations:
        for number in range(mutation.rounds if rounds is None else min(rounds, mutation.rounds)):
            rng = random.Random(f"{kind.name}/{mutation.name}/{seed}/{number}")
            changed = mutation.change(rng, files)
            if changed is None or _digest(changed.files) in seen:
                continue
            seen.add(_digest(changed.files))
            outcome = read_files(kind, changed.files)
            verdict = judge(mutation.claim, changed, outcome, clean)
            yield Result(kind.name, mutation.name, mutation.claim, number, verdict)


def read_files(kind: Kind, files: Files) -> Outcome:
    """Write files into a fresh folder and read them; whatever is raised is the outcome."""
    folder = Path(tempfile.mkdtemp(prefix="mutation-"))
    try:
        write_files(folder, files)
        with canary.watching() as ran:
            try:
                outcome = kind.read(folder)
            except Exception as error:
                outcome = Outcome(error=error)
        outcome.ran = tuple(ran)
        return outcome
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_files(folder: Path, files: Files) -> None:
    """Write files below a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _digest(files: Files) -> str:
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(repr((name, len(data))).encode() + data)
    return digest.hexdigest()


def table(results: Iterable[Result]) -> str:
    """Return a table of kinds: inputs, and how many ended in each verdict."""
    rows: dict[str, dict[str, int]] = {}
    for result in results:
        row = rows.setdefault(result.kind, dict.fromkeys(VERDICTS, 0))
        row[result.verdict.verdict] += 1
    heads = ("inputs", "same", "refused with place", "counted", WRONG)
    lines = [f"{'kind':<12}" + "".join(f"{head:>20}" for head in heads)]
    total = {v: sum(row[v] for row in rows.values()) for v in VERDICTS}
    for name, row in [*rows.items(), ("all", total)]:
        cells = (sum(row.values()), *(row[verdict] for verdict in VERDICTS))
        lines.append(f"{name:<12}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)
