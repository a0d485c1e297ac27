"""Compare this library with its peers, in windows that take turns, and write what was measured.

    python benchmarks/compare.py --rows=train_vgg16_fp32,detect_vgg16_1 --windows=5
    python benchmarks/compare.py --rows=all --json=benchmarks/compare.json
    python benchmarks/compare.py --device=gpu --json=gpu.json

`bash scripts/setup.sh peers` makes the environment of the peers. Each contestant is a process of
its own, so that its peak memory is its own; it is stopped while another one has its window.
Whatever else the machine does so hits neighbouring windows alike. A contestant that is not
installed is told and left out.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rows import GPU_ROWS, PEERS, ROWS, Row
from turns import ROOT, measure, ratios

# Functions of contestants that read records.
_READ_RECORDS = {
    "ours:read_input",
    "ours:decode_and_resize",
    "model_garden:retinanet_input",
    "model_garden:retinanet_step",
    "model_garden:centernet_input",
    "torchvision_ssd:read_input",
}
# What a small run changes, so that it takes seconds.
_SMALL = {"images": 8, "batch_size": 2}


def machine() -> dict:
    """Describe the machine, as far as figures depend on it."""
    flags, model = set(), "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "flags":
            flags = set(value.split())
        elif key.strip() == "model name":
            model = value.strip()
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1e6
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory),
        "amx": "amx_tile" in flags,
        "avx512": "avx512f" in flags,
        "avx512_bf16": "avx512_bf16" in flags,
        "load_before": round(os.getloadavg()[0], 2),
        "gpu": _gpu(),
    }


def _gpu() -> str | None:
    """Return name and driver of the first GPU; None where the driver's program is missing."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.partition("\n")[0].strip() or None


def _write_photographs(data_dir: Path, path: Path) -> None:
    """Write JPEGs and boxes of the records as arrays, for what does not read records."""
    import numpy as np
    import tensorflow as tf

    from ssd_centernet.data import records, shards
    from ssd_centernet.data.directory import load_label_map

    files, label_map = shards.find_shards(str(data_dir), "coco_train"), load_label_map(data_dir)
    values: dict[str, np.ndarray] = {}
    count = 0
    for serialized in shards.read_records(files):
        one = records.parse_example(serialized, label_map)
        height, width = tf.io.decode_image(one["encoded"], channels=3).shape[:2]
        boxes = one["boxes"].numpy()[:, [1, 0, 3, 2]] * [width, height, width, height]
        if not len(boxes):
            continue
        labels = one["classes"].numpy()[:, np.newaxis]
        values[f"file{count}"] = np.frombuffer(one["encoded"].numpy(), np.uint8)
        values[f"boxes{count}"] = np.concatenate([boxes, labels + 1], axis=1).astype(np.float32)
        count += 1
    np.savez(path, count=count, **values)


def _prepare(arguments: argparse.Namespace, folder: Path) -> dict:
    """Return the options of all contestants, and make the data that they read."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "inductor")
    options = {"seconds": arguments.seconds, "small": arguments.small, "folder": str(folder)}
    rows = _rows(arguments.device)
    asked = {one.target for name in arguments.rows for one in rows[name].contestants}
    if not asked & _READ_RECORDS:
        return options
    from ssd_centernet.benchmark import records

    data_dir, links = Path(arguments.data_dir or folder / "records"), folder / "links"
    links.mkdir()
    if arguments.data_dir is None:
        records.write_records(data_dir, num_images=8 if arguments.small else 64)
    _write_photographs(data_dir, folder / "photographs.npz")
    return {
        **options,
        "data_dir": str(records.long_epoch(data_dir, links)),
        "photographs": str(folder / "photographs.npz"),
    }


def _rows(device: str) -> dict[str, Row]:
    return GPU_ROWS if device == "gpu" else ROWS


def _small(row: Row) -> dict:
    """Return the options that make a row small."""
    keys = {key for one in row.contestants for key in one.options}
    return {key: value for key, value in _SMALL.items() if key in keys}


def table(results: Sequence[dict]) -> str:
    """Lay the ratios out for people."""
    from ssd_centernet.text_table import text_table

    rows = [["row", "ours / other", "wall", "processor", "memory", "goal", "reached"]]
    for result in results:
        for line in result["ratios"]:
            goal = "" if line["goal"] is None else f"{'<= ' * line['cost']}{line['goal']:g}"
            rows.append(
                [
                    result["row"],
                    f"{line['ours']} / {line['other']}",
                    *(f"{line[what]:.2f}" for what in ("wall", "cpu", "memory")),
                    goal,
                    line.get("reached", ""),
                ]
            )
    return text_table(rows, words=(0, 1, 6)) if len(rows) > 1 else ""


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = f"of {', '.join(ROWS)}; with --device=gpu of {', '.join(GPU_ROWS)}; or all"
    parser.add_argument("--rows", default="all", help=names)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="what computes")
    parser.add_argument("--windows", type=int, default=5, help="of each contestant")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a window, about")
    parser.add_argument("--data_dir", help="folder of converted data; random pictures by default")
    parser.add_argument("--json", type=Path, help="file to write; its other rows are kept")
    parser.add_argument("--peers", type=Path, default=ROOT / ".venv-peers", help="environment")
    parser.add_argument("--note", default="", help="on the machine, for the page")
    parser.add_argument(
        "--small", action="store_true", help="a few channels, to try the script: no figures"
    )
    arguments = parser.parse_args(argv)
    if arguments.windows < 1 or arguments.seconds <= 0:
        parser.error("--windows is at least 1, and --seconds above 0")
    rows = _rows(arguments.device)
    arguments.rows = list(rows) if arguments.rows == "all" else arguments.rows.split(",")
    for name in arguments.rows:
        if name not in rows:
            parser.error(f"--rows={name}: expected one of {', '.join(rows)}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    arguments = parse(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    else:  # Contestants share its memory.
        os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    sys.path.insert(0, str(ROOT))
    pythons = {"ours": Path(sys.executable), PEERS: arguments.peers / "bin" / "python"}
    start, about, results, failed = time.perf_counter(), machine(), [], False
    with tempfile.TemporaryDirectory() as folder:
        options = _prepare(arguments, Path(folder))
        for name in arguments.rows:
            row, began = _rows(arguments.device)[name], time.perf_counter()
            of_row = {**options, **(_small(row) if arguments.small else {})}
            measured = measure(row, of_row, pythons, arguments.windows)
            for reason, is_failure in measured["not_measured"]:
                print(f"not measured: {reason}", flush=True)
                failed |= is_failure
            about_row = {
                "row": name,
                "title": row.title,
                "date": datetime.date.today().isoformat(),
                "seconds": round(time.perf_counter() - began),
                "machine": {**about, "note": arguments.note},
                "ratios": ratios(row, measured["contestants"]),
                "contestants": measured["contestants"],
                "not_measured": [reason for reason, _ in measured["not_measured"]],
            }
            results.append(about_row)
            if arguments.json:
                write(arguments.json, [about_row], order=_rows(arguments.device))
            for one, figures in measured["contestants"].items():
                said = f"{figures['images_per_second']:9.4g} images/s "
                said += f"({figures['lowest']:.4g} to {figures['highest']:.4g})"
                cost = f"{figures['cpu_ms_per_image']:9.4g} ms"
                print(f"{name:<21} {one:<36} {said} {cost} {figures['peak_mb']:7.0f} MB")
            print(f"{name}: {about_row['seconds']} s", flush=True)
    print(table(results))
    print(f"{time.perf_counter() - start:.0f} s")
    return int(failed)


def write(path: Path, results: Sequence[dict], *, order: Iterable[str] = ROWS) -> None:
    """Write rows into a file of results, instead of those of the same names."""
    kept = {} if not path.exists() else {one["row"]: one for one in json.loads(path.read_text())}
    kept |= {one["row"]: one for one in results}
    ordered = [kept[name] for name in order if name in kept]
    text = json.dumps(ordered, indent=1)
    # A window is a line.
    text = re.sub(r"\[\s+([\d.e+-]+),\s+([\d.e+-]+)\s+\]", r"[\1, \2]", text)
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
