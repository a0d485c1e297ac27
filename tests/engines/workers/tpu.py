"""The command line beside a stand-in for a TPU slice: `tpu.py CORES COMMAND ...`.

`tpu.py CORES checks CHECK ...` makes checks of `replicas.py` with it.

The stand-in has the names and arguments of TensorFlow's TPU parts, and their limits: the system is
started before a strategy is made, nothing runs outside of a graph, what is not a tensor becomes
one, there are no texts, no sizes that are only known later, no assignments to a part of a variable,
and sums of few types. Its cores are parts of the CPU, joined by MirroredStrategy.
"""

import os
import sys
import types

import tensorflow as tf

started = []
SUMMED = {tf.bfloat16, tf.float16, tf.float32, tf.int32, tf.uint32}


class Resolver:
    """`tf.distribute.cluster_resolver.TPUClusterResolver`."""

    def __init__(self, tpu=None, zone=None, project=None):
        self.address = tpu


class Assignment:
    """`tf.tpu.experimental.DeviceAssignment`."""

    def __init__(self, number):
        self.num_replicas = number

    @staticmethod
    def build(topology, computation_shape=None, computation_stride=None, num_replicas=1):
        if num_replicas > topology.num_tasks * topology.num_tpus_per_task:
            raise ValueError("Device assignment is not satisfiable")
        return Assignment(num_replicas)


class Strategy(tf.distribute.MirroredStrategy):
    """`tf.distribute.TPUStrategy`."""

    def __init__(self, tpu_cluster_resolver=None, experimental_device_assignment=None):
        assert isinstance(tpu_cluster_resolver, Resolver)
        assert started == [tpu_cluster_resolver], "initialize_tpu_system was not called once"
        number = CORES
        if experimental_device_assignment is not None:
            number = experimental_device_assignment.num_replicas
        super().__init__([f"device:CPU:{core}" for core in range(number)])
        # A merge there is a part of the same graph.
        self.extended._use_merge_call = lambda: False
        plain = self.extended._replica_ctx_all_reduce

        def all_reduce(how, value, options=None):
            for one in tf.nest.flatten(value):
                assert one.dtype in SUMMED, f"CrossReplicaSum has no {one.dtype}"
            return plain(how, value, options)

        self.extended._replica_ctx_all_reduce = all_reduce

    def run(self, fn, args=(), kwargs=None, options=None):
        if tf.executing_eagerly():
            raise NotImplementedError("TPUStrategy.run(fn, ...) does not support pure eager")

        def sent(one):
            one = tf.convert_to_tensor(one)
            assert one.dtype != tf.string and one.shape.is_fully_defined(), one
            return one

        args = tf.nest.map_structure(
            lambda one: one if hasattr(one, "values") else sent(one), tuple(args)
        )
        graph = tf.compat.v1.get_default_graph()
        before = len(graph.get_operations())
        result = super().run(fn, args=args, kwargs=kwargs or {})
        kinds = {one.type for one in graph.get_operations()[before:]}
        assert "ResourceStridedSliceAssign" not in kinds, "get() is not supported in a TPU context"
        return result


def initialize(resolver=None):
    """`tf.tpu.experimental.initialize_tpu_system`."""
    local = not os.environ.get("TPU_NAME")
    assert resolver.address == ("local" if local else os.environ["TPU_NAME"])
    assert local or connected == [resolver], "a TPU elsewhere was not connected"
    started.append(resolver)
    return types.SimpleNamespace(num_tasks=1, num_tpus_per_task=CORES)


if __name__ == "__main__":
    CORES, connected = int(sys.argv[1]), []
    listed = tf.config.list_physical_devices
    (cpu,) = listed("CPU")
    parts = [tf.config.LogicalDeviceConfiguration()] * CORES
    tf.config.set_logical_device_configuration(cpu, parts)
    tpus = [] if os.environ.get("TPU_NAME") else [f"TPU:{core}" for core in range(CORES)]
    tf.config.list_physical_devices = lambda kind=None: tpus if kind == "TPU" else listed(kind)
    tf.distribute.TPUStrategy = Strategy
    tf.distribute.cluster_resolver.TPUClusterResolver = Resolver
    tf.config.experimental_connect_to_cluster = connected.append
    tf.tpu.experimental.initialize_tpu_system = initialize
    tf.tpu.experimental.DeviceAssignment = Assignment
    if sys.argv[2] == "checks":
        from ssd_centernet.runtime.tpu import open_cores
        from tests.engines.workers import replicas

        cores = open_cores(None)
        for check in (one for one in replicas.CHECKS if one.__name__ in sys.argv[3:]):
            check(cores)
            print(f"{check.__name__}: content", flush=True)
        sys.exit()
    from ssd_centernet.cli import main

    sys.argv[1:] = sys.argv[2:]
    main.run()
