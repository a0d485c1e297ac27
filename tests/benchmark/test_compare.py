"""The comparison with peers: its processes, its ratios, and the page that is made of them."""

import ast
import json
import os
import sys

import numpy as np
import pytest

from tests.process import ROOT, run
from tools import benchmarks_doc

BENCHMARKS = ROOT / "benchmarks"
PAGE = ROOT / "docs" / "benchmarks.md"


@pytest.fixture
def modules(monkeypatch):
    """`rows` and `turns` as `compare.py` imports them."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    import rows
    import turns

    yield rows, turns
    for name in {"rows", "turns"} - before:
        del sys.modules[name]


def figures(rates, costs, peak):
    windows = [list(pair) for pair in zip(rates, costs, strict=True)]
    return {"windows": windows, "peak_mb": peak}


def test_page_is_made_of_the_results():
    page = PAGE.read_text(encoding="utf-8")
    results = json.loads(benchmarks_doc.RESULTS.read_text(encoding="utf-8"))
    assert page == benchmarks_doc.document(page, results), (
        "write it again: python -m tools.benchmarks_doc docs/benchmarks.md"
    )


def test_results_have_rows_with_the_goals_of_today(modules):
    rows, _ = modules
    results = json.loads(benchmarks_doc.RESULTS.read_text(encoding="utf-8"))
    measured = [one["row"] for one in results]
    assert measured == [name for name in rows.ROWS if name in measured]
    for result in results:
        goals = {(x.ours, y): x for x in rows.ROWS[result["row"]].ratios for y in x.others}
        for line in result["ratios"]:
            ratio = goals[line["ours"], line["other"]]
            assert (line["goal"], line["memory_goal"]) == (ratio.goal, ratio.memory)


def test_contestants_exist_and_ratios_name_them(modules):
    rows, _ = modules
    for row in [*rows.ROWS.values(), *rows.GPU_ROWS.values()]:
        for contestant in row.contestants:
            module, _, function = contestant.target.partition(":")
            tree = ast.parse((BENCHMARKS / "contestants" / f"{module}.py").read_text("utf-8"))
            names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
            assert function in names, contestant.target
        names = [contestant.name for contestant in row.contestants]
        assert len(set(names)) == len(names)
        for ratio in row.ratios:
            assert {ratio.ours, *ratio.others} <= set(names)


def test_ratios_are_medians_over_neighbouring_windows(modules):
    rows, turns = modules
    contestants = {
        "we": figures([2.0, 4.0, 8.0], [10.0, 20.0, 40.0], 50.0),
        "they": figures([1.0, 4.0, 2.0], [30.0, 20.0, 80.0], 100.0),
    }
    row = rows.Row("", (), (rows.Ratio("we", ("they", "others"), 2.5, memory=0.6),))
    # Neighbours: 2, 1 and 4, and 3, 1 and 2. Medians of both sides would give 4 / 2 and 30 / 20.
    (line,) = turns.ratios(row, contestants)
    assert line["wall"] == 2.0 and (line["lowest"], line["highest"]) == (1.0, 4.0)
    assert line["cpu"] == 2.0 and line["reached"] == "no"
    assert line["memory"] == 0.5 and line["memory_reached"] == "yes"
    row = rows.Row("", (), (rows.Ratio("we", ("they",), 0.6, cost=True),))
    (line,) = turns.ratios(row, contestants)
    assert line["wall"] == 0.5 and line["reached"] == "yes"
    contestants["they"] = figures([1.0, 4.0, 2.0], [15.0, 15.0, 15.0], 100.0)
    (line,) = turns.ratios(row, contestants)
    # Of 0.67, 1.33 and 2.67.
    assert line["cpu"] == 1.333 and line["reached"] == "by the clock alone"


def test_processes_take_turns_and_are_ended(modules, tmp_path, monkeypatch):
    rows, turns = modules
    serving = tmp_path / "serving.py"
    source = (BENCHMARKS / "contestants" / "serving.py").read_text("utf-8")
    serving.write_text(source.replace("contestants.{module}", "{module}"))
    # What it does while it has no window would move its clock.
    (tmp_path / "counting.py").write_text(
        "import threading, time\n"
        "def make(options):\n"
        "    count = [0]\n"
        "    def tick():\n"
        "        while True:\n"
        "            time.sleep(0.001)\n"
        "            count[0] += 1\n"
        "    threading.Thread(target=tick, daemon=True).start()\n"
        "    def work(units):\n"
        "        before, count[0] = count[0], 0\n"
        "        time.sleep(0.02 * units)\n"
        "        return before + 1\n"
        "    return work\n"
    )
    monkeypatch.setattr(turns, "_SERVING", serving)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    seen = []
    start = turns.Process.__init__

    def remembered(process, *arguments):
        start(process, *arguments)
        seen.append(process._process.pid)

    monkeypatch.setattr(turns.Process, "__init__", remembered)

    def one(name, target):
        return rows.Contestant(name, target, rows.OURS, ["numpy"], {})

    contestants = (
        one("a", "counting:make"),
        one("b", "counting:make"),
        one("missing", "no_such_module:make"),
        one("broken", "counting:no_such_function"),
        rows.Contestant("peer", "counting:make", rows.PEERS, [], {}),
    )
    pythons = {rows.OURS: ROOT / sys.executable, rows.PEERS: tmp_path / "none" / "bin" / "python"}
    row = rows.Row("", contestants, ())
    measured = turns.measure(row, {"seconds": 0.2}, pythons, windows=3)
    assert list(measured["contestants"]) == ["a", "b"]
    for found in measured["contestants"].values():
        assert found["versions"] == {"numpy": np.__version__} and found["peak_mb"] > 5
        assert len(found["windows"]) == 3
    reasons = measured["not_measured"]
    assert [failed for _, failed in reasons] == [False, False, True]
    assert "bash scripts/setup.sh peers" in reasons[0][0]
    assert reasons[1][0] == "missing: no_such_module is not installed"
    assert reasons[2][0] == "broken: it ended with status 1"
    assert len(seen) == 4
    for pid in seen:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_as_many_anchors_as_asked_have_something_to_detect(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from contestants.likely import background_bias

    logits = np.random.default_rng(0).normal(0.0, 2.0, (500, 21))
    for count in (1, 37):
        changed = logits.copy()
        changed[:, 0] += background_bias(logits, 0.02, count)
        scores = np.exp(changed) / np.exp(changed).sum(axis=1, keepdims=True)
        assert np.count_nonzero(scores[:, 1:].max(axis=1) > 0.02) == count


def test_rows_that_are_measured_again_replace_their_own_alone(modules, tmp_path, monkeypatch):
    import compare

    monkeypatch.delitem(sys.modules, "compare")
    path = tmp_path / "results.json"
    compare.write(path, [{"row": "metric_2000", "new": 0}, {"row": "metric_1000", "new": 0}])
    compare.write(path, [{"row": "metric_1000", "new": [[1.5, 2.0]]}])
    assert json.loads(path.read_text()) == [
        {"row": "metric_1000", "new": [[1.5, 2.0]]},
        {"row": "metric_2000", "new": 0},
    ]
    assert "[1.5, 2.0]" in path.read_text()


def test_page_without_marks_is_refused():
    with pytest.raises(ValueError, match="each once"):
        benchmarks_doc.document("# Benchmarks\n", [])


@pytest.mark.slow(minutes=2)
def test_small_rows_run_without_peers_and_make_a_page(warm, tmp_path):
    names = ["detect_vgg16_1", "input_512", "metric_1000"]
    command = [warm, BENCHMARKS / "compare.py", "--small", "--windows=2"]
    options = ["--seconds=0.05", f"--peers={tmp_path / 'none'}", f"--json={tmp_path / 'r.json'}"]
    said = run(*command, *options, f"--rows={','.join(names)}", limit=400).stdout
    assert "not measured: torchvision, eager: " in said and "setup.sh peers" in said
    results = json.loads((tmp_path / "r.json").read_text())
    assert sorted(one["row"] for one in results) == sorted(names)
    by_row = {one["row"]: one for one in results}
    assert [len(by_row[name]["contestants"]) for name in names] == [2, 3, 2]
    assert [len(by_row[name]["ratios"]) for name in names] == [1, 2, 1]
    for result in results:
        for found in result["contestants"].values():
            assert len(found["windows"]) == 2 and min(found["windows"][0]) > 0
            assert found["peak_mb"] > 50
    page = f"head\n{benchmarks_doc.BEGIN}\nold\n{benchmarks_doc.END}\ntail\n"
    made = benchmarks_doc.document(page, results)
    assert made.startswith("head\n") and made.endswith("\ntail\n") and "old" not in made
    assert "| CocoEvaluator / hotcoco alone |" in made and "AMX" in made
    assert benchmarks_doc.document(made, results) == made
