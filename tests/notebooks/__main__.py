"""Execute the notebooks, each in a kernel and a folder of its own.

python -m tests.notebooks                        write their outputs into the files
python -m tests.notebooks notebooks/quickstart.ipynb     those of one
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What TensorFlow and XLA say about a machine: nothing that a reader wants to know.
_NOISE = re.compile(
    r"^(WARNING: All log messages before absl|[IWE]\d{4} \d\d:|\d{4}-\d\d-\d\d \d\d:).*\n?", re.M
)


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Run all cells of a notebook in a new process that works in `folder`.

    Raises CellExecutionError with the traceback where a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    kernel = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=kernel)
    before = dict(os.environ)
    # The kernel inherits these; threads beyond the cores of a test would only wait.
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    try:
        client.execute()
    finally:  # Whoever comes after it in this process has what was before.
        os.environ.clear()
        os.environ.update(before)
    return notebook


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leave out what differs from machine to machine and say nothing."""
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": python, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.metadata, cell.id = {}, f"cell-{number}"
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            output.get("metadata", {}).clear()
            _keep_smaller_picture(output.get("data", {}))
            if output.output_type == "stream":
                text = _NOISE.sub("", output.text)
                if output.name == "stderr" or not text.strip():
                    continue
                output.text = text
                if kept and kept[-1].output_type == "stream":
                    kept[-1].text += text  # What was printed in pieces.
                    continue
            kept.append(output)
        cell.outputs = kept
    return notebook


def _keep_smaller_picture(data: dict) -> None:
    """Of a picture's two forms keep PNG, exact in lines and texts, unless JPEG is much smaller."""
    if {"image/png", "image/jpeg"} <= set(data):
        much_smaller = 3 * len(data["image/jpeg"]) < len(data["image/png"])
        del data["image/png" if much_smaller else "image/jpeg"]
        data.pop("text/plain", None)


def main(paths: list[str]) -> None:
    for path in [Path(one).resolve() for one in paths] or NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder:
            notebook = clean(execute(path, Path(folder)))
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
