"""Pairs of recipes in windows that take turns, in a tiny run."""

import json
import sys

from tests.process import ROOT, run

COMMAND = [sys.executable, ROOT / "benchmarks" / "pairs.py"]
SMALL = ["--gin_params=IMAGE_SIZE = (64, 64)", "--rounds=2"]


def test_a_detection_has_times_ratios_and_parameters(tmp_path):
    path = tmp_path / "pairs.json"
    said = run(*COMMAND, "--pairs=centernet_demo_plus:centernet_demo", f"--json={path}", *SMALL)
    (found,) = json.loads(path.read_text())
    assert found["pair"] == ["centernet_demo_plus", "centernet_demo"]
    for name in ("processor", "wall"):
        low, high = found[name]["range"]
        assert 0.0 < low <= found[name]["ratio"] <= high
        assert min(found[name]["ms"]) > 0.0
        assert f"= {found[name]['ratio']:.3f} ({low:.3f} to {high:.3f})" in said.stdout
    # The sides of a box instead of offset and size.
    first, second = found["parameters"]
    assert 0.9 < first / second < 1.0


def test_half_a_pair_is_refused():
    done = run(*COMMAND, "--pairs=ssd_demo", status=2)
    assert "--pairs=ssd_demo: expected FIRST:SECOND,..." in done.stderr
