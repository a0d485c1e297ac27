"""Which operations of a traced function have a kernel on a device; asked of TensorFlow itself.

TensorFlow's wheel for Linux holds the kernels of GPUs and what XLA compiles, also on a machine
without one: its registry says which types each kernel takes, and what of it stays in the memory of
the host.

python -m tools.device_check.kernels prints the tables of docs/devices.md.
"""

from __future__ import annotations

import collections
import functools
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.framework import kernels, op_def_registry

# Names of the registry: what runs on a GPU (DEFAULT: on any device), and what XLA compiles for one.
GPU, XLA = ("GPU", "DEFAULT"), ("XLA_GPU_JIT",)
# Operation -> why it stays although GPUs or XLA have no kernel for it.
KNOWN = {
    "CombinedNonMaxSuppression": "TensorFlow has it for the CPU alone. `SSDDecoder` gives it the "
    "few hundred boxes that are left of thousands, which are copied to the host; its result is "
    "exactly the published one. `SSDDecoder.call(portable_pairs=N)`, as exports use it, does "
    "without.",
}
# Arguments of functions: nothing is computed. XLA has an operation of its own for them.
_ARGUMENTS = ("Placeholder",)
# What TensorFlow knows of a graph with static shapes before it runs, or passes on as it is.
_KNOWN_BEFORE = ("Const", "Shape", "Size", "Rank")
_PASSED_ON = ("Identity", "EnsureShape")
# Smaller arrays in the memory of the host are sizes, indices of loops and the like.
_SMALL = 16


class Operation(NamedTuple):
    """A kind of operation: its name and the types of its arguments, such as 'T=float32'."""

    type: str
    types: str


def graphs(graph: tf.Graph) -> list[tf.Graph]:
    """Return a graph and those of its loops, its branches and the functions that it calls."""
    found = {id(graph): graph}
    waiting = [graph]
    while waiting:
        current = waiting.pop()
        for operation in current.get_operations():
            for value in operation.node_def.attr.values():
                called = [value.func] if value.HasField("func") else value.list.func
                for function in called:
                    inner = current._get_function(function.name).graph if function.name else current
                    if id(inner) not in found:
                        found[id(inner)] = inner
                        waiting.append(inner)
    return list(found.values())


def operations(graph: tf.Graph) -> Iterator[tf.Operation]:
    """Yield the operations of a graph and of all inside it, but for arguments of functions."""
    for one in graphs(graph):
        yield from (found for found in one.get_operations() if found.type not in _ARGUMENTS)


def without_kernel(graph: tf.Graph, devices: tuple[str, ...] = GPU) -> collections.Counter:
    """Count the operations of a graph for which a device has no kernel.

    Args:
        graph: of a traced function.
        devices: names of the registry: `GPU` or `XLA`.

    Returns:
        `Operation` -> how often. TensorFlow would compute them on the host, or, under XLA, refuse
        to compile the function.
    """
    missing = (found for found in operations(graph) if not _kernels_for(found, devices))
    return collections.Counter(map(_kind, missing))


def in_host_memory(graph: tf.Graph) -> collections.Counter:
    """Count the operations whose kernel for GPUs computes an array in the memory of the host.

    TensorFlow has such kernels for whole numbers of 32 bits, which it takes for sizes. XLA
    computes them on the device.

    Args:
        graph: of a traced function, whose shapes are known.

    Returns:
        `Operation` -> how often, of those with more than 16 elements.
    """
    return collections.Counter(_kind(one) for one in operations(graph) if _stays_on_host(one))


def _stays_on_host(operation: tf.Operation) -> bool:
    found = _kernels_for(operation, GPU)
    results = [one.name for one in op_def_registry.get(operation.type).output_arg]
    if not found or not results or operation.type in _PASSED_ON or _is_known_before(operation):
        return False
    if not all(name in found[0].host_memory_arg for name in results):
        return False
    arrays = (*operation.inputs, *operation.outputs)
    sizes = [one.shape.num_elements() or 0 for one in arrays if one.dtype == tf.int32]
    return max(sizes, default=0) > _SMALL


def _is_known_before(operation: tf.Operation) -> bool:
    """Tell whether TensorFlow can compute an operation when it prepares the graph."""
    inputs = [one.op for one in operation.inputs]
    known = bool(inputs) and all(map(_is_known_before, inputs))
    return known or operation.type in _KNOWN_BEFORE


def _kernels_for(operation: tf.Operation, devices: tuple[str, ...]) -> list[Any]:
    attributes = operation.node_def.attr
    return [
        kernel
        for kernel in _registered().get(operation.type, ())
        if kernel.device_type in devices
        and all(
            one.name in attributes
            and _types(attributes[one.name]) <= set(one.allowed_values.list.type)
            for one in kernel.constraint
        )
    ]


@functools.cache
def _registered() -> dict[str, list[Any]]:
    # What XLA compiles is registered when something is compiled for the first time.
    tf.function(tf.negative, jit_compile=True)(tf.ones([1]))
    found = collections.defaultdict(list)
    for kernel in kernels.get_all_registered_kernels().kernel:
        found[kernel.op].append(kernel)
    return dict(found)


def _types(value) -> set[int]:
    return set(value.list.type) if value.HasField("list") else {value.type}


def _kind(operation: tf.Operation) -> Operation:
    attributes = sorted(operation.node_def.attr.items())
    types = [f"{n}={tf.as_dtype(v.type).name}" for n, v in attributes if v.HasField("type")]
    return Operation(operation.type, ", ".join(types))


def traced(recipe, *, batch_size: int = 32, num_classes: int = 5) -> dict[str, tf.Graph]:
    """Trace what a recipe computes on the device.

    Args:
        recipe: a `Recipe`, whose gin files are parsed.
        batch_size: images of a batch.
        num_classes: number of classes.

    Returns:
        'step', 'detection' and 'targets' -> graph. A run makes its targets on the device only if
        the recipe says so.
    """
    from ssd_centernet.benchmark.step import batch_with_targets, make_trainer

    recipe = recipe.replace(batch_size=batch_size, accumulate_steps=1)
    detector = recipe.detector(num_classes=num_classes)
    trainer = make_trainer(recipe, detector)
    batch = batch_with_targets(detector, batch_size)
    objects = [batch[name] for name in ("boxes", "classes", "is_crowd", "valid")]

    def trace(function, *arguments) -> tf.Graph:
        return tf.function(function, autograph=False).get_concrete_function(*arguments).graph

    return {
        "step": trace(trainer.train_step, batch),
        "detection": trace(lambda x: detector.decode(detector(x, training=False)), batch["image"]),
        "targets": trace(lambda *some: detector.make_targets(*some), *objects),
    }


def rows(names: Iterable[str]) -> list[dict[str, Any]]:
    """Trace recipes with small images and few channels, and count their operations.

    Args:
        names: of recipes.

    Returns:
        A row for each recipe and each of its functions: `recipe`, `part`, `operations`, and
        `no_gpu`, `no_xla` and `host_memory`, each `Operation` -> how often.
    """
    from ssd_centernet import config
    from ssd_centernet.recipe import Recipe
    from tools.device_check.plan import gin_files

    found = []
    for name in names:
        config.parse(gin_files(name, narrow=True))
        try:
            parts = traced(Recipe())
        finally:
            config.clear()
        for part, graph in parts.items():
            row = {"recipe": name, "part": part, "operations": sum(1 for _ in operations(graph))}
            row |= {"no_gpu": without_kernel(graph), "no_xla": without_kernel(graph, XLA)}
            found.append({**row, "host_memory": in_host_memory(graph)})
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Lay rows out as a Markdown table."""
    lines = [
        "| recipe | function | operations | no kernel for GPUs | not under XLA | arrays of int32 "
        "on the host |",
        "|---|---|---|---|---|---|",
    ]
    for row in found:
        cells = [row["recipe"], row["part"], f"{row['operations']:,}"]
        cells += [_told(row[key]) for key in ("no_gpu", "no_xla")]
        cells.append(str(sum(row["host_memory"].values()) or "none"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _told(counts: collections.Counter) -> str:
    names = collections.Counter()
    for kind, number in counts.items():
        names[kind.type] += number
    return ", ".join(f"`{name}`: {number}" for name, number in sorted(names.items())) or "none"


if __name__ == "__main__":
    from tools.device_check.plan import QUICK

    print(table(rows(sys.argv[1:] or QUICK)))
