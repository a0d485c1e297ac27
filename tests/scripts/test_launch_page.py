"""docs/launch.md names every run script and every program of an original, and no other."""

import re

from ssd_centernet.cli.originals.lines import _STARTERS, PROGRAMS
from tests.process import ROOT
from tests.scripts import test_smoke
from tests.scripts.test_run_scripts import EXPECTED, LATENCIES, OTHERS, PREPARING, SCRIPTS, name_of

PAGE = (ROOT / "docs" / "launch.md").read_text(encoding="utf-8")


def test_scripts_of_the_page_are_those_that_are_run():
    """Section by section, each for a folder; what is tested is what is there: nothing is exempt."""
    named = set()
    for section in re.split(r"^##+ ", PAGE, flags=re.M):
        if folder := re.match(r".*\(`scripts/(\w+)/`\)", section):
            named |= {f"{folder[1]}/{name}" for name in re.findall(r"`(\w+)\.sh`", section)}
    there = {name_of(path) for path in SCRIPTS}
    assert named == there
    run = {*EXPECTED, *OTHERS, *LATENCIES}  # The parameters of the tests that run them.
    assert run | {*PREPARING} == there
    parametrized = {
        name
        for test in (test_smoke.test_training, test_smoke.test_of_a_run, test_smoke.test_latency)
        for mark in test.pytestmark
        if mark.name == "parametrize"
        for name in mark.args[1]
    }
    assert parametrized == run
    source = (ROOT / "tests" / "scripts" / "test_run_scripts.py").read_text(encoding="utf-8")
    assert all(f'script("{name}"' in source for name in PREPARING)


def test_programs_of_the_page_are_those_that_are_run():
    table = PAGE[PAGE.index("| program | becomes |") :].partition("\n\n")[0]
    named = {
        name for row in table.splitlines() for name in re.findall(r"`([\w/]+\.(?:py|sh))`", row)
    }
    assert named == {*PROGRAMS, *(f"tools/{name}" for name in _STARTERS)}
    files = {
        path.relative_to(ROOT / "scripts" / "compat").as_posix()
        for path in (ROOT / "scripts" / "compat").rglob("[!_]*.py")
    }
    assert files == {*PROGRAMS}
    source = (ROOT / "tests" / "scripts" / "test_smoke.py").read_text(encoding="utf-8")
    lines = (ROOT / "tests" / "cli" / "vendor_lines.py").read_text(encoding="utf-8")
    for program in PROGRAMS:
        # Two more names of one program are parsed; its own is run.
        run = f'"{program}"' in source or program in ("model_main_tf2.py", "centernet.py")
        assert run and (program in lines or program == "calc_fps.py"), program
