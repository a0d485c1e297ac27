"""The settings of a run are data: what a stranger writes into config.gin runs nothing."""

import shutil
import sys

import gin
import pytest
from PIL import Image

import ssd_centernet as sc
from ssd_centernet import config
from ssd_centernet.cli.main import COMMANDS
from ssd_centernet.config import imported_modules
from ssd_centernet.runs.opened import open_run
from tests.process import cli, environment
from tools.flags_doc import flags_of


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module on Python's path that leaves a mark when it is imported; returns the mark."""
    mark = tmp_path / "it_ran"
    (tmp_path / "evil").mkdir()
    for name in ("__init__", "inner"):
        (tmp_path / "evil" / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    (tmp_path / "evil" / "parts.py").write_text(
        "import gin\n\n\n@gin.register\ndef quizzify(spokes=3):\n    return spokes\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield mark
    for name in [name for name in sys.modules if name.partition(".")[0] == "evil"]:
        del sys.modules[name]


def _saved(tmp_path, text, name="config.gin"):
    path = tmp_path / "run" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


IMPORTS = {
    "import evil": "import evil",
    "import evil.inner": "import evil.inner",
    "from evil import inner": "from evil import inner",
    "from evil import inner as ssd_centernet": "from evil import inner as ssd_centernet",
    "import evil as os  # import ssd_centernet.models.ssd": "import evil as os",
    "train.seed = 3\n\n# words\nimport evil": "line 4: import evil",
    "train.seed = 3 ; import evil": "Expected newline",
    "import evil\\\n.inner": "evil",
    "import\\\n evil": "import evil",
    "from evil \\\n  import inner": "from evil import inner",
    "import\tevil": "import evil",
    "\N{ZERO WIDTH NO-BREAK SPACE}import evil": "import evil",
    "train:\n  seed = 3\nimport evil": "import evil",
    "\timport evil": "import evil",
    "import ssd_centernet.evil.inner, evil": "Expected newline",
    "import (evil)": "Unexpected token",
    "from . import evil": "Malformatted scope",
    "from evil import *": "Invalid identifier",
    "\N{FULLWIDTH LATIN SMALL LETTER I}mport evil": "Malformatted scope",
    "import ssd_centernet_evil": "import ssd_centernet_evil",
    "import ssd_centernet.__main__": "import ssd_centernet.__main__",
    "import \N{FULLWIDTH LATIN SMALL LETTER E}vil": "Malformatted scope",
    "import os": "import os",
    "from __gin__ import dynamic_registration\nimport evil": "import evil",
    "from __gin__ import dynamic_registration": "dynamic_registration",
}


@pytest.mark.parametrize("text", IMPORTS)
def test_no_form_of_import_gets_through(evil, tmp_path, text):
    path = _saved(tmp_path, f"{text}\n")
    with pytest.raises(config.ConfigError, match=IMPORTS[text]) as caught:
        config.parse([path])
    assert str(path) in str(caught.value)
    assert not evil.exists() and "evil" not in sys.modules


def test_the_error_names_every_import_the_reason_and_the_flag(evil, tmp_path):
    path = _saved(tmp_path, "import evil.inner\nimport ssd_centernet.models.ssd\nimport pickle\n")
    with pytest.raises(config.ConfigError) as caught:
        config.parse([path])
    told = str(caught.value)
    assert (
        f"{path} asks to import modules: line 1: import evil.inner; line 3: import pickle" in told
    )
    assert "Settings of a run are data" in told
    assert "--allow_import=evil.inner,pickle (in Python: allow_import=['evil.inner'," in told


def test_an_allowed_module_is_imported_with_those_below_it_and_no_other(evil, tmp_path):
    path = _saved(
        tmp_path, "import evil.parts\nWHEELS = @evil.parts.quizzify()\nquizzify.spokes = 5\n"
    )
    with pytest.raises(config.ConfigError, match="import evil.parts"):
        config.parse([path], allow_import=["evil.part", "evi", "pickle"])
    assert not evil.exists()
    config.parse([path], allow_import=["evil"])
    assert evil.exists() and gin.query_parameter("quizzify.spokes") == 5


@gin.register(module="workshop")
def blow_up(charge=1):
    raise AssertionError("called")


@pytest.mark.parametrize(
    "text", ["IT = @blow_up()", "blow_up.charge = 3", "A = {1: [(@s/blow_up,)]}"]
)
def test_names_that_this_process_knows_of_other_modules_need_the_same_permission(tmp_path, text):
    path = _saved(tmp_path, f"{text}\n")
    with pytest.raises(config.ConfigError, match=r"'workshop'.*--allow_import=workshop"):
        config.parse([path])
    config.parse([path], allow_import=["workshop"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("SSD.backbone = @export()\nexport.output_dir = '{0}'", "@export"),
        ("SSD.backbone = @ssd_centernet.export.export.export", "export"),
        ("SSD.backbone = @train()", "@train"),
        ("SSD.backbone = @build_detector()", "@build_detector"),
        ("SSD.backbone = @x/gin.singleton()\nx/gin.singleton.constructor = @export", "singleton"),
        ("BottleneckResNet.kernel_initializer = {{'class_name': 'function'}}", "class_name"),
        ("SSD.neck = [({{'a': {{'class_name': 'Popen', 'module': 'subprocess'}}}},)]", "class_na"),
        ("K = 'class_name'\nBatchNorm.gamma_initializer = {{%K: 'Popen'}}", "the key %K"),
    ],
)
def test_settings_of_a_run_name_parts_and_describe_no_objects(tmp_path, text, told):
    target = tmp_path / "written"
    path = _saved(tmp_path, text.format(target) + "\n")
    with pytest.raises(config.ConfigError, match=rf"ettings of a run .*{told}|{told}.*of a run"):
        config.parse([path])
    assert not target.exists()


def test_files_outside_of_the_recipes_are_not_included(evil, tmp_path):
    secret = tmp_path / "secret.gin"
    secret.write_text("import evil\ntrain.seed = 42  # hidden\n")
    for name in (str(secret), "../secret.gin", "secret.gin", "../../../../etc/passwd"):
        path = _saved(tmp_path, f"include {name!r}\n")
        with pytest.raises(FileNotFoundError) as caught:
            config.parse([path])
        assert "hidden" not in str(caught.value) and "root:" not in str(caught.value)
    (tmp_path / "run" / "beside.gin").write_text("import evil\n")
    with pytest.raises(FileNotFoundError, match=r"beside\.gin"):
        config.parse([_saved(tmp_path, "include 'beside.gin'\n")])
    config.parse([_saved(tmp_path, "include 'ssd_demo.gin'\n")])
    assert not evil.exists()


def test_what_belongs_to_a_run_is_told_by_its_place(evil, tmp_path):
    """A recipe of the user is his code, also one that includes settings of a run."""
    _saved(tmp_path, "import evil\n")
    beside = _saved(tmp_path, "import evil\n", name="more.gin")
    mine = tmp_path / "mine.gin"
    mine.write_text("include 'run/config.gin'\n")
    (tmp_path / "link.gin").symlink_to(tmp_path / "run" / "config.gin")
    (tmp_path / "other").mkdir()
    (tmp_path / "elsewhere.gin").write_text("import evil\n")
    (tmp_path / "other" / "config.gin").symlink_to(tmp_path / "elsewhere.gin")
    for path in (beside, mine, tmp_path / "link.gin", tmp_path / "other" / "config.gin"):
        with pytest.raises(config.ConfigError, match="asks to import modules: line 1: import evil"):
            config.parse([path])
    assert not evil.exists()
    mine.write_text("import evil\n")
    config.parse([mine])
    assert evil.exists()


def test_settings_that_no_training_writes_are_not_read_to_the_end(tmp_path):
    path = _saved(tmp_path, f"# {'x' * 2_000_000}\n")
    with pytest.raises(config.ConfigError, match="2000003 bytes"):
        config.parse([path])
    for deep in ("(" * 5000, "[" * 9000 + "]" * 9000, "'" + "x" * 9 + "' " * 5000):
        with pytest.raises(config.ConfigError, match=r"config\.gin"):
            config.parse([_saved(tmp_path, f"train.seed = {deep}\n")])


def test_installed_recipes_import_nothing():
    assert imported_modules(config.recipes()) == []


def test_imports_of_recipes_are_listed_without_being_obeyed(evil, tmp_path):
    _saved(tmp_path, "import evil.in_a_run\n")
    (tmp_path / "part.gin").write_text("import evil.inner\n")
    mine = tmp_path / "mine.gin"
    mine.write_text("from evil import parts\ninclude 'part.gin'\ninclude 'run/config.gin'\n")
    found = imported_modules([mine], ["import evil.params"])
    assert found == ["evil.parts", "evil.inner", "evil.params"]
    assert not evil.exists()


# A whole run --------------------------------------------------------------------------------------


@pytest.fixture
def hostile_run(model_dir, tmp_path):
    """A run that works, and whose settings import a module that lies in its directory."""
    run = tmp_path / "stranger"
    shutil.copytree(model_dir, run)
    (run / "payload.py").write_text(f"open({str(tmp_path / 'it_ran')!r}, 'w').close()\n")
    saved = (run / "config.gin").read_text()
    (run / "config.gin").write_text(f"import payload\n\n{saved}")
    return run


def test_load_needs_permission(hostile_run, tmp_path, monkeypatch):
    mark = tmp_path / "it_ran"
    monkeypatch.syspath_prepend(str(hostile_run))
    for read in (
        lambda **allowed: sc.load(hostile_run, **allowed),
        lambda **allowed: sc.build(hostile_run / "config.gin", num_classes=3, **allowed),
        lambda **allowed: open_run(hostile_run, device="cpu", **allowed),
    ):
        with pytest.raises(ValueError, match=r"line 1: import payload.*allow_import=\['payload'\]"):
            read()
        assert not mark.exists() and "payload" not in sys.modules
    assert sc.load(hostile_run, allow_import=["payload"]).built
    assert mark.exists()
    del sys.modules["payload"]


def test_a_run_is_not_put_on_the_path_of_python(model_dir, tmp_path):
    before = list(sys.path)
    sc.load(model_dir)
    assert sys.path == before


@pytest.mark.slow(minutes=0.3)
def test_commands_refuse_it_in_one_line_and_take_the_flag(hostile_run, tmp_path, data_dir, warm):
    """From inside of the directory, where python -m finds its modules."""
    options = {"python": warm, "cwd": hostile_run, "status": 1}
    Image.new("RGB", (30, 20)).save(hostile_run / "a.png")
    run = ("--model_dir=.",)
    recipe = ("--gin_file=config.gin", f"--data_dir={data_dir}")
    commands = [
        ("evaluate", *run, f"--data_dir={data_dir}"),
        ("predict", *run, "--output_dir=drawn", "a.png"),
        ("export", *run, "--output=exported"),
        ("train", *run, "--mode=eval", f"--data_dir={data_dir}"),
        ("train", *recipe, f"--model_dir={tmp_path / 'new'}"),
        ("show_inputs", *recipe, "--output=inputs.png"),
        ("show_anchors", *recipe),
        ("make_static", *recipe),
        ("benchmark", "--part=postprocess", "--gin_file=config.gin"),
    ]
    for command in commands:
        ended = cli(*command, **options)
        assert "asks to import modules: line 1: import payload" in ended.stderr, ended
        assert "add --allow_import=payload" in ended.stderr, ended
        assert ended.stderr.count("\n") == 1, ended
    assert not (tmp_path / "it_ran").exists()
    allowed = environment(PYTHONPATH=f"{environment()['PYTHONPATH']}:{hostile_run}")
    cli("evaluate", *run, f"--data_dir={data_dir}", "--allow_import=payload",
        **{**options, "status": 0, "env": allowed})  # fmt: skip
    assert (tmp_path / "it_ran").exists()


def test_every_command_that_reads_a_run_or_a_recipe_has_the_flag():
    for name in COMMANDS:
        defined = {flag.name for group in flags_of(name).values() for flag in group}
        assert ("allow_import" in defined) == bool({"gin_file", "checkpoint"} & defined), name
