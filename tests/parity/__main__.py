"""`python -m tests.parity`: compare the library with the reference vectors of the originals.

Prints one line per array (largest absolute and relative error, tolerance, verdict) and closes with
`N passed, N failed`; the exit status is 1 when something failed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import os
import pathlib
import pkgutil
import sys

from tests import parity

if __name__ == "__main__":  # Whoever imports this module keeps his own.
    # Float32 sums depend on how many threads share them, and batch norm over the few cells of
    # SSD320's coarse levels magnifies the last bit: with one thread gradients differ by 2 % from
    # the vectors, with two they agree to every digit. To be set before TensorFlow is imported.
    os.environ.update(TF_NUM_INTRAOP_THREADS="2", TF_NUM_INTEROP_THREADS="2", OMP_NUM_THREADS="2")

# Floor of the tolerances on other devices than a CPU, see `harness.Report`: sums in another order
# move what batch norm over a few values magnifies.
FLOOR = 1e-3


def systems() -> list[str]:
    """List the systems that have a comparison."""
    return sorted(module.name for module in pkgutil.iter_modules(parity.__path__) if module.ispkg)


def main(argv: list[str] | None = None) -> int:
    """Run the comparisons that the arguments name and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.parity",
        description="Compare the library with reference vectors (docs/reference/README.md).",
    )
    parser.add_argument("--system", choices=systems(), help="one system instead of all")
    parser.add_argument(
        "--vectors", help="folder with the system's vectors instead of tests/parity/vectors/SYSTEM"
    )
    parser.add_argument("--only", nargs="*", help="run these sections only (unread keys then fail)")
    parser.add_argument("--device", help="device to compute on, as --device of the commands")
    parser.add_argument("--json", help="file for the counts and the lines that are furthest away")
    arguments = parser.parse_args(argv)
    if arguments.vectors and not arguments.system:
        parser.error("--vectors is the folder of one system: name it with --system")
    names = [arguments.system] if arguments.system else systems()
    scope, floor = contextlib.nullcontext(), 0.0
    if arguments.device:
        scope, floor = _on_device(arguments.device)
    failed, rows = [], []
    with scope:
        for name in names:
            folder = arguments.vectors or parity.VECTORS / name
            if _compare(name, folder, arguments.only, floor, rows):
                failed.append(name)
    if arguments.json:
        _write(arguments.json, rows)
    if len(names) > 1:
        print(f"{len(names) - len(failed)} systems agree; differ: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def _on_device(name: str) -> tuple[contextlib.AbstractContextManager, float]:
    """Choose a device; return a scope that places on it, and the floor of its tolerances.

    Not the scope of its strategy: sections call optimizers by themselves, which strategies refuse.
    """
    import tensorflow as tf

    from ssd_centernet.runtime import ascend
    from ssd_centernet.runtime.device import select_device

    # The arrays are float32; a GPU would round factors to 11 bits.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    strategy = select_device(name)
    # An adapter that replaces the default device has the default strategy, as the CPU has.
    if strategy is tf.distribute.get_strategy() and ascend.opened_npu() is None:
        return contextlib.nullcontext(), 0.0
    (device,) = strategy.extended.worker_devices
    return tf.device(device), FLOOR


def _write(path: str, rows: list) -> None:
    """Write the counts, what failed, and the lines that are furthest away for their arrays."""
    wrong = [row for row in rows if not row.passed]
    furthest = sorted(rows, key=lambda row: (row.passed, -(row.share or 0.0)))
    found = {"passed": len(rows) - len(wrong), "failed": len(wrong)}
    found["worst"] = [dataclasses.asdict(row) for row in furthest[:12]]
    plain = {"default": lambda value: value.item() if hasattr(value, "item") else str(value)}
    pathlib.Path(path).write_text(json.dumps(found, indent=1, **plain) + "\n", encoding="utf-8")


def _compare(
    name: str, folder: str | pathlib.Path, only: list[str] | None, floor: float, rows: list
) -> int:
    """Compare one system with a folder of vectors, add its lines to `rows`; 0 when all agree."""
    from tests.parity import harness

    system = importlib.import_module(f"tests.parity.{name}")
    print(f"{name}, {folder}")
    sections = {key: call for key, call in system.SECTIONS.items() if not only or key in only}
    vectors = harness.Vectors(folder, optional=system.OPTIONAL_FILES)
    report = harness.Report(floor=floor)
    status = harness.run(sections, vectors, report, system.DELIBERATE)
    rows += report.rows
    return status


if __name__ == "__main__":
    sys.exit(main())
