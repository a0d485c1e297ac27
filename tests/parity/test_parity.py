"""The parity harness: it passes on the reference vectors and fails on anything amiss."""

from __future__ import annotations

import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from tests.parity import VECTORS, harness
from tests.parity import __main__ as command
from tests.process import ROOT, Ended, python, run

SYSTEM = "ssd_resnet34"


@pytest.fixture
def vectors() -> pathlib.Path:
    return VECTORS / SYSTEM


def run_command(program: pathlib.Path, system: str) -> Ended:
    command = (program, "-m", "tests.parity", "--system", system)
    return run(*command, limit=900, status=None)


@pytest.mark.slow
@pytest.mark.parametrize("system", command.systems())
def test_library_agrees_with_the_reference(system, warm):
    result = run_command(warm, system)
    lines = result.stdout.splitlines()
    failed = [line for line in lines if " FAIL" in line]
    assert not failed, "\n".join(failed)
    match = re.fullmatch(r"(\d+) passed, 0 failed", lines[-1])
    assert match, result.stdout[-2000:] + result.stderr[-2000:]
    assert int(match.group(1)) > 150
    assert result.status == 0


def changed(vectors: pathlib.Path, folder: pathlib.Path, change) -> str:
    """Copy the learning-rate vectors with a change, and return what the harness says."""
    with np.load(vectors / "learning_rate.npz") as file:
        arrays = dict(file)
    change(arrays)
    np.savez(folder / "learning_rate.npz", **arrays)
    report, lines = collect()
    status = harness.run(
        {"learning_rate": section("learning_rate")}, harness.Vectors(folder), report, {}
    )
    assert status == (1 if report.failed else 0)
    return "\n".join(lines)


def section(name: str):
    from tests.parity import ssd_resnet34

    return ssd_resnet34.SECTIONS[name]


def collect() -> tuple[harness.Report, list[str]]:
    lines: list[str] = []
    return harness.Report(lines.append), lines


def test_unchanged_vectors_pass(vectors, tmp_path):
    assert re.search(r"\n\d+ passed, 0 failed$", changed(vectors, tmp_path, lambda arrays: None))


def test_corrupted_vector_fails(vectors, tmp_path):
    def corrupt(arrays):
        arrays["lr"][2, 3] *= 1.0001

    text = changed(vectors, tmp_path, corrupt)
    assert re.search(r"learning_rate.npz:2 lr .*FAIL", text)
    assert text.endswith(", 1 failed")


def test_missing_key_fails(vectors, tmp_path):
    text = changed(vectors, tmp_path, lambda arrays: arrays.pop("warmup_epochs"))
    assert "learning_rate.npz has no key 'warmup_epochs'" in text
    assert " 0 failed" not in text


def test_key_that_nobody_reads_fails(vectors, tmp_path):
    text = changed(vectors, tmp_path, lambda arrays: arrays.update(new=np.zeros(3)))
    assert re.search(r"learning_rate.npz:new .*FAIL  never read", text)
    assert text.endswith(", 1 failed")


def test_other_sets_may_lack_two_files(vectors, tmp_path):
    for name in ("network.npz", "losses.npz"):
        shutil.copy(vectors / name, tmp_path / name)
    from tests.parity import ssd_resnet34

    folder = harness.Vectors(tmp_path, optional=ssd_resnet34.OPTIONAL_FILES)
    report, lines = collect()
    section("anchors")(folder, report)
    section("variables")(folder, report)
    assert not report.failed, lines
    assert "anchors.npz is not in the folder" in "\n".join(lines)


def passes(got, want, **tolerance) -> bool:
    report, _ = collect()
    return report.check("x", got, want, **tolerance)


def test_check_tolerances():
    assert passes([1.0, 2.0], [1.0, 2.0])
    assert not passes([1.0, 2.0000002], [1.0, 2.0])
    assert passes([1.0, 2.1], [1.0, 2.0], atol=0.11)
    assert not passes([1.0, 2.1], [1.0, 2.0], atol=0.09)
    assert passes([1.0, 200.1], [1.0, 200.0], rtol=1e-3)
    assert not passes([1.1, 200.0], [1.0, 200.0], rtol=1e-3)


@pytest.mark.parametrize(
    ("got", "want"),
    [
        ([np.nan], [1.0]),
        ([1.0], [np.nan]),
        ([np.inf], [1.0]),
        ([np.inf], [-np.inf]),
        ([1.0, 1.0], [1.0]),
        ([[1.0]], [1.0]),
        ([], [1.0]),
        (["a"], ["b"]),
    ],
)
def test_check_never_passes_what_differs_in_kind(got, want):
    assert not passes(got, want, atol=1e9, rtol=1e9)


def test_check_passes_equal_nan_and_infinity():
    assert passes([np.nan, np.inf], [np.nan, np.inf])


def test_check_exact_excuses_only_where_allowed():
    report, lines = collect()
    allowed = np.array([False, True, False])
    assert report.check_exact("a", [1, 5, 3], [1, 2, 3], allowed=allowed, reason="tie")
    assert "1 allowed: tie" in lines[-1]
    assert not report.check_exact("b", [1, 2, 4], [1, 2, 3], allowed=allowed)
    assert "1 differ" in lines[-1]
    assert not report.check_exact("c", [1, 2], [1, 2, 3], allowed=allowed)


def test_other_devices_may_differ_by_a_share_of_the_array():
    lines: list[str] = []
    report = harness.Report(lines.append, floor=1e-2)
    assert report.check("x", [1.9, 100.0], [1.0, 100.0], atol=1e-6)
    assert report.rows[-1].share == pytest.approx(0.009) and "floor 0.01" in lines[-1]
    assert not report.check("x", [2.1, 100.0], [1.0, 100.0], rtol=1e-6)
    assert not report.check("x", [1.0, np.nan], [1.0, 100.0], rtol=1e-6)
    # What must be exact is exact on each device.
    assert not report.check("x", [1.1, 100.0], [1.0, 100.0])
    assert not report.check_exact("x", [1, 101], [1, 100])


def test_the_command_chooses_a_device_and_writes_what_is_furthest_away(tmp_path, capsys):
    path = tmp_path / "found.json"
    asked = ["--system", SYSTEM, "--only", "learning_rate", "--device=cpu", f"--json={path}"]
    assert command.main(asked) == 1, "all but one file is not read"
    found = json.loads(path.read_text())
    assert f"{found['passed']} passed, {found['failed']} failed" in capsys.readouterr().out
    assert found["passed"] > 0 and found["failed"] > 0
    assert not found["worst"][0]["passed"], "what failed comes first"
    # A CPU gets no wider tolerance.
    assert "floor" not in path.read_text()


def test_fake_folder_reports_everything_amiss(tmp_path):
    np.savez(tmp_path / "used.npz", a=np.arange(3), b=np.ones(2))
    np.savez(tmp_path / "unopened.npz", c=np.ones(1))
    (tmp_path / "notes.json").write_text("{}")

    def good(vectors, report):
        report.check("used.npz:a", [0, 1, 2], vectors.npz("used.npz")["a"])

    def missing_file(vectors, report):
        vectors.npz("absent.npz")

    def crash(vectors, report):
        raise RuntimeError("boom")

    sections = {"good": good, "missing_file": missing_file, "crash": crash}
    report, lines = collect()
    status = harness.run(sections, harness.Vectors(tmp_path), report, {"key": "why"})
    text = "\n".join(lines)
    assert status == 1
    assert lines[-1] == "1 passed, 5 failed"
    for part in ("used.npz:b", "unopened.npz", "notes.json", "no file absent.npz", "boom"):
        assert re.search(rf"{re.escape(part)}", text), part
    assert "key: why" in text


def test_folder_that_does_not_exist_fails(tmp_path):
    report, lines = collect()
    assert harness.run({}, harness.Vectors(tmp_path / "no"), report, {}) == 1
    assert lines[-1] == "0 passed, 1 failed"


def test_nothing_compared_is_no_success(tmp_path):
    report, lines = collect()
    assert harness.run({}, harness.Vectors(tmp_path), report, {}) == 1
    assert lines[-1] == "0 passed, 0 failed"


def test_command_knows_its_systems(capsys):
    assert SYSTEM in command.systems()
    with pytest.raises(SystemExit):
        command.main(["--system", "yolo", "--vectors", "."])
    assert "invalid choice" in capsys.readouterr().err


def test_the_threads_of_the_command_are_not_those_of_who_imports_it():
    code = "import os; before = dict(os.environ); import tests.parity.__main__; "
    python(code + "assert dict(os.environ) == before, os.environ")


def test_vectors_of_another_folder_belong_to_a_system(capsys):
    with pytest.raises(SystemExit):
        command.main(["--vectors", "."])
    assert "name it with --system" in capsys.readouterr().err


def test_every_system_is_compared_with_its_own_vectors_or_those_of_a_folder(monkeypatch, capsys):
    seen = []

    def compare(sections, vectors, report, deliberate):
        seen.append((vectors.folder, sections, deliberate))
        return int(vectors.folder.name == SYSTEM)

    monkeypatch.setattr(harness, "run", compare)
    assert command.main([]) == 1
    assert [folder for folder, *_ in seen] == [VECTORS / name for name in command.systems()]
    assert f"3 systems agree; differ: {SYSTEM}\n" in capsys.readouterr().out
    assert all(folder.is_dir() and sections for folder, sections, _ in seen)
    assert command.main(["--system", SYSTEM, "--vectors", "elsewhere", "--only", "losses"]) == 0
    assert seen[-1][0] == pathlib.Path("elsewhere") and list(seen[-1][1]) == ["losses"]


def test_every_folder_of_vectors_has_a_system_and_a_specification():
    folders = {path.name for path in VECTORS.iterdir() if path.is_dir()}
    assert folders == set(command.systems())
    for name in folders:
        assert (ROOT / "docs" / "reference" / f"{name}.md").is_file()
