"""Strict gin: what is found, refused, reported and read back."""

import logging
import os
from pathlib import Path

import gin
import pytest

from ssd_centernet import config
from ssd_centernet.config import finding, parsing

MODULE = "test_config"


@gin.configurable(module=MODULE)
def cook(dish="soup", *, minutes=10, helper=None, spice=None):
    return {"dish": dish, "minutes": minutes, "helper": helper, "spice": spice}


@gin.configurable(module=MODULE)
def serve(plates=1, helper=None):
    return plates, helper


@gin.register(module=MODULE)
class Helper:
    def __init__(self, *, hands=2, name="Ann"):
        self.hands, self.name = hands, name


@gin.register(module=MODULE)
def season(*, grams=1.0):
    return grams


@pytest.fixture(autouse=True)
def _no_library_modules(monkeypatch):
    """Keep these tests to the names above: importing the whole library takes seconds."""
    monkeypatch.setattr(parsing, "MODULES", ())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory, with a writer of files."""
    monkeypatch.chdir(tmp_path)

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_files_then_flags_then_params(folder):
    folder("a.gin", "cook.dish = 'rice'\ncook.minutes = 20\n")
    folder("b.gin", "cook.minutes = 30\n")
    config.parse(["a.gin", "b"], ["cook.spice = 3"], flag_params=["cook.spice = 2"])
    assert cook() == {"dish": "rice", "minutes": 30, "helper": None, "spice": 3}
    config.parse(["b.gin", "a.gin"])  # Nothing of the former settings is left.
    assert cook() == {"dish": "rice", "minutes": 20, "helper": None, "spice": None}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_recipes_are_read_as_editors_of_any_system_write_them(folder, encoding, ends):
    text = "# Größe\ncook.dish = 'rice'\ncook.minutes = 20\n".replace("\n", ends)
    folder("a.gin", "").write_bytes(text.encode(encoding))
    config.parse(["a.gin"])
    assert cook() == {"dish": "rice", "minutes": 20, "helper": None, "spice": None}
    folder("b.gin", "include 'a.gin'\ncook.minutes = 5\n")
    config.parse(["b.gin"])
    assert cook()["dish"] == "rice" and cook()["minutes"] == 5


def test_a_recipe_in_another_encoding_is_named_with_its_line(folder):
    folder("a.gin", "").write_bytes("cook.minutes = 20\n# Größe\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.gin is not UTF-8 text \(byte 22\) in line 2"):
        config.parse(["a.gin"])


def test_notebook_path_needs_no_gin():
    config.parse([], ["Helper.hands = 5"])
    assert Helper().hands == 2


def test_scopes_macros_references_and_blocks():
    text = [
        "HANDS = 4",
        "cook.helper = @left/Helper()",
        "left/Helper.hands = %HANDS",
        "Helper.name = 'Bo'",
        "serve:\n  plates = 7",
    ]
    config.parse([], text)
    helper = cook()["helper"]
    assert (helper.hands, helper.name) == (4, "Bo")
    assert serve() == (7, None)
    config.assert_all_used()


# Finding files ------------------------------------------------------------------------------------


def test_recipe_is_found_in_every_place(folder, tmp_path):
    path = folder("deep/mine.gin", "cook.minutes = 1\n")
    assert config.find_recipe(path) == path
    assert config.find_recipe("deep/mine").resolve() == path
    assert config.find_recipe("mine", search_path=[tmp_path / "deep"]) == path
    installed = config.recipe_directory()
    for name in config.recipes():
        assert config.find_recipe(name) == config.find_recipe(f"{name}.gin")
        assert config.find_recipe(name).parent == installed


def test_own_file_wins_over_an_installed_one_and_may_include_it(folder, tmp_path, monkeypatch):
    folder("installed/dish.gin", "cook.dish = 'stew'\ncook.minutes = 90\n")
    folder("installed/shared/parts.gin", "serve.plates = 2\n")
    monkeypatch.setattr(finding, "recipe_directory", lambda: tmp_path / "installed")
    folder("dish.gin", "include 'dish.gin'\ninclude 'shared/parts.gin'\ncook.minutes = 5\n")
    config.parse(["dish.gin"])
    assert cook()["dish"] == "stew"
    assert cook()["minutes"] == 5
    assert serve()[0] == 2


def test_include_is_searched_beside_the_including_file(folder):
    folder("deep/main.gin", "include 'part.gin'\n")
    folder("deep/part.gin", "cook.minutes = 3\n")
    config.parse(["deep/main.gin"])
    assert cook()["minutes"] == 3


def test_unknown_file_lists_recipes(folder, monkeypatch, tmp_path):
    folder("installed/ssd300.gin", "")
    monkeypatch.setattr(finding, "recipe_directory", lambda: tmp_path / "installed")
    with pytest.raises(FileNotFoundError, match="'ssd30'.*Did you mean ssd300.*recipes: ssd300"):
        config.parse(["ssd30"])


def test_files_that_include_each_other_are_refused(folder):
    folder("a.gin", "include 'b.gin'\n")
    folder("b.gin", "include 'a.gin'\n")
    with pytest.raises(FileNotFoundError, match="cannot include itself"):
        config.parse(["a.gin"])


def test_nothing_is_logged(folder, caplog):
    folder("a.gin", "cook.minutes = 2\n")
    with caplog.at_level(logging.DEBUG):
        config.parse(["a"])
    assert not caplog.records


# Strictness ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cok.minutes = 3", r"Nothing is named 'cok' \(.*line 2\)\. Did you mean cook\?"),
        ("cook.minuets = 3", r"'cook' has no parameter 'minuets' \(.*line 2\)\. Did you mean min"),
        ("Helper.hand = 3", r"'Helper' has no parameter 'hand' \(.*\)\. Did you mean hands\?"),
        ("cook.helper = @Helpr()", r"Nothing is named 'Helpr'.*mean Helper\?.*line 2\)"),
        ("cook.helper = @x/Helpr", r"Nothing is named 'Helpr'.*mean Helper\?.*line 2\)"),
        ("cook.minutes = %MINUTS", r"%MINUTS is not defined \(.*line 2\)\. Did you mean MINUTES"),
        ("cook.dish = rice", r"a text needs quotes.*line 2\)\n    cook\.dish = rice"),
        ("cook.minutes = [1,", r"bracket or a quote is not closed"),
        ("cook.minutes", r"expected ':' or '='.*line 2\)"),
        ("cok:\n  minutes = 3", r"Nothing is named 'cok' \(.*line 2\)"),
        ("import no_such_module_here", r"Cannot import 'no_such_module_here' \(.*line 2\)"),
        ("from __gin__ import dynamic_registration", r"is not supported \(.*line 2\)"),
    ],
)
def test_mistakes_are_explained_with_their_place(folder, text, message):
    folder("bad.gin", f"MINUTES = 3\n{text}\n")
    with pytest.raises(config.ConfigError, match=f"(?s){message}") as caught:
        config.parse(["bad.gin"])
    assert "bad.gin" in str(caught.value)
    config.parse()  # A refused file leaves nothing behind.
    assert cook()["minutes"] == 10


@gin.register(module=MODULE)
def weigh(grams: float = 1.0, cups: "int | None" = None, sifted: bool = True, name: str = "flour"):
    return grams, cups, sifted, name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "weigh.grams = '5e-4'",
            r"weigh.grams is '5e-4', expected a number without quotes \(.*2\)",
        ),
        ("weigh.cups = 'two'", "weigh.cups is 'two', expected a whole number without quotes"),
        ("weigh.sifted = 'False'", "weigh.sifted is 'False', expected True or False without"),
    ],
)
def test_texts_where_numbers_and_switches_are_taken_are_refused(folder, text, message):
    folder("bad.gin", f"weigh.name = 'rye'\n{text}\n")
    with pytest.raises(config.ConfigError, match=message):
        config.parse(["bad.gin"])
    config.parse([], ["weigh.grams = 2", "weigh.cups = None", "weigh.name = '3'"])
    assert gin.query_parameter("weigh.name") == "3"


def test_a_wrong_param_quotes_itself():
    with pytest.raises(config.ConfigError, match=r"--gin_params: cook\.minuets = 3"):
        config.parse([], ["cook.minuets = 3"])


def test_gin_import_of_a_users_module(folder, monkeypatch, tmp_path):
    folder("my_dishes.py", "import gin\n@gin.register\ndef bake(heat=1):\n    return heat\n")
    monkeypatch.syspath_prepend(tmp_path)
    config.parse([], ["import my_dishes", "cook.helper = @bake()", "bake.heat = 9"])
    assert cook()["helper"] == 9
    config.assert_all_used()
    saved = config.operative_config()
    assert "import my_dishes" in saved


# Use ----------------------------------------------------------------------------------------------


def test_unused_binding_is_reported_with_place_and_near_match(folder):
    path = folder("a.gin", "cook.minutes = 2\nserve.plates = 3\n")
    config.parse(["a.gin"])
    cook()
    with pytest.raises(config.ConfigError) as caught:
        config.assert_all_used()
    assert "never used: a typo, or a setting for a part" in str(caught.value)
    assert f"serve.plates ({path.resolve()}, line 2)" in str(caught.value)
    assert "cook.minutes" not in str(caught.value)
    serve()
    config.assert_all_used()


def test_value_that_the_caller_overrides_counts_as_unused():
    config.parse([], ["cook.minutes = 2"])
    cook(minutes=3)
    with pytest.raises(config.ConfigError, match="cook.minutes"):
        config.assert_all_used()


def test_binding_of_another_scope_is_unused():
    config.parse([], ["cook.helper = @a/Helper()", "a/Helper.hands = 1", "b/Helper.hands = 2"])
    cook()
    with pytest.raises(config.ConfigError, match=r"b/Helper.hands .*Did you mean a/Helper.hands"):
        config.assert_all_used()


def test_outer_scope_reaches_inner_calls():
    config.parse([], ["cook.helper = @a/b/Helper()", "a/Helper.hands = 1"])
    assert cook()["helper"].hands == 1
    config.assert_all_used()


def test_reference_that_is_called_later_counts_once_called():
    config.parse([], ["cook.spice = @season", "season.grams = 2.5"])
    spice = cook()["spice"]
    with pytest.raises(config.ConfigError, match="season.grams"):
        config.assert_all_used()
    assert spice() == 2.5
    config.assert_all_used()


def test_unused_macro_and_what_is_behind_it_are_reported():
    config.parse([], ["DEAD = @Helper()", "Helper.hands = 3", "USED = 4", "cook.minutes = %USED"])
    cook()
    with pytest.raises(config.ConfigError, match=r"These 2 settings") as caught:
        config.assert_all_used()
    assert "DEAD" in str(caught.value)
    assert "Helper.hands" in str(caught.value)
    assert "USED (" not in str(caught.value)


def test_macro_of_an_unused_binding_is_reported_once():
    config.parse([], ["PLATES = 4", "serve.plates = %PLATES"])
    with pytest.raises(config.ConfigError, match="This setting was never used") as caught:
        config.assert_all_used()
    assert "serve.plates" in str(caught.value)


@pytest.mark.parametrize("allow", ["serve", "serve.*", "ser*"])
def test_allowed_bindings_and_what_they_refer_to(allow):
    text = ["N = 3", "serve.plates = %N", "serve.helper = @s/Helper()", "s/Helper.hands = 1"]
    config.parse([], text)
    config.assert_all_used(allow=[allow])
    with pytest.raises(config.ConfigError, match="serve.helper"):
        config.assert_all_used(allow=["serve.plates"])


def test_overrides_only(folder):
    folder("a.gin", "cook.minutes = 2\n")
    config.parse(["a"], ["serve.plates = 3"])
    with pytest.raises(config.ConfigError, match="serve.plates") as caught:
        config.assert_all_used(overrides_only=True)
    assert "cook.minutes" not in str(caught.value)
    serve()
    config.assert_all_used(overrides_only=True)


# Saving -------------------------------------------------------------------------------------------


def test_saved_settings_read_back(tmp_path):
    text = ["HANDS = 6", "cook.helper = @left/Helper()", "left/Helper.hands = %HANDS"]
    config.parse([], [*text, "cook.minutes = 3", "serve.plates = 8"])
    cook()
    path = tmp_path / "run" / "config.gin"
    config.save_operative(path)
    assert os.listdir(path.parent) == ["config.gin"]
    saved = path.read_text(encoding="utf-8")
    assert "cook.dish = 'soup'" in saved, "defaults of what ran are saved"
    assert "serve.plates = 8" in saved, "what has not run yet is kept"
    config.parse([path], ["cook.minutes = 4"], allow_import=[MODULE])
    again = cook()
    assert (again["minutes"], again["helper"].hands) == (4, 6)
    assert serve()[0] == 8


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "config.gin"
    path.write_text("cook.minutes = 1\n", encoding="utf-8")
    config.parse([], ["cook.minutes = 2"])

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        config.save_operative(path)
    assert path.read_text(encoding="utf-8") == "cook.minutes = 1\n"
    assert os.listdir(tmp_path) == ["config.gin"]


# The library's own names --------------------------------------------------------------------------


def test_listed_modules_are_all_that_register_names(monkeypatch):
    """A module that registers names and is not listed would make its recipe unknown."""
    monkeypatch.undo()
    root = Path(config.__file__).parents[1]
    registering = {
        ".".join(("ssd_centernet", *path.relative_to(root).with_suffix("").parts))
        for path in root.rglob("*.py")
        if "\n@gin." in path.read_text(encoding="utf-8")
    }
    assert registering == set(parsing.MODULES)


def test_every_recipe_parses(monkeypatch):
    monkeypatch.undo()
    assert config.recipes()
    for name in config.recipes():
        config.parse([name])
    with pytest.raises(config.ConfigError, match=r"has no parameter 'batch_sise'.*mean batch_size"):
        config.parse([], ["train.batch_sise = 3"])


def test_settings_of_a_replaced_part_are_no_mistake():
    config.parse(
        [],
        ["cook.helper = @Helper()", "Helper.hands = 3", "cook.helper = None", "cook.minutes = 2"],
    )
    cook()
    config.assert_all_used()
    assert "hands" not in config.operative_config()
    # What is set behind the replacement is one.
    config.parse([], ["cook.helper = @Helper()", "cook.helper = None", "Helper.hands = 3"])
    cook()
    with pytest.raises(config.ConfigError, match="Helper.hands"):
        config.assert_all_used()
    # And it counts again where the part comes back.
    back = ["cook.helper = @Helper()", "Helper.hands = 3", "cook.helper = None"]
    config.parse([], [*back, "cook.helper = @Helper()"])
    assert cook()["helper"].hands == 3
    config.assert_all_used()
    assert "Helper.hands = 3" in config.operative_config()
