"""What the files of an evaluation take the place of."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ssd_centernet.files import read_object
from ssd_centernet.run_directory import EVALUATION_METRICS_NAME, REPORT_NAME


def describe_replaced(
    directory: str | os.PathLike, *, split: str | None = None, page: bool = False
) -> list[str]:
    """Say what is lost in a folder when an evaluation is written to it: call it before.

    Args:
        directory: of the files.
        split: that was evaluated, where it is known.
        page: whether a page is among the files.

    Returns:
        A line each: numbers of another split, and a page, which would not be of these numbers.
    """
    numbers, report = Path(directory, EVALUATION_METRICS_NAME), Path(directory, REPORT_NAME)
    was, told = (read_object(numbers) or {}).get("split"), []
    if split and isinstance(was, str) and was != split:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(os.path.getmtime(numbers)))
        told.append(
            f"the files in {os.fspath(directory)} are of {split} now: they replace those of {was} "
            f"of {when}. `ssd_centernet evaluate --output_dir` writes to another folder"
        )
    if not page and report.is_file():
        told.append(
            f"{report} was of an earlier evaluation and is removed; `ssd_centernet evaluate "
            "--report` writes one of the new numbers"
        )
    return told
