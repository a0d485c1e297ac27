"""The part of `scripts/check_device.sh` that needs Horovod, with two processes on a CPU."""

import math
import sys

from tools.device_check import plan, running, verdicts


def test_two_processes_are_compared_with_one_of_the_same_images(tmp_path, warm, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(warm))
    settings = plan.Settings(
        device="cpu", quick=True, recipes=(), kinds=("several",), steps=2, limit=300.0
    )
    parts = plan.plan(settings, tmp_path / "parts", kind="CPU", devices=1)
    # tests/engines compares two devices of one process.
    parts = [part for part in parts if part.name != "several one process"]
    results = running.Results(tmp_path, settings.to_dict())
    running.run_all(parts, results, print)
    judged = verdicts.judge(results.to_dict())
    for name in ("several one device", "several two processes"):
        assert judged[name].verdict == "ok", results.to_dict()["parts"][name]
    # Other images of the same number are told apart.
    found = results.to_dict()
    for step in found["parts"]["several two processes"]["found"]:
        step["total"] *= 1.02
    assert verdicts.judge(found)["several two processes"].verdict == "FAIL"
    assert math.isfinite(step["total"])
