"""Every command and every Python block of README.md and docs/ runs, as it is written."""

import importlib.util
import json
import re
import shlex

import pytest

from ssd_centernet import config
from ssd_centernet.building import build_detector
from ssd_centernet.cli._errors import message_for_user
from ssd_centernet.cli.originals.lines import PROGRAMS
from ssd_centernet.labels import LabelMap
from tests.docs import pages
from tests.docs.pages import PAGES, SPECIFICATIONS
from tests.docs.place import NUM_PHOTOS, NUM_VAL, make_place, shell
from tests.narrow import NARROW
from tests.process import ROOT, bash, run
from tools import api_doc

# Commands that cannot run inside the tests; of a script it is checked that it parses.
NOT_RUN = {
    r"bash scripts/demo\.sh": "makes an environment and trains for minutes",
    r"bash scripts/test\.sh": "runs these tests",
    r"(\w+=\S+ )*bash scripts/setup\.sh": "makes the environment that the tests run in",
    r"docker build": "needs docker; tests/scripts/test_docker.py runs it",
    r"(\w+=\S+ )*bash scripts/run_docker\.sh": "needs docker; tests/scripts/test_docker.py",
    r"python -m ssd_centernet\.cli\._\w+_doc": "tests hold these pages to the code",
    r"source \.venv\S*/bin/activate": "the tests run inside an environment",
    r"(python -m )?pip install": "installs from the network",
    r"pip wheel|python3 -m venv": "tests/test_packaging.py makes wheel and environment",
    r"pip download": "fetches from the network; place.py writes a stand-in",
    r"git clone": "fetches from the network",
    r"(\w+=\S+ )*bash scripts/(\w+/\w+|prepare_coco)\.sh": "scripts/test_run_scripts.py",
    r"tensorboard": "serves until it is stopped",
    r"docker": "needs an image from the network",
    r"python (-m )?benchmarks[./]compare_model_garden": "minutes, and needs tf-models-official",
    r"python benchmarks/input_forms\.py": "minutes, and asks for a quiet machine",
    r"python -m ssd_centernet\.native\.build": "tests/native/test_library.py runs it",
    r"python benchmarks/save\.py": "minutes, and asks for a quiet machine",
    r"python scripts/readme_picture\.py": "needs the run of the demo",
    r"python -m tests\.parity": "minutes; tests/parity/test_parity.py runs it",
    r"python -m tests\.mutations": "a minute; tests/mutations/test_mutations.py runs a part of it",
    r"python -m tests\.faults": "minutes; tests/faults/test_faults.py runs a part of it",
    r"bash scripts/install_horovod\.sh": "builds for minutes; scripts/test.sh runs it",
}
if importlib.util.find_spec("horovod") is None:
    NOT_RUN[r"ssd_centernet launch|horovodrun"] = "Horovod is not installed"
# What is appended to a command so that it takes seconds, and fewer channels (NARROW) where it
# trains a published network. Nothing else is changed.
_SMALL_IMAGES = "--gin_params='IMAGE_SIZE = (96, 96)'"
SHRINK = {
    "train": f"--num_steps=2 --batch_size=2 {_SMALL_IMAGES}",
    "compare_precision": f"--dtypes=bf16 --nocontrol --num_steps=2 --batch_size=2 {_SMALL_IMAGES}",
    "make_synthetic": "--num_train=4 --num_val=2",
    # A network of two steps scores low.
    "export": "--score_threshold=0.001 --num_check_images=2",
    "make_static": f"--overwrite {_SMALL_IMAGES}",
    "benchmark": f"--windows=1 --seconds=0.05 --batch_size=2 {_SMALL_IMAGES}",
    "benchmark --part=eval": "--windows=1 --images=20",
}
# Words that a page leaves to the reader.
PLACEHOLDERS = {"DATA": "data/coco"}
OTHER_PROGRAMS = {  # Programs of ours with flags of their own: how they are asked for help.
    "python -m tests.parity": "python -m tests.parity --help",
    "python benchmarks/compare_model_garden.py": "python benchmarks/compare_model_garden.py --help",
    "python benchmarks/save.py": "python benchmarks/save.py --help",
    "python benchmarks/input_forms.py": "python benchmarks/input_forms.py --help",
    "python -m tests.native": "python -m tests.native --help",
}


def _not_run(command):
    return any(re.match(rf"({pattern})\b", command) for pattern in NOT_RUN)


def _shrunk(command):
    """The command with SHRINK's arguments behind it, and paths for its placeholders."""
    whole = pages.program(command) == "ssd_centernet train"
    # Of a command for several processes: two of them, and what they run.
    command = re.sub(
        r"--num_processes=\d+|-np \d+", lambda m: m[0].rstrip("0123456789") + "2", command
    )
    command = re.sub(r"--hosts=\S+ ", "", command)
    inner = re.sub(r"^(ssd_centernet launch .*? -- |horovodrun -np 2 ssd_centernet )", "", command)
    name = pages.program(inner if inner == command else f"ssd_centernet {inner}")
    name = name.removeprefix("ssd_centernet ")
    if "--part=eval" in shlex.split(command):
        name += " --part=eval"
    for word, path in PLACEHOLDERS.items():
        command = re.sub(rf"\b{word}\b", path, command)
    # Only training builds a recipe's network by its name. That of README stays whole: published
    # weights are put into it, and other pages go on with its run.
    recipe = re.search(r"--gin_file=(\w+)", command) if name == "train" else None
    published = recipe and ("resnet34" in recipe[1] or "=efficientnet_lite0" in command)
    narrow = NARROW.get(recipe[1], ()) if recipe and not (whole and published) else ()
    if narrow:  # Published weights have more channels.
        command = command.replace(" --fine_tune_checkpoint=resnet34_mlperf", "")
    # Pictures are left to the whole one as well.
    settings = (*narrow, "train.pictures = 0") if narrow else ()
    channels = " ".join(f"--gin_params={shlex.quote(text)}" for text in settings)
    return f"{command} {SHRINK.get(name, '')} {channels}".strip()


def _steps():
    """(place, command or Python source, language) of what is to run, each command once."""
    seen = set()
    for page in PAGES:
        for block in pages.blocks(page):
            if block.language == "python":
                yield block.place, block.text, "python"
            for command in pages.commands(block) if block.language == "sh" else ():
                if command not in seen and not _not_run(command):
                    yield block.place, command, "sh"
                seen.add(command)


@pytest.mark.slow(minutes=4)
def test_every_documented_command_and_python_block_runs(tmp_path, warm):
    """In one process after the other, as the later ones use what the earlier ones made."""
    place = make_place(tmp_path / "place")
    first, others = shell(tmp_path / "first"), shell(tmp_path / "others", warm)
    failures, printed, kinds = [], {}, set()
    for where, text, language in _steps():
        code = f"python -c {shlex.quote(text)}"
        command = code if language == "python" else _shrunk(text)
        # The first of a kind begins as a reader's does; the others need no imports again.
        kind = pages.program(text) if language == "sh" else "python"
        ended = bash(command, cwd=place, env=others if kind in kinds else first, status=None)
        kinds.add(kind)
        printed[text] = ended.text
        if ended.status:
            failures.append(f"{where}: {ended}")
    assert not failures, "\n\n".join(failures)
    _check_readme_outcomes(place, printed)


def _check_readme_outcomes(place, printed):
    """The commands of README did what it says of them, not only end well."""
    readme = [c for b in pages.blocks(PAGES[0]) if b.language == "sh" for c in pages.commands(b)]
    (training,) = [c for c in readme if c.startswith("ssd_centernet train")]
    assert "145 variables restored" in printed[training]  # 29 convolutions with their norms.
    metrics = json.loads((place / "runs/ssd300/evaluation/metrics.json").read_text())
    assert metrics["num_images"] == NUM_VAL and "best" in metrics["checkpoint"]
    assert len(list((place / "drawn").glob("*.png"))) == NUM_PHOTOS
    detections = json.loads((place / "drawn/detections.json").read_text())
    assert isinstance(detections, list)


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
                if _not_run(command):
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


def test_every_documented_flag_exists(tmp_path):
    env = shell(tmp_path / "bin")
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
