"""`scripts/check_device.sh`: results are kept, parts that fail or hang are told, others go on."""

import copy
import json
import os
import re
import shutil
import sys

import pytest

from tests.process import ROOT, environment, run
from tests.runtime import stub
from tools.device_check import page, plan, row, running, verdicts

SCRIPT = ROOT / "scripts" / "check_device.sh"
# The smallest check of everything that is compared with the CPU.
SMALL = ("--device=cpu", "--quick", "--recipes=ssd300_resnet34", "--steps=2")
PARTS = [
    "machine",
    "doctor",
    *(f"steps ssd300_resnet34 {p}" for p in ("reference", "fp32", "bf16")),
]


def check(python, folder, *arguments, status=0):
    command = ("bash", SCRIPT, *SMALL, f"--output={folder}", *arguments)
    return run(*command, env=environment(PYTHON=python), status=status)


@pytest.fixture(scope="module")
def checked(warm, tmp_path_factory):
    """The folder of a small check without its parts in float16, which take a CPU long."""
    folder = tmp_path_factory.mktemp("check") / "cpu"
    result = plan.Settings(
        device="cpu",
        quick=True,
        recipes=("ssd300_resnet34",),
        kinds=plan.KINDS,
        steps=2,
        limit=600.0,
    )
    held = running.Results(folder, result.to_dict())
    name = "steps ssd300_resnet34 fp16"
    held.keep(name, {"status": "not run", "seconds": 0.0, "said": "left out", "found": None})
    held.parts["speed gone fp32 plain"] = {**held.parts[name], "status": "failed"}
    held.keep(name, held.parts[name])
    check(warm, folder, "--only=machine,doctor,steps", status=1)
    return folder


def result_of(folder):
    return running.read(folder / "result.json")


@pytest.mark.slow
def test_a_small_check_agrees_with_the_cpu_and_goes_on(checked, warm):
    result = result_of(checked)
    judged = verdicts.judge(result)
    assert {name: judged[name].verdict for name in PARTS} == dict.fromkeys(PARTS, "ok"), judged
    assert judged["speed gone fp32 plain"].verdict == "FAIL"
    reference = result["parts"][PARTS[2]]["found"]
    same = result["parts"][PARTS[3]]["found"]
    assert len(reference["losses"]) == 2 and reference["losses"] == same["losses"]
    assert same["compared"]["detections"] > 0 and same["compared"]["outputs"] == 0.0
    rounded = result["parts"][PARTS[4]]["found"]
    assert 1e-4 < rounded["compared"]["outputs"] < 0.2, "bfloat16 has other digits"
    assert rounded["losses"] != reference["losses"]
    assert same["places"]["CPU:0"]["TopKV2"] == 1, "negatives are ranked"
    # The same call has nothing left to run but what failed, which it is not asked to repeat.
    before = (checked / "result.json").read_bytes()
    again = check(warm, checked, "--only=machine,doctor,steps", status=1)
    assert (checked / "result.json").read_bytes() == before
    assert "FAIL speed gone fp32 plain" in again.stdout
    assert "[1/" not in again.stdout
    other = check(warm, checked, "--steps=3", status=2)
    assert "steps 2, now 3" in other.stderr


@pytest.mark.slow
def test_a_device_of_another_kind_is_compared_with_the_cpu(checked, tmp_path):
    """On a stub device of the real runtime, whose kernels are those of the CPU."""
    library = stub.compile_stub(tmp_path)
    arrays = checked / "parts" / "steps_ssd300_resnet34.npz"
    words = ("--recipe=ssd300_resnet34", "--narrow", "--steps=2", "--device=mlu")
    words += (f"--reference={arrays}", f"--output={tmp_path / 'mlu.json'}")
    command = (sys.executable, "-m", "tools.device_check.steps", *words)
    run(*command, env=stub.environment(library, "MLU", 1), status=0)
    found = json.loads((tmp_path / "mlu.json").read_text())
    assert found["device"] == "MLU:0"
    assert found["places"]["CPU:0"], "what the stub has no kernel for is told"
    result = copy.deepcopy(result_of(checked))
    result["parts"][PARTS[3]]["found"] = found
    assert "on MLU:0, not on CPU" in verdicts.judge(result)[PARTS[3]].text
    result["parts"]["machine"]["found"]["kind"] = "MLU"
    assert verdicts.judge(result)[PARTS[3]].verdict == "ok"
    # What was to run on the device, and ran on the CPU, is found.
    found["device"] = "CPU:0"
    assert "on CPU:0, not on MLU" in verdicts.judge(result)[PARTS[3]].text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("outputs", 0.5, "raw outputs 0.5, at most 0.3"),
        ("outputs", None, "raw outputs inf"),
        ("targets", 0.01, "targets 0.01"),
        ("boxes", 0.01, "boxes 0.01"),
        ("scores", 0.01, "scores 0.01"),
        ("counts_differ", 1, "numbers of detections 1, at most 0"),
    ],
)
def test_what_differs_from_the_cpu_is_told(checked, key, value, said):
    result = copy.deepcopy(result_of(checked))
    result["parts"][PARTS[4]]["found"]["compared"][key] = value
    judged = verdicts.judge(result)[PARTS[4]]
    assert judged.verdict == "FAIL" and said in judged.text, judged


@pytest.mark.slow
def test_losses_that_differ_are_told(checked):
    result = copy.deepcopy(result_of(checked))
    found = result["parts"][PARTS[4]]["found"]
    found["losses"][1]["total"] *= 1.2
    assert "losses 0.2" in verdicts.judge(result)[PARTS[4]].text
    found["losses"][0]["total"] = None
    assert "first loss inf" in verdicts.judge(result)[PARTS[4]].text
    found["losses"][0] = dict(found["losses"][1], total=1.0, gradient_norm=None)
    assert "first loss 0.9" in verdicts.judge(result)[PARTS[4]].text
    # A step that float16 skips updates nothing: the next one is the first, and only it is judged.
    found["skipped"] = 1
    text = verdicts.judge(result)[PARTS[4]].text
    assert "first loss" in text and "; losses" not in text
    assert verdicts.totals(found) == [found["losses"][1]["total"]]
    found["failed"] = "the loss is not finite in step 1"
    assert verdicts.judge(result)[PARTS[4]] == ("FAIL", found["failed"])


@pytest.mark.slow
def test_the_page_and_the_row_tell_it(checked):
    result = copy.deepcopy(result_of(checked))
    shown = (checked / "result.html").read_text(encoding="utf-8")
    assert shown.startswith("<!DOCTYPE html>") and shown.rstrip().endswith("</html>")
    assert not re.search(r"(src|href)=\"(?!#)", shown), "it needs another file"
    assert str(ROOT) not in shown + json.dumps(result["parts"])
    for text in ("5 ok, 1 failed, 1 not run", "What failed", "steps ssd300_resnet34 bf16"):
        assert text in shown, text
    result["parts"]["machine"]["found"]["name"] = "A <b>chip</b> | 1"
    assert "A &lt;b&gt;chip" in page.document(result)
    cells = [cell.strip() for cell in row.row(result).strip("|").split("|")]
    assert len(cells) == len(row.HEAD)
    told = dict(zip(row.HEAD, cells, strict=True))
    assert told["parts"] == "5 of 7 ok, 1 not run (quick)"
    assert told["what failed"] == "`speed gone fp32 plain`"
    assert re.fullmatch(r"fp32 0\.0e\+00, bf16 \d\.\de-\d+", told["largest distance of losses"])
    assert "host" in told["memory"] and "/ 1" in told["device"]
    printed = run(
        sys.executable, "-m", "tools.device_check", f"--row={checked / 'result.json'}"
    ).stdout
    assert len(printed.strip().strip("|").split("|")) == len(row.HEAD)


def settings(**changes):
    given = {"device": "cpu", "quick": True, "recipes": (), "kinds": (), "steps": 2, "limit": 9.0}
    return plan.Settings(**{**given, **changes}).to_dict()


def shell(name, script, **more):
    return plan.Part(name=name, command=("sh", "-c", script), **{"limit": 30.0, **more})


def test_parts_that_fail_or_hang_do_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "_GRACE", 0.5)
    results, lines = running.Results(tmp_path, settings()), []
    written = tmp_path / "parts" / "five.json"
    deaf = "trap '' TERM; while :; do sleep 0.1; done"
    parts = [
        shell("one fails", "echo why >&2; exit 3"),
        shell("two hangs", f"echo $$ > {tmp_path}/pid; {deaf}", limit=0.6),
        shell("three dies", "kill -SEGV $$"),
        shell("four prints", """echo noise; echo '{"a": 1}'""", reads="lines"),
        shell("five writes", f"""echo '{{"b": 2}}' > {written}""", output=str(written)),
        shell("six needs", "true", needs=("one fails",)),
        plan.Part(name="seven is left out", skipped="one device"),
        shell("eight prints nothing", "true"),
        plan.Part(name="nine is missing", command=("/no/such/program",)),
    ]
    seen = []

    def say(text):
        lines.append(text)
        seen.append(len(running.read(results.path)["parts"]))

    running.run_all(parts, results, say)
    status = {name.split()[0]: one["status"] for name, one in results.parts.items()}
    assert status == {
        "one": "failed",
        "two": "time limit",
        "three": "failed",
        "four": "ended",
        "five": "ended",
        "six": "not run",
        "seven": "not run",
        "eight": "failed",
        "nine": "failed",
    }
    assert seen == list(range(1, 10)), "each result stands in the file before the next part begins"
    said = {name.split()[0]: one.get("said", "") for name, one in results.parts.items()}
    assert said["one"] == "status 3\nwhy" and "signal 11" in said["three"]
    assert "0.6 s (--limit)" in said["two"] and "'one fails'" in said["six"]
    assert results.parts["four prints"]["found"] == [{"a": 1}]
    assert results.parts["five writes"]["found"] == {"b": 2}
    assert lines[0].startswith("[1/9] one fails: failed") and "why" in lines[0]
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    judged = verdicts.judge(results.to_dict())
    assert [one.verdict for one in judged.values()].count("FAIL") == 5


def test_a_second_call_runs_what_is_missing(tmp_path):
    marks = tmp_path / "marks"
    parts = [shell(f"part {n}", f"""echo {n} >> {marks}; echo '{{}}'""") for n in range(3)]
    running.run_all(parts[:2], running.Results(tmp_path, settings()), print)
    # A limit, or a choice of parts, goes on with what is there; other settings do not.
    running.run_all(parts, running.Results(tmp_path, settings(limit=5.0, kinds=("x",))), print)
    assert marks.read_text().split() == ["0", "1", "2"]
    with pytest.raises(running.ResultError, match="other settings .quick True, now False"):
        running.Results(tmp_path, settings(quick=False))
    (tmp_path / "result.json").write_text('{"half": ')
    with pytest.raises(running.ResultError, match="cannot be read"):
        running.Results(tmp_path, settings())


def test_what_failed_is_repeated_with_what_needs_it():
    ended = {
        "status": "ended",
        "seconds": 1.0,
        "found": {"failed": None, "losses": [], "digest": "a"},
    }
    other = {**ended, "found": {**ended["found"], "digest": "b"}}
    late = {"status": "not run", "said": "needs 'x', which did not end well"}
    parts = {"bits r first": ended, "bits r second": other, "several one process": late}
    parts |= {"bits s first": ended, "bits s second": ended}
    assert verdicts.failed({"parts": parts}) == {*list(parts)[:3]}


def test_the_plan_of_each_kind_of_device(tmp_path):
    asked = plan.Settings(
        device="gpu", quick=False, recipes=("ssd_demo",), kinds=plan.KINDS, steps=20, limit=600.0
    )
    names = [part.name for part in plan.plan(asked, tmp_path, kind="GPU", devices=1)]
    assert len(set(names)) == len(names)
    assert {name.split()[0] for name in names} == set(plan.KINDS) - {"machine"}
    assert [n for n in names if n.startswith("steps")] == [
        f"steps ssd_demo {one}" for one in ("reference", "fp32", "tf32", "bf16", "fp16")
    ]
    assert "parity centernet fp32" in names and "speed ssd_demo fp16 xla" in names
    parts = {part.name: part for part in plan.plan(asked, tmp_path, kind="GPU", devices=1)}
    assert "TensorFlow sees one" in parts["several one process"].skipped
    pair = {part.name: part for part in plan.plan(asked, tmp_path, kind="GPU", devices=2)}
    assert "--devices=2" in pair["several one process"].command
    others = [part.name for part in plan.plan(asked, tmp_path, kind="MLU", devices=1)]
    assert not any("tf32" in name for name in others)


def test_without_an_environment_it_says_what_to_install(tmp_path):
    ended = run("bash", SCRIPT, env=environment(PYTHON="/no/python"), status=2)
    assert "bash scripts/setup.sh" in ended.stderr and "/no/python is missing" in ended.stderr
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {shutil.which("python3")} -I -S "$@"\n')
    bare.chmod(0o755)
    ended = run("bash", SCRIPT, env=environment(PYTHON=bare), status=2)
    assert "has no package tensorflow" in ended.stderr


def test_the_page_on_devices_has_the_head_of_the_rows():
    text = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
    head = row.table([]).splitlines()[0]
    assert head in text
    for line in text.split(head)[1].split("\n\n")[0].strip().splitlines()[1:]:
        assert line.count("|") == len(row.HEAD) + 1, line


def test_the_page_on_devices_has_the_tolerances():
    text = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
    for precision, allowed in verdicts.TOLERANCES.items():
        (line,) = re.findall(rf"^\| `{precision}`.*\|$", text, re.MULTILINE)
        assert [float(cell) for cell in line.strip("|").split("|")[1:]] == list(allowed)
