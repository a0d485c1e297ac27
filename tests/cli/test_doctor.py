"""The doctor: what it reports and when it fails."""

import json
import os
import sys

import pytest

from ssd_centernet.cli import doctor
from tests.cli.command_line import as_a_user


@pytest.mark.slow
def test_doctor_reports_as_json_and_trains_a_step():
    from ssd_centernet import config

    recipe = min(config.recipes(), key=lambda name: name != "ssd_demo")  # The smallest one.
    result = as_a_user("doctor", "--json", f"--recipe={recipe}", "--device=cpu", status=0)
    report = json.loads(result.stdout)
    assert report["ok"] is True
    lines = {line["name"]: line for line in report["checks"]}
    assert {"python", "memory", "disk", "tensorflow", "tf_keras", "keras", "devices"} <= set(lines)
    tested = [line for name, line in lines.items() if name.startswith("AP by")]
    assert tested
    assert all("gives AP 1.000" in line["text"] for line in tested)
    assert lines[f"step {recipe}"]["status"] == "ok"
    assert "loss" in lines[f"step {recipe}"]["text"]
    if not os.path.exists("/proc/driver/nvidia"):
        assert result.stderr == "", "tensorflow's search for devices is no news to the user"


def test_doctor_warns_of_a_recipe_whose_package_is_missing(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "official"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "official", None)
    (line,) = doctor._train_steps(["ssd320_mobilenetv3_fpn"])
    assert (line.status, line.name) == ("warn", "step ssd320_mobilenetv3_fpn")
    assert (
        'pip install "ssd_centernet[model_garden]"' in line.text and "configurable" not in line.text
    )


def test_doctor_fails_when_something_is_broken():
    result = as_a_user("doctor", "--notrain_step", "--device=npu", status=1)
    assert "FAIL devices" in result.stdout
    assert "CANN" in result.stdout
    # One broken part does not hide the rest.
    assert "AP by" in result.stdout
