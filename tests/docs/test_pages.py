"""Every command and every Python block of README.md and docs/ runs, as it is written."""

import json
import re
import shlex
import shutil
import sys

import pytest

from ssd_centernet import config
from ssd_centernet.building import build_detector
from ssd_centernet.cli._errors import message_for_user
from ssd_centernet.cli.originals.lines import PROGRAMS
from ssd_centernet.labels import LabelMap
from tests.docs import pages
from tests.docs.commands import (
    BEGIN_ANEW,
    GROUPS,
    NARROW_RESNET34,
    Step,
    name_of,
    not_run,
    shrunk,
    steps,
)
from tests.docs.pages import PAGES, SPECIFICATIONS
from tests.docs.place import NUM_PHOTOS, NUM_VAL, make_place, shell
from tests.process import ROOT, bash, run
from tests.warm import without_ours
from tools import api_doc

OTHER_PROGRAMS = {  # Programs of ours with flags of their own: how they are asked for help.
    "python -m tests.parity": "python -m tests.parity --help",
    "python benchmarks/compare.py": "python benchmarks/compare.py --help",
    "python benchmarks/evaluate.py": "python benchmarks/evaluate.py --help",
    "python benchmarks/save.py": "python benchmarks/save.py --help",
    "python benchmarks/input_forms.py": "python benchmarks/input_forms.py --help",
    "python -m tests.native": "python -m tests.native --help",
    "python benchmarks/start.py": "python benchmarks/start.py --help",
    "python benchmarks/serve.py": "python benchmarks/serve.py --help",
    "python benchmarks/tiles.py": "python benchmarks/tiles.py --help",
    "python benchmarks/growth.py": "python benchmarks/growth.py --help",
    "python benchmarks/resume.py": "python benchmarks/resume.py --help",
    "python benchmarks/rematerialize.py": "python benchmarks/rematerialize.py --help",
    "python benchmarks/pairs.py": "python benchmarks/pairs.py --help",
    "python benchmarks/kernels.py": "python benchmarks/kernels.py --help",
}

BY_GROUP = steps()


@pytest.fixture(scope="module")
def place(tmp_path_factory, warm):
    """A directory of small networks in which the commands of README have been run."""
    top = tmp_path_factory.mktemp("pages")
    place = make_place(top / "place", published=NARROW_RESNET34)
    env = shell(top / "bin", warm, place)
    for step in BY_GROUP["README"]:
        if re.match(r"ssd_centernet (convert|train|evaluate) ", step.text):
            bash(shrunk(step.text, BY_GROUP["README"]), cwd=place, env=env)
    return place


@pytest.mark.slow(minutes=4)
def test_every_command_of_readme_runs_and_does_what_it_says(tmp_path, warm):
    """As a reader begins: the published network, each kind of command in a fresh interpreter."""
    place = make_place(tmp_path / "place", published={})
    printed = _run(BY_GROUP["README"], place, tmp_path, warm, first=sys.executable, narrow=False)
    readme = [c for b in pages.blocks(PAGES[0]) if b.language == "sh" for c in pages.commands(b)]
    (training,) = [c for c in readme if c.startswith("ssd_centernet train")]
    assert "145 variables restored" in printed[training]  # 29 convolutions with their norms.
    metrics = json.loads((place / "runs/ssd300/evaluation/metrics.json").read_text())
    assert metrics["num_images"] == NUM_VAL and "best" in metrics["checkpoint"]
    assert len(list((place / "drawn").glob("*.png"))) == NUM_PHOTOS
    detections = json.loads((place / "drawn/detections.json").read_text())
    assert isinstance(detections, list)


@pytest.mark.slow(minutes=2)
@pytest.mark.parametrize("group", [name for name in BY_GROUP if name != "README"])
def test_every_command_and_python_block_runs(group, place, tmp_path, warm):
    """Pages that go on with README's run, and not with each other's."""
    copy = tmp_path / "place"
    skipped = shutil.ignore_patterns("runs") if group in BEGIN_ANEW else None
    shutil.copytree(place, copy, symlinks=True, ignore=skipped)
    _run(BY_GROUP[group], copy, tmp_path, warm, first=without_ours(warm), narrow=True)


def _run(group, place, folder, warm, *, first, narrow):
    """Run steps one after the other, as the later ones use what the earlier ones made.

    The first command of a kind imports what it needs; the others need no imports again.

    Returns:
        Text of the step -> what it printed.
    """
    begins = shell(folder / "first", first, place)
    goes_on = shell(folder / "others", warm, place)
    failures, printed, kinds = [], {}, set()
    for step in group:
        code = f"python -c {shlex.quote(step.text)}"
        command = code if step.language == "python" else shrunk(step.text, group, narrow=narrow)
        kind = pages.program(step.text) if step.language == "sh" else "python"
        ended = bash(command, cwd=place, env=goes_on if kind in kinds else begins, status=None)
        kinds.add(kind)
        printed[step.text] = ended.text
        if ended.status:
            failures.append(f"{step.place}: {ended}")
        elif command.startswith("ssd_centernet train "):
            _check_training(place, ended)
    assert not failures, "\n\n".join(failures)
    return printed


def _check_training(place, ended):
    """A training says that it has finished, and what it saved is enough to build it again."""
    trained = re.search(r"^finished: (.+)$", ended.stdout, re.M)
    assert trained, str(ended)
    config.parse([place / trained[1] / "config.gin"])
    config.clear()


def test_every_page_is_in_a_group_and_every_command_in_one():
    assert {page for pages_of in GROUPS.values() for page in pages_of} <= {*map(name_of, PAGES)}
    texts = [step.text for group in BY_GROUP.values() for step in group]
    written = [
        text
        for page in PAGES
        for block in pages.blocks(page)
        for text in (pages.commands(block) if block.language == "sh" else [block.text])
        if block.language
    ]
    assert set(texts) == {text for text in written if not not_run(text)}
    commands = [step.text for group in BY_GROUP.values() for step in group if step.language == "sh"]
    assert len(commands) == len(set(commands)) > 50


def test_a_command_is_only_made_small():
    train = "ssd_centernet train --gin_file=ssd300_resnet34 --data_dir=data/coco --model_dir=runs/a"
    again = "ssd_centernet evaluate --model_dir=runs/a"
    steps_of = [Step("", train, "sh"), Step("", again, "sh")]
    for narrow in (True, False):
        assert shrunk(train, steps_of, narrow=narrow).startswith(f"{train} --num_steps=2 ")
    # The evaluation at the end is left out where nobody reads the run.
    still = "train.evaluate_every = 0"
    assert still not in shrunk(train, steps_of) and still in shrunk(train, steps_of[:1])
    assert "ResNet.widths" in shrunk(train, steps_of)
    assert still not in shrunk(train, steps_of[:1], narrow=False)
    assert "ResNet.widths" not in shrunk(train, steps_of, narrow=False)


def test_blocks_have_a_language_that_is_run_or_none():
    for page in PAGES:
        for block in pages.blocks(page):
            assert block.language in pages.LANGUAGES, f"{block.place}: {block.language}"
            assert block.language or "ssd_centernet " not in block.text, block.place


def test_specifications_of_the_originals_have_no_command_of_ours():
    """Nothing of these pages is run or held to our flags, so that nothing in them may look ours."""
    assert len(SPECIFICATIONS) == 4
    for page in SPECIFICATIONS:
        assert not pages.blocks(page), "a block would be taken for a command of ours"
        assert "ssd_centernet " not in page.read_text(encoding="utf-8")


def test_scripts_that_are_not_run_exist_and_parse():
    scripts = set()
    for page in PAGES:
        for block in pages.blocks(page):
            for command in pages.commands(block) if block.language == "sh" else ():
                if not_run(command):
                    scripts.update(re.findall(r"(?<!\S)[\w./]+\.(?:sh|py)(?!\S)", command))
    assert {"scripts/demo.sh", "scripts/test.sh"} <= scripts
    for name in scripts:
        assert (ROOT / name).is_file(), f"{name} is documented and does not exist"
        if name.endswith(".sh"):
            run("bash", "-n", name)
        else:
            compile((ROOT / name).read_text(encoding="utf-8"), name, "exec")


@pytest.mark.parametrize("page", [*PAGES, *SPECIFICATIONS], ids=lambda page: page.name)
def test_relative_links_point_to_files_and_headings(page):
    missing = []
    for name, anchor in pages.links(page):
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in pages.anchors(target)):
            missing.append(f"{name}#{anchor}")
    assert not missing


def test_reference_is_that_of_the_docstrings():
    written = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert written == api_doc.document(), "write it again: python -m tools.api_doc docs/api.md"


def _answer(argument):
    """What a wrong argument beside --gin_file=ssd_demo leads to."""
    (word,) = shlex.split(argument)
    name, _, value = word.partition("=")
    more = {"--gin_file": ([value], []), "--gin_params": ([], [value])}[name]
    with pytest.raises((ValueError, OSError)) as error:
        config.parse(["ssd_demo", *more[0]], more[1])
        build_detector(label_map=LabelMap(["disc", "square"]))
        config.assert_all_used(allow=["train"])
    return message_for_user(error.value)


def test_messages_are_those_that_the_page_shows():
    shown = pages.answers(ROOT / "docs" / "gin.md")
    assert len(shown) > 5
    try:
        for argument, answer in shown.items():
            # A page breaks lines where it likes, and leaves out what is long.
            pattern = r"\s+".join(map(re.escape, answer.split())).replace(r"\.\.\.", ".*?")
            said = _answer(argument)
            assert re.fullmatch(pattern, said, re.S), f"{argument}\n{said}"
    finally:
        config.clear()


def _known_flags(command, env):
    """The names that the help of a command lists, those with 'no' before them as well."""
    found = set()
    for negatable, name in re.findall(r"--(\[no\])?(\w[\w-]*)", bash(command, env=env).stdout):
        found |= {name, f"no{name}"} if negatable else {name}
    return found


def _options_of_originals():
    """Names that `ssd_centernet compat` and the run scripts take, as the originals write them."""
    names = {option.name for program in PROGRAMS.values() for option in program.options}
    return names | {name.replace("_", "-") for name in names} | {"nnodes", "node_rank"}


def _launched(code):
    """A command; of one that is launched in several processes, the launch and that command."""
    launch, found, command = code.partition(" -- ")
    if found and " compat" in launch:
        return (launch,)  # What follows is the line of another program.
    return (launch, f"ssd_centernet {command}") if found and " launch" in launch else (code,)


def test_every_documented_flag_exists(tmp_path, warm):
    env = shell(tmp_path / "bin", warm, tmp_path)
    overview = bash("ssd_centernet --help", env=env).stdout
    names = re.findall(r"^  (\w+)  ", overview, re.MULTILINE)
    assert "train" in names and "doctor" in names
    known = {f"ssd_centernet {n}": _known_flags(f"ssd_centernet {n} --help", env) for n in names}
    anywhere = set().union(*known.values(), {"help", "version"}, _options_of_originals())
    wrong = []
    for page in PAGES:
        blocks = [b for b in pages.blocks(page) if b.language == "sh"]
        codes = [c for b in blocks for c in pages.commands(b)] + pages.inline_code(page)
        for code in (part for whole in codes for part in _launched(whole)):
            try:
                program = pages.program(code)
            except ValueError:  # A quote that is not closed: prose, not a command.
                program = ""
            if program in OTHER_PROGRAMS and program not in known:
                known[program] = _known_flags(OTHER_PROGRAMS[program], env)
            if program not in known and not code.startswith(("--", "ssd_centernet")):
                continue
            allowed = known.get(program, anywhere) | {"help"}
            wrong += [
                f"{page.name}: --{flag} in {code!r}"
                for flag in pages.flags_of(code)
                if flag not in allowed
            ]
    assert not wrong
