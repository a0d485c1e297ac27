"""Tables for a terminal."""

from collections.abc import Container, Sequence

from ssd_centernet.plain_text import plain


def text_table(
    rows: Sequence[Sequence[str]], *, words: Container[int] = (0,), rule: bool = True
) -> str:
    """Align the columns of a table.

    Args:
        rows: cells of each row, the heads of the columns first; all rows of one length.
        words: columns that are aligned to the left; the others, numbers, to the right.
        rule: whether a line is drawn below the heads.

    Returns:
        Lines of text without a line end at the last.
    """
    rows = [[plain(cell, one_line=True) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if index in words else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    if rule:
        lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)
