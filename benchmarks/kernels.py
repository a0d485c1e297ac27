"""Tell how much of a step or a detection lies in oneDNN's kernels, for us and for peers.

    python benchmarks/kernels.py --rows=train_vgg16_bf16,detect_vgg16_8

Both TensorFlow and PyTorch compute convolutions on CPUs with oneDNN, which can print the time of
each of its calls. What a contestant of `compare.py` takes beyond these calls is its own; what it
takes within them is a matter of oneDNN's version and of the shapes. TensorFlow runs operations side
by side, whose times would overlap: here it runs one after another, each on all cores, so a step is
slower than otherwise. Contestants that do not use oneDNN have no time there. Run it on a machine
that does nothing else: the times are those of the clock.
"""

from __future__ import annotations

import argparse
import collections
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rows import PEERS, ROWS, Contestant
from turns import ROOT

_BEGIN, _END = "the kernels below count", "the kernels above count"
# What oneDNN calls a direction -> a column.
_COLUMNS = {
    "forward_training": "forward",
    "forward_inference": "forward",
    "backward_data": "gradient of maps",
    "backward_weights": "gradient of kernels",
}
COLUMNS = ("forward", "gradient of maps", "gradient of kernels", "other")


def kernel_times(lines: Iterable[str]) -> dict[str, float]:
    """Add up the times that oneDNN printed.

    Args:
        lines: `onednn_verbose,...,exec,cpu,KIND,IMPLEMENTATION,DIRECTION,...,MILLISECONDS`, and
            others, which do not count.

    Returns:
        Milliseconds of convolutions by direction, and of all `other` calls: reorders, pools and
        what is element by element. Products of matrices have no direction, and count as forward.
    """
    totals = dict.fromkeys(COLUMNS, 0.0)
    for line in lines:
        words = line.strip().split(",")
        if words[0] != "onednn_verbose" or "exec" not in words:
            continue
        kind, _, direction = words[words.index("exec") + 2 :][:3]
        column = "other"
        if kind == "matmul":
            column = "forward"
        elif kind in ("convolution", "inner_product", "deconvolution"):
            column = _COLUMNS.get(direction, "other")
        totals[column] += float(words[-1])
    return totals


def _work(target: str, options: dict, units: int) -> None:
    """Be a contestant: warm up, then work between two lines of the output."""
    module, _, function = target.partition(":")
    work = getattr(importlib.import_module(f"contestants.{module}"), function)(options)
    work(2)
    print(_BEGIN, flush=True)
    began = time.perf_counter()
    images = work(units)
    seconds = time.perf_counter() - began
    print(f"{_END} {json.dumps({'seconds': seconds, 'images': images})}", flush=True)


def measure(one: Contestant, python: Path, options: dict, units: int) -> dict[str, float] | None:
    """Return milliseconds an image by column, and of the `whole`; None if it cannot run."""
    words = {**one.options, **options}
    command = [str(python), __file__, "--contestant", one.target, json.dumps(words), str(units)]
    places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "ONEDNN_VERBOSE": "1", "TF_NUM_INTEROP_THREADS": "1"}
    environment |= {"PYTHONPATH": os.pathsep.join(places), "CUDA_VISIBLE_DEVICES": "-1"}
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    made = subprocess.run(command, env=environment, text=True, capture_output=True)
    _, begun, after = made.stdout.partition(_BEGIN)
    counted, ended, facts = after.partition(_END)
    if made.returncode or not (begun and ended):
        print(f"not measured: {one.name}\n{made.stderr[-2000:]}", file=sys.stderr)
        return None
    facts = json.loads(facts.splitlines()[0])
    counts = collections.Counter(kernel_times(counted.splitlines()))
    counts["whole"] = 1000.0 * facts["seconds"]
    return {name: value / facts["images"] for name, value in counts.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", required=True, help=f"of {', '.join(ROWS)}")
    parser.add_argument("--units", type=int, default=3, help="steps, or batches of detection")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-peers", help="environment")
    parser.add_argument("--small", action="store_true", help="a few channels: no figures")
    given = parser.parse_args(argv)
    for name in given.rows.split(","):
        if not name.startswith(("train_", "detect_")) or name not in ROWS:
            parser.error(f"--rows={name}: expected a train step or an inference of {list(ROWS)}")
    sys.path.insert(0, str(ROOT))
    from ssd_centernet.text_table import text_table

    pythons = {"ours": Path(sys.executable), PEERS: given.peers / "bin" / "python"}
    head = ("row", "contestant", *COLUMNS, "all kernels", "whole", "share")
    rows, failed = [head], False
    with tempfile.TemporaryDirectory() as folder:
        options = {"small": given.small, "folder": folder, "seconds": 1.0}
        if given.small:
            options["batch_size"] = 2
        for name in given.rows.split(","):
            for one in ROWS[name].contestants:
                if "_input" in one.target or one.target == "model_garden:retinanet_step":
                    continue  # It reads records.
                python = pythons[one.environment]
                found = measure(one, python, options, given.units) if python.exists() else None
                if found is None:
                    failed |= python.exists()
                    continue
                kernels = sum(found[column] for column in COLUMNS)
                figures = [*(found[column] for column in COLUMNS), kernels, found["whole"]]
                share = f"{kernels / found['whole']:.2f}"
                rows.append((name, one.name, *(f"{value:.1f}" for value in figures), share))
    print("milliseconds of an image, by the clock; operations one after another")
    print(text_table(rows, words=(0, 1)))
    return int(failed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--contestant"]:
        _work(sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4]))
    else:
        sys.exit(main())
