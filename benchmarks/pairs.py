"""Compare two forms of the same work, in windows that take turns: recipes, or states of the code.

    python benchmarks/pairs.py --pairs=ssd300_vgg16_plus:ssd300_vgg16 --rounds=9
    python benchmarks/pairs.py --pairs=ssd_demo:ssd_demo --work=step --before=OTHER_CHECKOUT
    python benchmarks/pairs.py --pairs=runs/plus/model:runs/demo/model --units=24

Each side is a process of its own on the CPU; the other one is stopped meanwhile, and the order
changes from round to round. Prints medians, and the median of the ratios of neighbouring windows,
the first side over the second. `detect` goes from uint8 pictures to detections; the weights are
random, so that an SSD's logits of classes are scaled and shifted until about 200 anchors of the
picture have a class above the threshold. Where a side is the directory of a run, its trained
detector finds what is on rendered scenes, one scene a unit. With --before the second side imports
the library from another checkout.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_SCENES = 24


def _shift(detector, pictures) -> None:
    """Let about so many anchors of a picture score above the decoder's threshold."""
    import numpy as np
    from contestants.likely import CANDIDATES, SPREAD, background_bias

    layers, threshold = detector.head.class_layers, detector.decoder.score_threshold
    inputs = detector.preprocessing(pictures[:1])

    def logits() -> np.ndarray:
        return detector(inputs, training=False)["class_logits"].numpy()[0].astype(np.float64)

    spread = float(np.std(logits()))
    for layer in layers:
        layer.kernel.assign(layer.kernel * (SPREAD / spread))
    found = logits()
    if found.shape[-1] > detector.num_classes:  # A softmax, with background.
        shifts = [background_bias(found, threshold), *[0.0] * detector.num_classes]
    else:
        best = np.sort(found.max(axis=-1))[::-1]
        wanted = np.log(threshold / (1.0 - threshold)) - best[min(CANDIDATES, len(best) - 1)]
        shifts = [float(wanted)] * detector.num_classes
    for layer in layers:
        values = layer.bias.numpy().reshape(-1, len(shifts)) + np.float32(shifts)
        layer.bias.assign(values.reshape(-1))


def _detections(detector, batches: Sequence) -> tuple[dict, Callable[[int], None]]:
    """Return facts about a detector, and what detects on so many of the batches in turn."""
    import numpy as np

    found = [int(detector.detect(batch)["count"].numpy().sum()) for batch in batches]
    facts = {"parameters": detector.count_params(), "detections": float(np.mean(found))}
    turns = itertools.cycle(batches)

    def work(units: int) -> None:
        for _ in range(units):
            for value in detector.detect(next(turns)).values():
                value.numpy()

    return facts, work


def _prepared(given: argparse.Namespace) -> tuple[dict, Callable[[int], None]]:
    """Return facts about this side, and its work."""
    import numpy as np

    import ssd_centernet as sc
    from ssd_centernet import config
    from ssd_centernet.benchmark.step import NUM_CLASSES, prepare
    from ssd_centernet.recipe import Recipe

    if Path(given.side).is_dir():
        from ssd_centernet.export.pictures import rendered_pictures

        detector = sc.load(given.side, settings=given.gin_params)
        return _detections(detector, [np.stack([one]) for one in rendered_pictures(_SCENES)])
    config.parse([given.side, *given.gin_file], given.gin_params)
    recipe = Recipe().replace(batch_size=given.batch_size)
    if given.work == "step":
        return {}, prepare(recipe, None, device="cpu")[0]
    detector = recipe.detector(default_num_classes=NUM_CLASSES)
    one = np.random.default_rng(0).integers(0, 256, (1, *detector.image_size, 3), np.uint8)
    pictures = np.repeat(one, given.batch_size, axis=0)
    if detector.decoder.score_threshold > 0.0:  # Else a fixed number of peaks is decoded.
        _shift(detector, pictures)
    return _detections(detector, [pictures])


def _work(given: argparse.Namespace) -> None:
    """Do a window of the work for each line of the standard input, and print what it took."""
    facts, work = _prepared(given)
    work(2)
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        began, wall = time.process_time(), time.perf_counter()
        work(given.units)
        took = [time.process_time() - began, time.perf_counter() - wall]
        print(json.dumps([value / given.units for value in took]), flush=True)


class _Side:
    """A process that works in its own turns only."""

    def __init__(self, recipe: str, words: Sequence[str], code: Path):
        places = [str(code), str(code / "benchmarks"), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
        environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        self._process = subprocess.Popen(
            [sys.executable, __file__, *words, f"--side={recipe}"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self) -> list | dict:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a measuring process ended; its message stands above")
        return json.loads(line)

    def window(self) -> tuple[float, float]:
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write("window\n")
        self._process.stdin.flush()
        took = self.answer()
        self._process.send_signal(signal.SIGSTOP)
        return tuple(took)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def compare(pair: Sequence[str], given: argparse.Namespace, words: Sequence[str]) -> dict:
    """Measure a pair; return its figures."""
    codes = (ROOT, given.before or ROOT)
    with contextlib.ExitStack() as stack:
        sides = []
        for recipe, code in zip(pair, codes, strict=True):
            sides.append(_Side(recipe, words, code))
            stack.callback(sides[-1].stop)
        facts = [side.answer() for side in sides]
        windows: list[list[tuple[float, float]]] = [[], []]
        for number in range(given.rounds):
            for place in (0, 1) if number % 2 else (1, 0):
                windows[place].append(sides[place].window())
    found = {"pair": list(pair), "work": given.work, "batch_size": given.batch_size}
    found |= {name: [one.get(name) for one in facts] for name in ("parameters", "detections")}
    for index, name in enumerate(("processor", "wall")):
        times = [[one[index] for one in side] for side in windows]
        ratios = [first / second for first, second in zip(*times, strict=True)]
        found[name] = {
            "ms": [round(1000.0 * statistics.median(side), 2) for side in times],
            "ratio": round(statistics.median(ratios), 3),
            "range": [round(min(ratios), 3), round(max(ratios), 3)],
        }
    return found


def _check_runs(parser, given: argparse.Namespace, sides: Sequence[str]) -> None:
    """Refuse what a trained detector leaves no choice of."""
    runs = [side for side in sides if Path(side).is_dir()]
    if runs and (given.work != "detect" or given.batch_size != 1 or given.gin_file):
        parser.error(f"{runs[0]} is a run, which detects on one scene at a time as it was trained")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--pairs", help="FIRST:SECOND,...: recipes or runs; the ratio is first / second"
    )
    parser.add_argument("--work", default="detect", choices=("detect", "step"))
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--units", type=int, default=1, help="detections or steps of a window")
    parser.add_argument("--before", type=Path, help="checkout that the second side imports")
    parser.add_argument("--gin_file", action="append", default=[], help="after each recipe")
    parser.add_argument("--gin_params", action="append", default=[])
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    if given.side:
        _work(given)
        return
    pairs = [tuple(pair.split(":")) for pair in (given.pairs or "").split(",")]
    if any(len(pair) != 2 or not all(pair) for pair in pairs):
        parser.error(f"--pairs={given.pairs}: expected FIRST:SECOND,...")
    if min(given.rounds, given.units, given.batch_size) < 1:
        parser.error("--rounds, --units and --batch_size are at least 1")
    _check_runs(parser, given, [side for pair in pairs for side in pair])
    words, results = list(sys.argv[1:] if argv is None else argv), []
    for pair in pairs:
        found = compare(pair, given, words)
        results.append(found)
        for name in ("processor", "wall"):
            figures = found[name]
            first, second = figures["ms"]
            low, high = figures["range"]
            said = f"{first:9.2f} / {second:9.2f} ms = {figures['ratio']:.3f}"
            print(f"{' / '.join(pair)}, {name}: {said} ({low:.3f} to {high:.3f})", flush=True)
        if None not in found["parameters"]:
            print(f"  parameters: {found['parameters'][0]:,} / {found['parameters'][1]:,}")
            print("  detections of a unit: {:.1f} / {:.1f}".format(*found["detections"]))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
