"""The file of a study: what it means, and that every mistake is told with its line."""

import pytest

from ssd_centernet.runs.study import Budget, read_study

WHOLE = """\
base:
  gin_file: [ssd_demo, mine.gin]
  data_dir: data/demo
  batch_size: 8
  epochs: 2
  gin_params: [train.pictures = 0]
variants:
  ema: ["train.ema_decay = 0.998"]
  small:
    batch_size: 4
    gin_file: other.gin
    gin_params:
      - IMAGE_SIZE = (64, 64)
      - train.weight_decay = 0.0
seeds: [0, 7]
"""
HEAD = "base: {gin_file: a, data_dir: d}\n"


def read(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return read_study(path)


def test_a_variant_replaces_or_follows_what_is_in_common(tmp_path):
    study = read(tmp_path, WHOLE)
    assert [one.name for one in study.variants] == ["base", "ema", "small"]
    base, ema, small = (one.arguments for one in study.variants)
    assert base == [
        "--gin_file=ssd_demo",
        "--gin_file=mine.gin",
        "--data_dir=data/demo",
        "--batch_size=8",
        "--epochs=2",
        "--gin_params=train.pictures = 0",
    ]
    assert ema == [*base, "--gin_params=train.ema_decay = 0.998"]
    assert small == [
        *(one for one in base if "batch_size" not in one),
        "--batch_size=4",
        "--gin_file=other.gin",
        "--gin_params=IMAGE_SIZE = (64, 64)",
        "--gin_params=train.weight_decay = 0.0",
    ]
    assert study.seeds == (0, 7)
    assert study.budget == Budget(unit="images", number=None)


def test_messages_lead_to_the_line_that_they_quote(tmp_path):
    _, ema, small = read(tmp_path, WHOLE).variants
    assert small.place_of("is wrong (--gin_params: IMAGE_SIZE = (64, 64))") == 13
    assert ema.place_of("is wrong (--gin_params: train.pictures = 0)") == 6
    assert ema.place_of("nothing quoted") == 8


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("budget: {images: 640}", Budget(unit="images", number=640)),
        ("budget: {steps: 10}", Budget(unit="steps", number=10)),
        ("budget: own", Budget(unit="own", number=None)),
    ],
)
def test_budgets(tmp_path, text, budget):
    assert read(tmp_path, f"{HEAD}seeds: [0]\n{text}\n").budget == budget


def test_seeds_of_one_recipe_need_no_variants(tmp_path):
    study = read(tmp_path, f"{HEAD}seeds: [1, 2]\n")
    assert [one.name for one in study.variants] == ["base"]


def test_lengths_may_be_varied_where_each_has_its_own(tmp_path):
    text = "base: {gin_file: a, data_dir: d, epochs: 3}\nseeds: [0]\nbudget: own\n"
    study = read(tmp_path, f"{text}variants:\n  long: {{num_steps: 9}}\n")
    assert study.variants[1].arguments == ["--gin_file=a", "--data_dir=d", "--num_steps=9"]


SEEDS = "seeds: [0]\n"
WRONG = {
    "empty": ("", "is empty; expected the keys base, variants, seeds, budget"),
    "no yaml": ("base: [1\n", "line 2, column 1: "),
    "no mapping": ("- 1\n", "line 1: the study: expected lines of 'key: value'"),
    "unknown key": (f"{HEAD}{SEEDS}variant: {{}}\n", "line 3: .*'variant'. Did you mean variants"),
    "twice": (f"{HEAD}{SEEDS}seeds: [1]\n", "line 3: .*'seeds' occurs twice"),
    "no seeds": (HEAD, "there is no 'seeds'"),
    "no base": (SEEDS, "there is no 'base'"),
    "no recipe": (f"base: {{data_dir: d}}\n{SEEDS}", "line 1: base has no gin_file"),
    "no data": (f"base: {{gin_file: d}}\n{SEEDS}", "line 1: base has no data_dir"),
    "unknown flag": (
        f"base:\n  gin_file: a\n  data_dir: d\n  batchsize: 3\n{SEEDS}",
        "line 4: .*'batchsize'. Did you mean batch_size",
    ),
    "flag of the study": (f"base: {{gin_file: a, seed: 3}}\n{SEEDS}", "set for each run"),
    "no value": (f"base: {{gin_file: a, data_dir: }}\n{SEEDS}", "line 1: data_dir has no value"),
    "several": (f"base: {{gin_file: a, dtype: [a, b]}}\n{SEEDS}", "dtype has 2 values"),
    "nested": (f"base: {{gin_file: [[a]]}}\n{SEEDS}", "gin_file has something else than texts"),
    "auto": (f"base: {{gin_file: a, batch_size: auto}}\n{SEEDS}", "needs a number"),
    "a colon": (f"{HEAD}{SEEDS}variants:\n  a: [x: 1]\n", "line 4: .*'quotes' around it"),
    "twice named": (f"{HEAD}{SEEDS}variants:\n  a: [x]\n  a: [y]\n", "line 5: .*'a' occurs twice"),
    "base named": (f"{HEAD}{SEEDS}variants:\n  base: [x]\n", "line 4: base is the variant without"),
    "no change": (f"{HEAD}{SEEDS}variants:\n  a: []\n", "line 4: a changes nothing"),
    "a path": (f"{HEAD}{SEEDS}variants:\n  ../a: [x]\n", "line 4: a variant is named '../a'"),
    "hidden": (f"{HEAD}{SEEDS}variants:\n  .a: [x]\n", "line 4: a variant is named '.a'"),
    "of all": (
        f"{HEAD}{SEEDS}variants:\n  a:\n    data_dir: e\n",
        "line 5: .*data_dir is the same for all runs of a study",
    ),
    "own length": (
        f"{HEAD}{SEEDS}variants:\n  a:\n    epochs: 3\n",
        "line 5: a has a length of its own",
    ),
    "seeds no list": (f"{HEAD}seeds: 3\n", r"line 2: seeds is no list; expected .*\[0, 1, 2\]"),
    "no seed": (f"{HEAD}seeds: []\n", "line 2: seeds is no list"),
    "a word": (f"{HEAD}seeds: [one]\n", "line 2: a seed is 'one'; expected a whole number"),
    "too large": (f"{HEAD}seeds: [4294967296]\n", "expected a whole number from 0 to 4294967295"),
    "seed twice": (f"{HEAD}seeds: [0, 1,\n  0]\n", "line 3: the seed 0 occurs twice"),
    "minutes": (f"{HEAD}{SEEDS}budget: {{minutes: 3}}\n", "line 3: .*'minutes'"),
    "no budget": (f"{HEAD}{SEEDS}budget: 3\n", "line 3: the budget is 'images: NUMBER'"),
    "no images": (f"{HEAD}{SEEDS}budget: {{images: 0}}\n", "expected a whole number from 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_told_with_their_line(tmp_path, name):
    text, message = WRONG[name]
    with pytest.raises(ValueError, match=message) as told:
        read(tmp_path, text)
    assert str(told.value).startswith(f"{tmp_path}/study.yaml")
    assert "\n" not in str(told.value)


def test_yaml_makes_no_objects_and_does_not_grow(tmp_path):
    text = f"{HEAD}{SEEDS}variants:\n  a: !!python/object/apply:os.mkdir [{tmp_path}/made]\n"
    assert read(tmp_path, text).variants[1].arguments[-1] == f"--gin_params={tmp_path}/made"
    assert not (tmp_path / "made").exists()
    bombs = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    with pytest.raises(ValueError, match="nothing is named 'a0'"):
        read(tmp_path, "\n".join(bombs))
