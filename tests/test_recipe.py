"""Every setting of a recipe reaches every command that promises to do as `train` does."""

import contextlib
import dataclasses
import functools
import importlib
import inspect
import types
from pathlib import Path
from types import SimpleNamespace

import gin
import pytest
import tensorflow as tf

from ssd_centernet import api, config, fit_data
from ssd_centernet import recipe as recipe_module
from ssd_centernet import train as train_module
from ssd_centernet.benchmark import measure, records
from ssd_centernet.cli import doctor
from ssd_centernet.config import gin_state
from ssd_centernet.data.augment.joining import Mosaic
from ssd_centernet.data.augment.ssd import SSDAugment
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.data.pipeline import training_batches
from ssd_centernet.preview import anchor_report
from ssd_centernet.recipe import Recipe
from ssd_centernet.runtime.distribution import SingleProcess
from ssd_centernet.runtime.engine import Engine
from ssd_centernet.training.loss_scale import LossScale
from ssd_centernet.training.optimizers import Momentum
from ssd_centernet.training.schedules import ConstantRate
from ssd_centernet.training.trainer import Trainer
from tests.cli.command_line import parsed
from tests.made_once import build_once, feed_once
from tests.narrow import NARROW, SIZE
from tests.tiny import RUN_RECIPE

# "function.parameter" -> the values that arrived there in the command that was run last.
ARRIVED: dict[str, list] = {}


def note(place, **values):
    for name, value in values.items():
        ARRIVED.setdefault(f"{place}.{name}", []).append(value)


# Parts of a user's own that tell how they were made: their settings are those of the recipe too.


@gin.register
def telltale_batches(data_dir, *, max_boxes=100, shuffle_buffer=1024, **options):
    """Make training batches, and note what they are made with."""
    note("batches", max_boxes=max_boxes, shuffle_buffer=shuffle_buffer, **options)
    return training_batches(data_dir, max_boxes=max_boxes, **options)


@gin.register
class TelltaleAugment(SSDAugment):
    pass


@gin.register
class TelltaleMosaic(Mosaic):
    pass


@gin.register
class TelltaleMomentum(Momentum):
    pass


@gin.register
class TelltaleRate(ConstantRate):
    pass


@gin.register
class TelltaleScale(LossScale):
    def __init__(self, initial=1.0):
        note("LossScale", initial=initial)
        super().__init__(initial)


FEED = ("train", "show_inputs", "make_static", "benchmark input", "benchmark step", "fit")
STEP = ("train", "benchmark step", "doctor")
# `show_anchors` matches what is fed, and feeds nothing.
PLACES = {
    ("show_anchors", "crowd"): "describe_anchors.crowd",
    ("show_anchors", "train_split"): "describe_anchors.split",
}
TRAIN = ("train",)


class OfLength(int):
    """Equal to every list of this length."""

    def __eq__(self, other):
        return len(other) == int(self)

    __hash__ = int.__hash__


# Setting of a recipe -> its tell-tale value in gin, the commands that must see it, and where it
# must arrive: "function.parameter" -> value.
TELLTALES = {
    # `show_inputs` takes no more images a batch than it draws; `benchmark` and `fit` have a batch
    # size of their own.
    "batch_size": ("3", ("train", "make_static"), {"batches.batch_size": 3}),
    "augment": ("@TelltaleAugment()", FEED, {"batches.augment": TelltaleAugment}),
    "compose": ("@TelltaleMosaic()", FEED, {"batches.compose": TelltaleMosaic}),
    # Some take one size, and refuse several: tests/training/test_image_sizes.py.
    "image_sizes": ("((64, 64), (96, 80))", TRAIN, {"Trainer.forms": OfLength(2)}),
    "augment_on": ("'device'", TRAIN, {"Trainer.render": types.MethodType}),
    "batches": (
        "@telltale_batches",
        FEED,
        {"batches.max_boxes": 33, "batches.shuffle_buffer": 44},
    ),
    "keep_empty": ("True", FEED, {"batches.keep_empty": True}),
    "crowd": ("'drop'", (*FEED, "show_anchors"), {"batches.crowd": "drop"}),
    "seed": ("7", FEED, {"batches.seed": 7}),
    "data_weights": ("(2.0,)", FEED, {"batches.data_weights": (2.0,)}),
    "repeat_threshold": ("0.125", FEED, {"batches.repeat_threshold": 0.125}),
    "train_split": ("'coco_val'", (*FEED, "show_anchors"), {"batches.split": "coco_val"}),
    "targets_in_pipeline": ("False", FEED, {"batches.make_targets": None}),
    "optimizer": ("@TelltaleMomentum", STEP, {"Trainer.optimizer": TelltaleMomentum}),
    "schedule": ("@TelltaleRate", STEP, {"Trainer.schedule": TelltaleRate}),
    # Its factor is for float16 alone; that it is built is what the other precisions show.
    "loss_scale": ("@TelltaleScale", STEP, {"LossScale.initial": 77.0}),
    "weight_decay": ("0.125", STEP, {"Trainer.weight_decay": 0.125}),
    "decay_exclude": ("('stem_',)", STEP, {"Trainer.decay_exclude": ("stem_",)}),
    "layer_rates": ("{'stem_': 0.1}", STEP, {"Trainer.layer_rates": {"stem_": 0.1}}),
    "freeze": ("('stem_conv',)", STEP, {"Trainer.freeze": ("stem_conv",)}),
    "clip_norm": ("4.5", STEP, {"Trainer.clip_norm": 4.5}),
    "jit_compile": ("True", STEP, {"Trainer.jit_compile": True}),
    "rematerialize": ("('group1_',)", STEP, {"Trainer.rematerialize": ("group1_",)}),
    "ema_decay": ("0.75", STEP, {"Trainer.ema_decay": 0.75}),
    # A benchmark and a check of an installation measure one batch.
    "accumulate_steps": ("2", TRAIN, {"Trainer.accumulate_steps": 2}),
    "loop_in_graph": ("False", TRAIN, {"LoopOptions.loop_in_graph": False}),
    "steps": ("11", TRAIN, {"LoopOptions.total_steps": 11}),
    "epochs": ("5", TRAIN, {"run_length.epochs": 5}),
    "resume_from": ("'an/earlier/run'", TRAIN, {"find_checkpoint.path": "an/earlier/run"}),
    "fine_tune_checkpoint": ("'some.npz'", TRAIN, {"restore.path": "some.npz"}),
    "fine_tune_checkpoint_type": ("'detection'", TRAIN, {"restore.kind": "detection"}),
    "fine_tune_exclude": ("('head_',)", TRAIN, {"restore.exclude": ("head_",)}),
    "fine_tune_channels": ("'BGR'", TRAIN, {"restore.channels": "BGR"}),
    "freeze_random": ("True", TRAIN, {"check_frozen.allowed": True}),
    "published_weights": ("'vgg16_caffe'", TRAIN, {"check_frozen.published": "vgg16_caffe"}),
    "eval_split": ("'coco_train'", TRAIN, {"evaluation_batches.split": "coco_train"}),
    "eval_batch_size": ("2", TRAIN, {"evaluation_batches.batch_size": 2}),
    "log_every": ("6", TRAIN, {"LoopOptions.log_every": 6}),
    "checkpoint_every": ("7", TRAIN, {"LoopOptions.checkpoint_every": 7}),
    "evaluate_every": ("8", TRAIN, {"LoopOptions.evaluate_every": 8}),
    "keep_checkpoints": ("9", TRAIN, {"RunCheckpoints.keep": 9}),
    "keep_best": ("'AP50'", TRAIN, {"LoopOptions.keep_best": "AP50"}),
    "early_stop_patience": ("4", TRAIN, {"LoopOptions.early_stop_patience": 4}),
    "recovery": ("True", TRAIN, {"LoopOptions.recovery": True}),
    "pictures": ("0", TRAIN, {"PictureBoard.number": 0}),
    "profile": ("(1, 2)", TRAIN, {"make_observers.profile": (1, 2)}),
    "use_performance": ("True", TRAIN, {"make_observers.use_performance": True}),
    "tracker": ("'mlflow'", TRAIN, {"start_tracking.name": "mlflow"}),
    "deterministic": ("True", TRAIN, {"start_engine.deterministic": True}),
    "device": ("'cpu'", TRAIN, {"start_engine.device": "cpu"}),
    "strategy": ("'horovod'", TRAIN, {"start_engine.name": "horovod"}),
    "devices": ("3", TRAIN, {"start_engine.devices": 3}),
    "use_horovod": ("True", TRAIN, {"start_engine.use_horovod": True}),
    "gradient_compression": ("'fp16'", TRAIN, {"start_engine.compression": "fp16"}),
    "sync_batch_norm": ("2", TRAIN, {"start_engine.group_size": 2}),
}
# Settings of a part, with those of `train` that choose the part.
PARTS = (
    "telltale_batches.max_boxes = 33",
    "telltale_batches.shuffle_buffer = 44",
    "TelltaleAugment.image_size = (64, 64)",
    "TelltaleAugment.compiled = False",
    "TelltaleScale.initial = 77.0",
    "TelltaleRate.learning_rate = 0.25",
)
# They exclude others: a run of their own.
APART = ("steps", "resume_from", "augment_on", "image_sizes")


# They need a run that is trained: the file and the test that follow them to the step.
ELSEWHERE = {
    "teacher": ("training/test_teacher.py", "test_the_weights_are_those_of_a_step_by_hand")
}


def test_every_setting_has_a_telltale():
    assert not set(TELLTALES) & set(ELSEWHERE)
    known = set(TELLTALES) | set(ELSEWHERE)
    assert known == {field.name for field in dataclasses.fields(Recipe)}
    for file, test in ELSEWHERE.values():
        assert f"def {test}(" in (Path(__file__).parent / file).read_text()


def watched(function, place, result=None):
    """Return a function that notes its arguments, and calls another or gives a result instead."""
    signature = inspect.signature(function)

    @functools.wraps(function, updated=())
    def noting(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        extra = [n for n, p in signature.parameters.items() if p.kind is p.VAR_KEYWORD]
        for name in extra:
            arguments |= arguments.pop(name)
        note(place, **arguments)
        return function(*args, **kwargs) if result is None else result

    return noting


@contextlib.contextmanager
def watching():
    """Watch the parts that settings go to; nothing is trained, measured or restored."""
    alone = Engine(SingleProcess(), tf.distribute.get_strategy())
    untrained = SimpleNamespace(run=lambda: "finished")
    table = SimpleNamespace(report=lambda: "nothing", fresh=())
    tracking = SimpleNamespace(log=lambda *_: None, close=lambda **_: None)
    with pytest.MonkeyPatch.context() as patch:
        for module, name, result in (
            (recipe_module, "Trainer", None),
            (recipe_module, "LoopOptions", None),
            (recipe_module, "run_length", None),
            (recipe_module, "evaluation_batches", None),
            (recipe_module, "start_engine", alone),
            (train_module, "RunCheckpoints", None),
            (train_module, "PictureBoard", None),
            (train_module, "make_observers", []),
            (train_module, "restore", table),
            (train_module, "start_tracking", tracking),
            (train_module.beginning, "check_frozen", None),
            (train_module, "TrainLoop", untrained),
            (train_module.run_directory, "check_classes", SimpleNamespace()),
            (train_module.run_directory, "find_checkpoint", None),
            (anchor_report, "describe_anchors", "a table"),
        ):
            patch.setattr(module, name, watched(getattr(module, name), name, result))
        patch.setattr(measure, "alternate", lambda works, **_: dict.fromkeys(works, [1.0, 2.0]))
        patch.setattr(Trainer, "train_step", lambda self, batch: {"total": 0.0})
        yield


def run_command(command, recipe, data_dir, folder):
    """Run a command in this process on a recipe's file."""
    ARRIVED.clear()
    files = [f"--gin_file={recipe}", f"--data_dir={data_dir}"]
    if command == "train":
        call("train", *files, f"--model_dir={folder / 'run'}")
    elif command == "show_inputs":
        call("show_inputs", *files, f"--output={folder / 'inputs.png'}", "--num_images=1")
    elif command == "show_anchors":
        call("show_anchors", *files)
    elif command == "make_static":
        call("make_static", *files, f"--output_dir={folder / 'static'}", "--num_steps=1")
    elif command == "doctor":
        with parsed("doctor", []):
            lines = list(doctor._train_step(str(recipe)))
            assert [line.status for line in lines] == ["ok"], lines
    elif command == "fit":
        detector = api.build(recipe, label_map=load_label_map(data_dir))
        fit_data.training_data(data_dir, detector, recipe=recipe)
    else:
        device = ["--device=cpu"] if command == "benchmark step" else []
        call("benchmark", *files, f"--part={command.split()[1]}", *device)


def call(name, *arguments):
    with parsed(name, arguments):
        assert importlib.import_module(f"ssd_centernet.cli.{name}").main([name]) == 0


@functools.lru_cache
def arrivals(command, data_dir, folder, apart=()):
    """Return what arrived where in a command whose recipe has all tell-tale settings."""
    left_out = ("epochs",) if apart else APART
    chosen = {n: value for n, (value, *_) in TELLTALES.items() if n not in left_out}
    lines = [f"train.{name} = {value}" for name, value in chosen.items()]
    place = folder / f"{command}{len(apart)}"
    place.mkdir()
    recipe = place / "telltale.gin"
    recipe.write_text("\n".join([RUN_RECIPE, *PARTS, *lines]))
    with watching(), contextlib.suppress(FileNotFoundError):
        # The earlier run that `resume_from` names is not there.
        run_command(command, recipe, data_dir, place)
    return dict(ARRIVED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("telltale")


@pytest.mark.parametrize(
    ("command", "setting"),
    [(command, setting) for setting in TELLTALES for command in TELLTALES[setting][1]],
)
def test_a_setting_is_seen_by_every_command_that_does_as_train_does(
    command, setting, data_dir, folder
):
    apart = APART if setting in APART else ()
    found = arrivals(command, data_dir, folder, apart)
    for place, expected in TELLTALES[setting][2].items():
        values = found.get(place) or found.get(PLACES.get((command, setting), ""))
        assert values, f"{command} never asks for {place}; it does for {sorted(found)}"
        for value in values:
            same = isinstance(value, expected) if inspect.isclass(expected) else value == expected
            assert same, f"{place} is {value!r} in {command}"


# What a command leaves alone, as the setting of `train` that chooses the part.
DEFAULTS = {
    "optimizer": "Momentum",
    "schedule": "ConstantRate",
    "loss_scale": "LossScale",
    "batches": "training_batches",
}
LEFT_ALONE = {
    "show_inputs": ("optimizer", "schedule", "loss_scale"),
    "make_static": ("optimizer", "schedule", "loss_scale"),
    "benchmark input": ("optimizer", "schedule", "loss_scale"),
    "benchmark step": (),
    "show_anchors": ("optimizer", "schedule", "loss_scale", "batches"),
    "doctor": ("batches",),
}


@pytest.mark.slow(minutes=1)
@pytest.mark.parametrize("name", config.recipes())
def test_each_setting_of_a_recipe_is_used_by_each_command(name, data_dir, tmp_path, monkeypatch):
    """`train` uses all of them, or it refuses the recipe; the others all but named parts."""
    recipe = tmp_path / f"{name}.gin"
    narrow = [] if "demo" in name else NARROW[name.removesuffix("_overfit")]
    small = (f"IMAGE_SIZE = {SIZE}", "train.batch_size = 2", "train.pictures = 1")
    recipe.write_text("\n".join([f"include '{name}.gin'", *small, *narrow]))
    monkeypatch.setattr(records, "LONG_EPOCH", 8)
    build_once(monkeypatch)
    feed_once(monkeypatch)
    for command, parts in (("train", ()), *LEFT_ALONE.items()):
        place = tmp_path / command
        place.mkdir()
        unused = []
        with watching(), pytest.MonkeyPatch.context() as patch:
            # Commands forget their settings at the end: what was used is asked there.
            patch.setattr(config, "clear", lambda unused=unused: unused.extend(unused_settings()))
            run_command(command, recipe, data_dir, place)
        chosen = {config.bound_part(f"train.{p}", default=DEFAULTS[p])[0] for p in parts}
        config.clear()
        # An installation is checked with three classes, whatever the data has.
        own = ("build_detector.num_classes",) if command == "doctor" else ()
        owners = {one.rpartition(".")[0] for one in unused if one not in own}
        assert owners <= chosen, f"{command} leaves {sorted(unused)} alone"


def unused_settings():
    used = gin_state.used_keys()
    # A macro that only an unused setting refers to is that setting's.
    settings = {key: one.name for key, one in gin_state.bindings.items() if "." in one.name}
    return [name for key, name in settings.items() if key not in used | gin_state.replaced]
