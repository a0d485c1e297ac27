"""The core of the parity harness: reading vectors, comparing arrays, printing the table."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import traceback
from collections.abc import Callable, Iterable

import numpy as np


class MissingVectorError(Exception):
    """A file or key that the comparison needs is not there."""


class VectorFile:
    """One `.npz` of reference vectors that remembers which keys were read."""

    def __init__(self, path: pathlib.Path):
        """Open the file.

        Raises:
            MissingVectorError: there is no such file.
        """
        if not path.is_file():
            raise MissingVectorError(f"no file {path.name}")
        with np.load(path, allow_pickle=False) as arrays:
            self._arrays = {key: arrays[key] for key in arrays.files}
        self.name = path.name
        self._read: set[str] = set()

    def __getitem__(self, key: str) -> np.ndarray:
        """Return an array and mark it as read."""
        if key not in self._arrays:
            raise MissingVectorError(f"{self.name} has no key {key!r}")
        self._read.add(key)
        return self._arrays[key]

    def __contains__(self, key: str) -> bool:
        """Say whether there is such a key, without reading it."""
        return key in self._arrays

    def unread(self) -> list[str]:
        """List the keys that nobody asked for."""
        return sorted(set(self._arrays) - self._read)


class Vectors:
    """A folder of reference vectors that remembers which files were opened."""

    def __init__(self, folder: str | pathlib.Path, optional: Iterable[str] = ()):
        """Look at a folder.

        Args:
            folder: holds `.npz` files and perhaps `.json` files.
            optional: names of files that may be missing.
        """
        self.folder = pathlib.Path(folder)
        self.optional = frozenset(optional)
        self._files: dict[str, VectorFile | object] = {}

    def npz(self, name: str) -> VectorFile | None:
        """Open an `.npz`, once; None for an optional file that is not there."""
        if name not in self._files:
            if name in self.optional and not (self.folder / name).exists():
                return None
            self._files[name] = VectorFile(self.folder / name)
        return self._files[name]

    def json(self, name: str):
        """Read a `.json`; None for an optional file that is not there."""
        path = self.folder / name
        if not path.exists():
            if name in self.optional:
                return None
            raise MissingVectorError(f"no file {name}")
        self._files[name] = content = json.loads(path.read_text(encoding="utf-8"))
        return content

    def unread(self) -> list[str]:
        """List `file` and `file:key` of everything in the folder that nobody asked for."""
        present = sorted(p.name for p in self.folder.glob("*") if p.suffix in (".npz", ".json"))
        left = [name for name in present if name not in self._files]
        for name, file in sorted(self._files.items()):
            if isinstance(file, VectorFile):
                left += [f"{name}:{key}" for key in file.unread()]
        return left


@dataclasses.dataclass
class Row:
    """One line of the table; `share` is the largest error by the largest value of the array."""

    name: str
    passed: bool
    max_abs: float | None = None
    max_rel: float | None = None
    tolerance: str = ""
    note: str = ""
    share: float | None = None

    def __str__(self) -> str:
        """Format the line."""
        errors = ["       -" if e is None else f"{e:8.2e}" for e in (self.max_abs, self.max_rel)]
        verdict = "PASS" if self.passed else "FAIL"
        line = f"{self.name:<58} {errors[0]:>9} {errors[1]:>9}  {self.tolerance:<18} {verdict}"
        return f"{line}  {self.note}" if self.note else line


class Report:
    """Compare arrays, print a line for each and count."""

    def __init__(self, write: Callable[[str], None] = print, *, floor: float = 0.0):
        """Start an empty report.

        Args:
            write: prints a line.
            floor: share of an array's largest value by which its values may always differ, unless
                they must be exact: for devices that compute float32 otherwise. 0 for a CPU.
        """
        self.rows: list[Row] = []
        self._write = write
        self.floor = floor

    @property
    def failed(self) -> int:
        """How many lines failed."""
        return sum(not row.passed for row in self.rows)

    def add(self, row: Row) -> bool:
        """Add and print a line."""
        self.rows.append(row)
        self._write(str(row))
        return row.passed

    def say(self, text: str) -> None:
        """Print a line that counts as nothing."""
        self._write(text)

    def check(self, name: str, got, want, *, atol: float = 0.0, rtol: float = 0.0) -> bool:
        """Compare numbers: |got - want| <= atol + rtol |want|, element by element.

        Args:
            name: of the line.
            got: ours; anything NumPy takes.
            want: the reference's, of the same shape.
            atol: absolute tolerance.
            rtol: relative tolerance.

        Returns:
            Whether it passed. Values that are not finite must agree exactly, NaN included.
        """
        parts = [f"atol {atol:g}"] if atol else []
        parts += [f"rtol {rtol:g}"] if rtol else []
        parts += [f"floor {self.floor:g}"] if parts and self.floor else []
        tolerance = " ".join(parts) or "exact"
        got, want = np.asarray(got), np.asarray(want)
        if got.shape != want.shape:
            note = f"shape {got.shape}, expected {want.shape}"
            return self.add(Row(name, False, tolerance=tolerance, note=note))
        if want.dtype.kind in "USO":
            return self.add(Row(name, bool(np.all(got == want)), tolerance=tolerance))
        got, want = got.astype(np.float64), want.astype(np.float64)
        finite = np.isfinite(want)
        odd = ~finite & ~((got == want) | (np.isnan(got) & np.isnan(want)))
        odd |= finite & ~np.isfinite(got)
        both = finite & np.isfinite(got)
        error = np.abs(got[both] - want[both])
        magnitude = np.abs(want[both])
        relative = error[magnitude > 0] / magnitude[magnitude > 0]
        largest = magnitude.max(initial=0.0)
        allowed = atol + rtol * magnitude + (self.floor * largest if parts else 0.0)
        passed = not odd.any() and bool(np.all(error <= allowed))
        note = f"{odd.sum()} values not finite where the other is" if odd.any() else ""
        worst_relative = relative.max(initial=0.0)
        worst = error.max(initial=0.0)
        row = Row(name, passed, worst, worst_relative, tolerance, note)
        row.share = float(worst / largest) if largest else None
        return self.add(row)

    def check_exact(self, name: str, got, want, *, allowed=None, reason: str = "") -> bool:
        """Compare exactly, except where `allowed` is True.

        Args:
            name: of the line.
            got: ours.
            want: the reference's, of the same shape.
            allowed: bool, same shape: where the specification allows a difference.
            reason: what that allowance is.

        Returns:
            Whether it passed.
        """
        got, want = np.asarray(got), np.asarray(want)
        if allowed is None or got.shape != want.shape:
            return self.check(name, got, want)
        differs = got != want
        excused = int(np.count_nonzero(differs & allowed))
        wrong = int(np.count_nonzero(differs & ~np.asarray(allowed)))
        notes = [f"{wrong} differ"] if wrong else []
        notes += [f"{excused} allowed: {reason}"] if excused else []
        worst = float(np.abs(got.astype(np.float64) - want)[differs].max(initial=0.0))
        return self.add(Row(name, not wrong, worst, None, "exact", "; ".join(notes)))

    def check_true(self, name: str, condition, note: str = "") -> bool:
        """Add a line for a yes-or-no question; `note` is printed when the answer is no."""
        condition = bool(condition)
        return self.add(Row(name, condition, tolerance="true", note="" if condition else note))

    def close(self) -> int:
        """Print the closing line and return the exit status."""
        self._write(f"{len(self.rows) - self.failed} passed, {self.failed} failed")
        return 1 if self.failed or not self.rows else 0


def run(
    sections: dict[str, Callable[[Vectors, Report], None]],
    vectors: Vectors,
    report: Report,
    deliberate: dict[str, str],
) -> int:
    """Run all sections of a system and print the whole table.

    Args:
        sections: name -> function that compares one part; one that raises counts as failed, and the
            others still run.
        vectors: the folder.
        report: collects the lines.
        deliberate: key -> why the library differs from the reference there, on purpose.

    Returns:
        Exit status: 0 when all passed.
    """
    if not vectors.folder.is_dir():
        report.add(Row(f"folder {vectors.folder}", False, note="no such folder"))
        return report.close()
    for name, section in sections.items():
        try:
            section(vectors, report)
        except MissingVectorError as error:
            report.add(Row(name, False, note=f"missing: {error}"))
        except Exception as error:  # The other parts are still worth knowing.
            report.say(traceback.format_exc().rstrip())
            report.add(Row(name, False, note=f"{type(error).__name__}: {error}".split("\n")[0]))
    for left in vectors.unread():
        report.add(Row(left, False, note="never read: nothing was compared with it"))
    if deliberate:
        report.say("Deliberate differences from the reference:")
        for key, reason in deliberate.items():
            report.say(f"  {key}: {reason}")
    return report.close()
