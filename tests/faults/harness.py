"""What becomes of every state that a kill can leave: the next commands, and a judgement of each."""

from __future__ import annotations

import dataclasses
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from tests.faults.states import State, plain
from tests.faults.watch import Operation, watched
from tests.process import Ended, environment, run

# What may become of a state, beside going on as if nothing had happened.
LOST, BLOCKED, TRACEBACK = "lost", "blocked", "traceback"
PROGRAM, LEFTOVER = "program run", "left over"
FAULTS = (LOST, BLOCKED, TRACEBACK, PROGRAM, LEFTOVER)

# The next command may come much later: what a kill left is then old.
_AGE = 2 * 3600 * 10**9
# Part of what every export asks for.
_KNOWN_PROGRAMS = ("'git'",)
_OURS = "'-m', 'ssd_centernet'"
_TAIL = 1500

Content = Mapping[str, object]
Check = Callable[[State, State, State], str | None]


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that is killed, and what must go on after it.

    Attributes:
        name: for the table and --command.
        root: folder whose changes count, relative to where the command runs.
        arguments: of `ssd_centernet`.
        copied: what lies in the folder at the beginning.
        before: commands that add to it.
        then: the command after the kill; the same one where it is None.
        readers: commands that only read; from the first state that one can read on, it must read
            every later one.
        content: what of a state must be as after an undisturbed run: name -> anything comparable.
        aside: folder into which the next command moves what is damaged, which it says.
        check: called with the state, the one at the beginning and the one of an undisturbed run;
            says what a reader would take wrongly, before any other command.
        variables: of the environment of all these commands.
        starts: whether it starts others of ours; these are watched and killed with it.
    """

    name: str
    root: str
    arguments: tuple[str, ...]
    copied: Path | None = None
    before: tuple[tuple[str, ...], ...] = ()
    then: tuple[str, ...] | None = None
    readers: tuple[tuple[str, ...], ...] = ()
    content: Callable[[State], Content] = lambda state: files_of(state)
    aside: str | None = None
    check: Check | None = None
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    starts: bool = False


@dataclasses.dataclass(frozen=True)
class Point:
    """A moment at which a kill can come, and what it leaves."""

    operation: str
    state: State


@dataclasses.dataclass(frozen=True)
class Fault:
    """What went wrong after a kill: one of `FAULTS`, where, and how it shows."""

    kind: str
    point: str
    why: str


@dataclasses.dataclass
class Result:
    """The states of one command and what became of those that were tried."""

    command: str
    operations: int = 0
    states: int = 0
    tried: int = 0
    faults: list[Fault] = dataclasses.field(default_factory=list)


def files_of(state: State) -> dict[str, bytes]:
    """Return the bytes of all files that are not hidden."""
    return {
        plain(name): entry.data
        for name, entry in state.entries.items()
        if entry.kind != "folder" and not any(part[0] == "." for part in Path(name).parts)
    }


class Trial:
    """One command with its beginning and its undisturbed run.

    Args:
        command: the command.
        python: the interpreter; a warm one saves seconds for each state.
        base: folder for all that is made here.
        program: the module or file that runs.
    """

    def __init__(
        self, command: Command, python, base: Path, program: str = "ssd_centernet"
    ) -> None:
        self.command, self._python, self._base, self._program = command, python, base, program
        self._env = environment(**command.variables)
        self._record = base / "programs"
        place = self._place()
        if command.copied is not None:
            shutil.copytree(command.copied, place / command.root)
        for arguments in command.before:
            self._run(place, arguments)
        self.start = State.read(place / command.root)
        shutil.rmtree(place)
        self.points, self.operations, self.end = self._watch()

    def _place(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._base))

    def _run(self, place: Path, arguments: Iterable[str], status: int | None = 0) -> Ended:
        command = ("-m", "tests.faults.armed", "-", self._record, self._program, *arguments)
        return run(self._python, *command, cwd=place, status=status, env=self._env)

    def watch(self, place: Path) -> Iterator[Operation]:
        """Run the command in a folder, and yield each change before it is made."""
        root = place / self.command.root
        self.start.write(root)
        arguments = (self._program, *self.command.arguments)
        options = {"cwd": place, "root": root, "record": self._record, "env": self._env}
        killed = False
        # What a warm python starts is a fork of the warm one, which nobody watches.
        python = sys.executable if self.command.starts else self._python
        with watched(python, *arguments, **options) as watching:
            for operation in watching.operations():
                yield operation
                killed = operation.killed
            watching.finish(status=-9 % 256 if killed else 0)

    def _watch(self) -> tuple[list[Point], int, State]:
        """Collect the states that differ, with those of writes that were cut in their middle."""
        place = self._place()
        root = place / self.command.root
        points: dict[str, Point] = {}
        operation = None
        for operation in self.watch(place):
            state = State.read(root)
            while not operation.alone and state != (again := State.read(root)):
                state = again
            points.setdefault(state.digest, Point(str(operation), state))
            if operation.half is not None:
                torn = state.with_part(operation.paths[0], *operation.half)
                if torn is not None:
                    points.setdefault(torn.digest, Point(f"{operation}, half of it", torn))
        end = State.read(root)
        shutil.rmtree(place)
        return list(points.values()), operation.number if operation else 0, end

    def result(self, points: Iterable[Point], say: Callable[[Fault], None] | None = None) -> Result:
        """Go on from states and judge what becomes of them."""
        found = Result(self.command.name, self.operations, len(self.points))
        readable: set[tuple[str, ...]] = set()
        for point in points:
            found.tried += 1
            for fault in self._faults(point, readable):
                found.faults.append(fault)
                if say is not None:
                    say(fault)
        return found

    def _faults(self, point: Point, readable: set[tuple[str, ...]]) -> Iterator[Fault]:
        if self.command.check is not None:
            why = self.command.check(point.state, self.start, self.end)
            if why:
                yield Fault(LOST, point.operation, why)
        for arguments in self.command.readers:
            ended, _ = self._go_on(point, arguments)
            if ended.status == 0:
                readable.add(arguments)
            elif arguments in readable:
                yield Fault(BLOCKED, point.operation, _told(ended))
            yield from self._of_process(point, ended)
        ended, after = self._go_on(point, self.command.then or self.command.arguments)
        yield from self._of_process(point, ended)
        if ended.status != 0:
            yield Fault(BLOCKED, point.operation, _told(ended))
            return
        after = after.without(self.command.aside)
        got, wanted = self.command.content(after), self.command.content(self.end)
        other = sorted(n for n in {*got, *wanted} if got.get(n) != wanted.get(n))
        new = sorted(after.names - self.end.names)
        if other:
            why = "; ".join(_difference(n, got.get(n), wanted.get(n)) for n in other)
            yield Fault(LOST, point.operation, why)
        if new:
            yield Fault(LEFTOVER, point.operation, ", ".join(new))

    def _go_on(self, point: Point, arguments: tuple[str, ...]) -> tuple[Ended, State]:
        place = self._place()
        self._record.unlink(missing_ok=True)
        point.state.write(place / self.command.root, older=_AGE)
        ended = self._run(place, arguments, status=None)
        after = State.read(place / self.command.root)
        shutil.rmtree(place)
        return ended, after

    def _of_process(self, point: Point, ended: Ended) -> Iterator[Fault]:
        if "Traceback (most recent call last)" in ended.text:
            yield Fault(TRACEBACK, point.operation, _told(ended))
        if self._record.exists():
            lines = self._record.read_text(encoding="utf-8").splitlines()
            known = (*_KNOWN_PROGRAMS, *((_OURS,) if self.command.starts else ()))
            strange = [line for line in lines if not any(one in line for one in known)]
            if strange:
                yield Fault(PROGRAM, point.operation, "; ".join(strange))


def _difference(name: str, got: object, wanted: object) -> str:
    """Show what differs from where it does."""
    texts = (repr(got), repr(wanted))
    first = next((i for i, pair in enumerate(zip(*texts, strict=False)) if len({*pair}) > 1), 0)
    shown = (text[max(0, first - 30) : first + 120] for text in texts)
    return f"{name}: ...{next(shown)}, expected ...{next(shown)}"


def _told(ended: Ended) -> str:
    return f"{' '.join(ended.command[4:])} ended with {ended.status}: {ended.text[-_TAIL:].strip()}"


def sample(points: list[Point], number: int, seed: int) -> list[Point]:
    """Choose states, in their order."""
    if number >= len(points):
        return points
    chosen = sorted(random.Random(seed).sample(range(len(points)), number))
    return [points[index] for index in chosen]


def table(results: Iterable[Result]) -> str:
    """Return a table of commands: operations, states, and how many ended in each fault."""
    heads = ("operations", "states", "tried", *FAULTS)
    lines = [f"{'command':<30}" + "".join(f"{head:>12}" for head in heads)]
    total = Result("all")
    for one in (*results, total):
        counts = Counter(fault.kind for fault in one.faults)
        cells = (one.operations, one.states, one.tried, *(counts[kind] for kind in FAULTS))
        lines.append(f"{one.command:<30}" + "".join(f"{cell:>12}" for cell in cells))
        if one is not total:
            total.operations += one.operations
            total.states += one.states
            total.tried += one.tried
            total.faults += one.faults
    return "\n".join(lines)
