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


def test_two_runs_are_measured_on_rendered_scenes(model_dir, tmp_path):
    path = tmp_path / "pairs.json"
    # 0.0 keeps every candidate: the trained detector finds something on each scene.
    few = "--gin_params=SSDDecoder.score_threshold = 0.0"
    run(*COMMAND, f"--pairs={model_dir}:{model_dir}", f"--json={path}", "--rounds=1", few)
    (found,) = json.loads(path.read_text())
    first, second = found["detections"]
    assert first == second > 0.0
    assert found["parameters"][0] == found["parameters"][1] > 0


def test_a_run_has_no_steps_to_measure(model_dir):
    done = run(*COMMAND, f"--pairs={model_dir}:ssd_demo", "--work=step", status=2)
    assert f"{model_dir} is a run, which detects on one scene at a time" in done.stderr
