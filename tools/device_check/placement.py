"""Where the operations of a traced function really ran, as TensorFlow's executor tells it."""

from __future__ import annotations

import collections
import contextlib
from collections.abc import Iterator

from tensorflow.core.protobuf import config_pb2
from tensorflow.python.eager import context

# Transport between devices, and what holds a graph together: no work of its own.
_NO_WORK = ("_Send", "_Recv", "_HostSend", "_HostRecv", "NoOp", "_Arg", "_Retval", "_DeviceRetval")
_NO_WORK += ("_DeviceArg", "Const", "_SwitchN", "Switch", "Merge", "Identity", "_HostCast")


class Places:
    """What ran while it was watched."""

    def __init__(self):
        """Hold nothing yet."""
        self.metadata = config_pb2.RunMetadata()

    def counts(self) -> dict[str, dict[str, int]]:
        """Count the operations by device.

        Returns:
            Such as {'GPU:0': {'Conv2D': 12}, 'CPU:0': {'CombinedNonMaxSuppression': 1}}.
        """
        found: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        for graphs in self.metadata.function_graphs:
            for graph in graphs.partition_graphs:
                for node in graph.node:
                    if node.op not in _NO_WORK:
                        found[node.device.rpartition("device:")[2] or "-"][node.op] += 1
        return {device: dict(sorted(ops.items())) for device, ops in sorted(found.items())}


@contextlib.contextmanager
def watched() -> Iterator[Places]:
    """Collect the graphs that run inside a `with` block."""
    places = Places()
    current = context.context()
    current.enable_graph_collection()
    try:
        yield places
    finally:
        places.metadata = current.export_run_metadata() or places.metadata
        current.disable_graph_collection()
