"""The loop alone: how many steps a call takes, one trace, signals, and what processes agree on."""

import functools
import inspect
import os
import signal
import types

import pytest
import tensorflow as tf

from ssd_centernet._keras import keras
from ssd_centernet.run_directory import find_checkpoint
from ssd_centernet.runtime.distribution import SingleProcess
from ssd_centernet.training import loop
from ssd_centernet.training.checkpoints import RunCheckpoints
from ssd_centernet.training.length import LoopOptions
from ssd_centernet.training.logging import TrainLog
from ssd_centernet.training.loop import TrainLoop, compile_steps
from ssd_centernet.training.step_input import StepInput
from ssd_centernet.training.trainer import NonFiniteLossError
from tests.tiny import tiny_batch, tiny_trainer
from tools.device_check.kernels import graphs


class Watcher:
    """An observer that notes the calls, and does something before the one that begins at a step."""

    def __init__(self, at=None, action=None):
        self.calls = []
        self.closed = 0
        self._at, self._action = at, action

    def limit(self, step):
        return 1000

    def call_begins(self, step):
        if step == self._at:
            self._action()

    def call_ended(self, before, after, seconds):
        self.calls.append(after - before)

    def close(self):
        self.closed += 1


def make_loop(folder, *, batch=None, watcher=None, evaluate=None, communicator=None, **options):
    trainer = tiny_trainer(communicator=communicator)
    batches = tf.data.Dataset.from_tensors(batch or tiny_batch()).repeat()
    return TrainLoop(
        trainer,
        StepInput(lambda **_: batches, trainer, tf.distribute.get_strategy()),
        options=LoopOptions(**{"total_steps": 20, **options}),
        checkpoints=RunCheckpoints(trainer, folder, seed=0),
        log=TrainLog(folder, trainer.length),
        evaluate=evaluate,
        observers=[watcher or Watcher()],
    )


@pytest.fixture
def second_a_step(monkeypatch):
    """Let a step take exactly a second on the loop's clock."""

    def use(train_loop):
        clock = types.SimpleNamespace(monotonic=lambda: float(train_loop.trainer.step))
        monkeypatch.setattr(loop, "time", clock)

    return use


def test_a_call_takes_seconds_and_ends_where_something_is_due(tmp_path, second_a_step):
    watcher = Watcher()
    evaluated = []
    train_loop = make_loop(
        tmp_path,
        watcher=watcher,
        evaluate=lambda: evaluated.append(int(train_loop.trainer.step)) or {"AP": 0.1},
        log_every=100,
        checkpoint_every=9,
        evaluate_every=7,
    )
    second_a_step(train_loop)
    assert train_loop.run() == "finished"
    # One to trace, two to learn the pace, then five seconds each or to the next event.
    assert watcher.calls == [1, 2, 4, 2, 5, 4, 2]
    assert evaluated == [7, 14, 20]
    assert [path.name for path in sorted(tmp_path.glob("ckpt-*.index"))] == [
        "ckpt-18.index",
        "ckpt-20.index",
        "ckpt-9.index",
    ]
    assert watcher.closed == 1


@pytest.mark.parametrize(
    "strategy",
    [
        tf.distribute.get_strategy,
        lambda: tf.distribute.OneDeviceStrategy("/cpu:0"),
        lambda: tf.distribute.MirroredStrategy(["/cpu:0"]),
    ],
    ids=["default", "one device", "mirrored"],
)
def test_calls_of_any_length_are_traced_once(strategy):
    strategy = strategy()
    traced = []
    with strategy.scope():
        trainer = tiny_trainer()
    # In place of the whole step, whose optimizer would wait for other replicas inside a branch.
    trainer.compiled_step = lambda batch: (
        traced.append(batch["image"].shape) or trainer.step.assign_add(1)
    )
    run_steps = compile_steps(trainer, strategy)
    iterator = iter(
        strategy.experimental_distribute_dataset(
            tf.data.Dataset.from_tensors(tiny_batch()).repeat()
        )
    )
    for number in (1, 2, 5, 3):
        run_steps(iterator, tf.constant(number))
    assert trainer.step.numpy() == 11
    assert traced == [(2, 64, 64, 3)]
    assert run_steps.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("accumulate", [1, 3])
def test_steps_that_python_calls_are_those_of_the_graph_and_have_no_loop(accumulate, monkeypatch):
    forms, bits = [], []
    trace = tf.function

    @functools.wraps(trace)
    def traced(function=None, **options):
        if function is None:
            return functools.partial(traced, **options)
        forms[-1].append(trace(function, **options))
        return forms[-1][-1]

    monkeypatch.setattr(tf, "function", traced)
    batches = [tiny_batch(seed) for seed in range(4)]
    stacked = {name: tf.stack([batch[name] for batch in batches]) for name in batches[0]}
    for in_graph in (True, False):
        forms.append([])
        keras.utils.set_random_seed(1)
        trainer = tiny_trainer(accumulate_steps=accumulate, ema_decay=0.9, clip_norm=1.0)
        run_steps = compile_steps(trainer, tf.distribute.get_strategy(), in_graph=in_graph)
        iterator = iter(tf.data.Dataset.from_tensor_slices(stacked).repeat())
        for number in (1, 2, 2):
            run_steps(iterator, tf.constant(number))
        assert int(trainer.step) == 5 and trainer.position == 5 * 2 * accumulate
        bits.append([variable.numpy().tobytes() for variable in trainer.state])
    assert bits[0] == bits[1]
    (looped, *_), others = forms
    loops = [_has_loop(function) for function in others]
    assert _has_loop(looped) and not any(loops)
    # What was not needed was not traced; the rest once.
    assert len(loops) == 2
    counts = [function.experimental_get_tracing_count() for function in others]
    assert counts == [int(accumulate > 1), 1]


@pytest.mark.skipif(
    "experimental_attributes" not in inspect.signature(tf.function).parameters,
    reason="TensorFlow 2.11 and older put every function into the graph of the loop",
)
def test_no_loop_holds_the_gradient_of_a_pooling_itself():
    trainer = tiny_trainer(accumulate_steps=3)
    run_steps = compile_steps(trainer, tf.distribute.get_strategy())
    iterator = iter(tf.data.Dataset.from_tensors(tiny_batch()).repeat())
    graph = run_steps.get_concrete_function(iterator, tf.constant(1)).graph.as_graph_def()
    holders = [
        function
        for function in graph.library.function
        if any(node.op == "MaxPoolGrad" for node in function.node_def)
    ]
    # One for the batches before the last, one for the last; neither is put into another graph.
    assert len(holders) == 2 and all(holder.attr["_noinline"].b for holder in holders)


def _has_loop(function):
    if not function.experimental_get_tracing_count():
        return False
    (concrete,) = function._list_all_concrete_functions()
    operations = [one for graph in graphs(concrete.graph) for one in graph.get_operations()]
    assert len(operations) > 100
    return any("While" in one.type for one in operations)


def test_a_signal_is_answered_after_the_call_and_the_run_goes_on(tmp_path, second_a_step, capsys):
    before = signal.getsignal(signal.SIGTERM)
    watcher = Watcher(8, lambda: os.kill(os.getpid(), signal.SIGTERM))
    train_loop = make_loop(tmp_path, watcher=watcher)
    second_a_step(train_loop)
    assert train_loop.run() == "SIGTERM"
    assert sum(watcher.calls) == 13 and watcher.closed == 1
    assert find_checkpoint(tmp_path).endswith("ckpt-13")
    assert "give the same command again to go on from step 13" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is before
    again = make_loop(tmp_path)
    again.checkpoints.resume()
    assert again.run() == "finished" and int(again.trainer.step) == 20


class OneOfTwo(SingleProcess):
    """The second process of two, whose first one is slower and is stopped at a step."""

    rank, is_chief = 1, False

    def gather(self, objects):
        ((pace, number),) = objects
        return [(2 / 5, signal.SIGINT if pace == 1.0 else None), (pace, number)]


def test_processes_take_the_first_ones_pace_and_stop_together(tmp_path, second_a_step):
    watcher = Watcher()
    train_loop = make_loop(tmp_path, watcher=watcher, communicator=OneOfTwo())
    second_a_step(train_loop)
    assert train_loop.run() == "SIGINT"
    assert watcher.calls == [1, 2]


def test_a_step_that_is_not_finite_ends_the_run_and_closes_what_watches_it(tmp_path):
    batch, watcher = tiny_batch(), Watcher()
    batch["image"] = batch["image"] * float("nan")
    with pytest.raises(NonFiniteLossError, match="step 0 is not finite"):
        make_loop(tmp_path, batch=batch, watcher=watcher).run()
    assert watcher.calls == [] and watcher.closed == 1
    assert '"reason": "NonFiniteLossError"' in (tmp_path / "sessions.jsonl").read_text()
