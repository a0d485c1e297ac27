"""docs/launch.md: a line to type for each of a readme's; all scripts and programs, and no other."""

import os
import re
import shlex

import pytest

from ssd_centernet.cli.originals.lines import _STARTERS, PROGRAMS
from tests.cli.vendor_lines import OTHERS as OTHER_LINES
from tests.cli.vendor_lines import TRAININGS, split
from tests.process import ROOT
from tests.scripts import test_smoke
from tests.scripts.test_run_scripts import EXPECTED, LATENCIES, OTHERS, PREPARING, SCRIPTS, name_of

PAGE = (ROOT / "docs" / "launch.md").read_text(encoding="utf-8")
RUN = {*EXPECTED, *OTHERS, *LATENCIES, *PREPARING}
# Other commands of the tables, and the tests that run them.
ELSEWHERE = {
    r"(TENSORFLOW=installed )?bash scripts/setup\.sh": "scripts/test_docker.py",
    r"(DEVICE=\w+ )?bash scripts/run_docker\.sh": "scripts/test_docker.py",
    r"docker build ": "scripts/test_docker.py",
    r"DOWNLOAD=1 bash scripts/prepare_coco\.sh": "scripts/test_run_scripts.py",
    r"ssd_centernet weights fetch \w+$": "cli/test_weights.py",
    r"ssd_centernet predict$": "test_end_to_end.py",
}


def words(line):
    """Of a command line; of a program without its folder."""
    return {
        os.path.basename(word) if word.endswith(".py") and "config" not in word else word
        for word in split(line)
    }


KNOWN = [words(line) for line in (*(row[0] for row in TRAININGS), *OTHER_LINES)]


def tables_of_readmes():
    """Title -> rows of (what a readme has, what to type here), in backquotes where it is code."""
    found = {}
    for section in re.split(r"^## ", PAGE, flags=re.M):
        if section.startswith("Readme of "):
            rows = [line[2:-2].split(" | ") for line in section.splitlines() if line[:2] == "| "]
            found[section.partition("\n")[0]] = rows[1:]
    return found


@pytest.mark.parametrize("title", tables_of_readmes())
def test_what_to_type_is_run_by_the_tests(title):
    rows = tables_of_readmes()[title]
    assert len(rows) > 8 and all(len(row) == 2 for row in rows)
    for _, ours in rows:
        for code in re.findall(r"`([^`]+)`", ours):
            if script := re.match(r"(?:\w+=\S+ )*bash scripts/(\w+/\w+)\.sh\b", code):
                assert script[1] in RUN, code
                flags = [word for word in shlex.split(code) if word.startswith("--")]
                known = {"data_path", "model_dir", "batch_size", "nnodes", "node_rank"}
                assert {flag[2:].partition("=")[0] for flag in flags} <= known
            elif code.startswith("ssd_centernet compat -- "):
                line = words(code.removeprefix("ssd_centernet compat -- "))
                answered = "--help" in line or "calc_fps.py" in line  # Of these there is no plan.
                assert answered or any(line <= known for known in KNOWN), code
            elif code.startswith(("bash", "docker ", "ssd_centernet ")) or " bash " in code:
                tests = [test for pattern, test in ELSEWHERE.items() if re.match(pattern, code)]
                assert tests and (ROOT / "tests" / tests[0]).exists(), code


def test_the_scripts_that_the_readmes_name_have_lines():
    """Each name of a script in the tables of scripts is one of a readme, or of its repository."""
    typed = " ".join(ours for rows in tables_of_readmes().values() for _, ours in rows)
    left = {name for name in RUN if f"bash scripts/{name}.sh" not in typed}
    # NVIDIA's and the Model Garden's, which no readme of the four names.
    others = re.compile(r"ssd320/SSD320_\w+|centernet/hourglass104_\w+")
    assert not [name for name in left if not others.fullmatch(name)]


def test_folders_of_recipes_are_those_of_their_readme():
    text = (ROOT / "gin_configs" / "README.md").read_text(encoding="utf-8")
    folders = {path.name for path in (ROOT / "gin_configs").iterdir() if path.is_dir()}
    assert {*re.findall(r"`(\w+)/`", text)} == folders
    for name in re.findall(r"--gin_file=(\w+/\w+)", text):
        assert (ROOT / "gin_configs" / f"{name}.gin").exists(), name


def test_scripts_of_the_page_are_those_that_are_run():
    """Section by section, each for a folder; what is tested is what is there: nothing is exempt."""
    named = set()
    for section in re.split(r"^##+ ", PAGE, flags=re.M):
        if folder := re.match(r".*\(`scripts/(\w+)/`\)", section):
            named |= {f"{folder[1]}/{name}" for name in re.findall(r"`(\w+)\.sh`", section)}
    there = {name_of(path) for path in SCRIPTS}
    assert named == there
    run = RUN - {*PREPARING}  # The parameters of the tests that run them.
    assert there == RUN
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
