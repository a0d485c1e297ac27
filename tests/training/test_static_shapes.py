"""Train step and decoders have static shapes and kernels on GPUs; a run traces its step once.

Accelerators compile a graph for every combination of shapes that they meet. An operation without a
kernel is computed on the host, and everything waits for the copies.
"""

import functools

import pytest
import tensorflow as tf

from ssd_centernet import config
from ssd_centernet import recipe as recipe_module
from ssd_centernet.benchmark.step import make_trainer
from ssd_centernet.data.directory import load_label_map
from ssd_centernet.recipe import Recipe
from ssd_centernet.train import train
from tests.narrow import NARROW
from tools.device_check import kernels
from tools.device_check.kernels import graphs

RECIPES = (
    "ssd300_resnet34",
    "ssd320_resnet50_fpn",
    "ssd300_vgg16",
    "centernet_resnet101_fpn",
    "centernet_hourglass20",
    # Whose steps choose the anchors of each object.
    "ssd300_vgg16_plus",
    "ssd_fpn_demo_plus",
)
# Both parts of a run are in the graph.
BESIDE = {"ssd_fpn_demo_plus": ("TaskAligned.begin_with = @ATSS()",)}
# More images than TensorFlow's loops and shapes have numbers.
BATCH = 32


def unknown(graph):
    """The tensors in a graph and below whose shape is not known before it runs."""
    found = []
    for inner in graphs(graph):
        for operation in inner.get_operations():
            found += [
                f"{operation.type} {tensor.name} {tensor.shape}"
                for tensor in operation.outputs
                if not tensor.shape.is_fully_defined()
                and tensor.dtype not in (tf.resource, tf.variant)
                and not _is_workspace(tensor)
            ]
    return found


def _is_workspace(tensor):
    """Whether TensorFlow gives it no shape on any device, and no computation of ours reads it.

    Batch norm keeps some memory for its own gradient; the condition of a loop has arguments for
    what only the loop's body reads.
    """
    operation = tensor.op
    if operation.type == "Placeholder" and "redundant_placeholder" in operation.name:
        return not tensor.consumers()
    if operation.type == "ZerosLike":
        return _is_workspace(operation.inputs[0])
    return operation.type == "FusedBatchNormV3" and tensor.value_index == 5


def test_the_search_for_unknown_shapes_finds_them():
    def branches(x):
        def body(i, total):
            chosen = tf.cond(i > 1, lambda: tf.size(tf.where(x > 0.0)), lambda: 0)
            return i + 1, total + chosen

        return tf.while_loop(lambda i, total: i < 3, body, (0, 0))

    traced = tf.function(branches).get_concrete_function(tf.TensorSpec([4]))
    found = unknown(traced.graph)
    assert any(line.startswith("Where ") and line.endswith("(None, 1)") for line in found), found


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_step_and_detection_have_static_shapes(name, data_dir):
    sizes = ("IMAGE_SIZE = (96, 96)", "train.seed = 3")
    config.parse([name], [*sizes, *NARROW.get(name, ()), *BESIDE.get(name, ())])
    recipe = Recipe().replace(batch_size=BATCH)
    detector = recipe.detector(load_label_map(data_dir))
    trainer = make_trainer(recipe, detector)
    batch = recipe.training_batches(detector, data_dir).element_spec
    assert all(spec.shape.is_fully_defined() for spec in tf.nest.flatten(batch)), batch

    step = tf.function(trainer.train_step).get_concrete_function(batch)
    assert len(step.graph.get_operations()) > 500
    assert unknown(step.graph) == []

    def detect(images):
        return detector.decode(detector(images, training=False))

    trace = functools.partial(tf.function, autograph=False)  # As a run traces its parts.
    detection = trace(detect).get_concrete_function(batch["image"])
    assert unknown(detection.graph) == []
    # Where the pipeline makes no targets the step does.
    objects = [batch[name] for name in ("boxes", "classes", "is_crowd", "valid")]
    targets = trace(lambda *o: detector.make_targets(*o)).get_concrete_function(*objects)
    assert unknown(targets.graph) == []

    for traced in (step, detection, targets):
        for devices in (kernels.GPU, kernels.XLA):
            missing = kernels.without_kernel(traced.graph, devices)
            assert {one.type for one in missing} <= set(kernels.KNOWN), missing
    assert not kernels.in_host_memory(step.graph)
    # What the exception is made for: it is there, and it is nothing of a step.
    assert not kernels.without_kernel(step.graph) + kernels.without_kernel(step.graph, kernels.XLA)


def test_the_search_for_kernels_finds_what_is_missing():
    def body(x):
        # The position of the first mark: of bool on a GPU, of int8 on the CPU alone.
        marks, none = tf.cast(x > 0.0, tf.int8), tf.constant(0, tf.int64)
        first = tf.cond(x[0] > 0.0, lambda: tf.argmax(marks), lambda: none)
        numbers = tf.range(32) * tf.cast(x[0], tf.int32)
        return tf.argmax(x > 0.0), tf.strings.as_string(first), numbers

    traced = tf.function(body, autograph=False).get_concrete_function(tf.TensorSpec([4]))
    missing = kernels.without_kernel(traced.graph)
    assert sorted(one.type for one in missing) == ["ArgMax", "AsString"], missing
    assert any("T=int8" in one.types for one in missing)
    assert "AsString" in [one.type for one in kernels.without_kernel(traced.graph, kernels.XLA)]
    # Whole numbers of 32 bits are sizes to TensorFlow: their kernels for GPUs work on the host.
    assert "Mul" in [one.type for one in kernels.in_host_memory(traced.graph)]


@pytest.mark.slow
@pytest.mark.parametrize("accumulate_steps", [1, 2])
def test_a_run_traces_its_step_once(accumulate_steps, tiny_recipe, data_dir, tmp_path, monkeypatch):
    """Call of one, of several and of the last few steps run the same graph."""
    traced, calls = [], []

    class Watched(recipe_module.Trainer):
        def train_step(self, batch):
            traced.append(tf.compat.v1.get_default_graph())
            return super().train_step(batch)

        def raise_if_failed(self):
            calls.append(int(self.step))
            super().raise_if_failed()

    monkeypatch.setattr(recipe_module, "Trainer", Watched)
    settings = ("train.steps = 11", "train.log_every = 4", "train.checkpoint_every = 100")
    config.parse([tiny_recipe], [*settings, f"train.accumulate_steps = {accumulate_steps}"])
    assert train(tmp_path, data_dir) == "finished"
    lengths = [end - begin for begin, end in zip([0, *calls], calls, strict=False)]
    assert sum(lengths) == 11 and len(set(lengths)) > 1
    assert len(traced) == 1, f"traced {len(traced)} times over calls of {lengths} steps"
    # The body of the loop over the steps; what is around it only counts.
    assert isinstance(traced[0], tf.__internal__.FuncGraph)
    assert unknown(traced[0]) == []
