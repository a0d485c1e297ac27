"""What a restoration did, tensor by tensor."""

from __future__ import annotations

import dataclasses

_CAP = 5


@dataclasses.dataclass(frozen=True)
class RestoreTable:
    """What a restoration did with the variables of a detector and the tensors of a checkpoint.

    Attributes:
        path: of the file, or the prefix of the checkpoint's files.
        convention: whose names the tensors have.
        kind: "classification", "detection" or "full".
        restored: (tensor, variable, shape) of each variable that was set.
        classes: (tensor, variable, classes reused, classes of the detector) of each variable of
            which the rows of known classes were set.
        fresh: variables left as they are: of other parts, or excluded.
        skipped: tensors of the checkpoint that were not used.
        missing: (tensor, variable) that are needed but not in the checkpoint.
        mismatched: (tensor, its shape, variable, its shape).
        digests: (file, its SHA-256) of what was read.
        notes: what was done to fit the file, and where its network differs from this one.
    """

    path: str
    convention: str
    kind: str
    restored: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    classes: tuple[tuple[str, str, int, int], ...] = ()
    fresh: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    mismatched: tuple[tuple[str, tuple[int, ...], str, tuple[int, ...]], ...] = ()
    digests: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return the numbers in one line."""
        by_class = f"{len(self.classes)} by class, " if self.classes else ""
        return (
            f"weights from {self.path} ({self.convention}, {self.kind}): {len(self.restored)} "
            f"variables restored, {by_class}{len(self.fresh)} left fresh, {len(self.missing)} "
            f"missing, {len(self.mismatched)} of another shape; {len(self.skipped)} tensors of "
            "the checkpoint skipped"
        )

    def report(self, cap: int | None = _CAP) -> str:
        """List all tensors, one per line, after the summary.

        Args:
            cap: largest number of lines of each kind; None for all.

        Returns:
            Several lines of text.
        """
        rows = {
            "missing": [f"{tensor}, for {variable}" for tensor, variable in self.missing],
            "mismatched": [
                f"{tensor} {list(got)}, needed {list(want)} for {variable}"
                for tensor, got, variable, want in self.mismatched
            ],
            "by class": [
                f"{tensor} -> {variable}, {reused} of {count} classes"
                for tensor, variable, reused, count in self.classes
            ],
            "restored": [
                f"{tensor} -> {variable} {list(shape)}" for tensor, variable, shape in self.restored
            ],
            "fresh": list(self.fresh),
            "skipped": list(self.skipped),
        }
        lines = [self.summary(), *(f"  note        {note}" for note in self.notes)]
        lines += [f"  {'sha256':<10}  {digest}  {file}" for file, digest in self.digests]
        for label, texts in rows.items():
            shown = texts[:cap]
            lines += [f"  {label:<10}  {text}" for text in shown]
            if len(texts) > len(shown):
                lines.append(f"  {label:<10}  ... and {len(texts) - len(shown)} more")
        return "\n".join(lines)

    def __str__(self) -> str:
        """Return the whole report."""
        return self.report(None)


class UnfitError(ValueError):
    """The tensors of a checkpoint do not fit the variables.

    Attributes:
        table: the table of the restoration that was refused.
    """

    def __init__(self, message: str, table: RestoreTable):
        """Keep the message and the table."""
        super().__init__(message)
        self.table = table
