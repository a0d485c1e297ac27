"""Several devices of one process that train together, by `tf.distribute`.

A replica is a device with its own copy of every variable and its own part of each batch. A step
updates the copies of its own device alone, with gradients that are averaged over all: copies that
begin equal stay equal, as the weights of several processes do.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from ssd_centernet.runtime.distribution import SingleProcess
from ssd_centernet.runtime.tpu import is_tpu, run_compiled


def copies(variable: tf.Variable) -> tuple[tf.Variable, ...]:
    """Return the copies of a variable, one for each replica of this process."""
    return tuple(getattr(variable, "values", (variable,)))


@contextlib.contextmanager
def replica_scope(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Make variables of which a step on a replica changes the copy of this replica alone.

    By itself `tf.distribute` joins what the replicas assign, which it cannot do within `tf.cond`.

    Args:
        strategy: of several replicas; one of a single replica is entered as it is.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(strategy.scope())
        if strategy.num_replicas_in_sync > 1:
            stack.enter_context(tf.variable_creator_scope(_each_its_own))
        yield


def _each_its_own(create: Callable[..., tf.Variable], **settings: Any) -> tf.Variable:
    settings["synchronization"] = tf.VariableSynchronization.AUTO
    settings["aggregation"] = tf.VariableAggregation.NONE
    variable = create(**settings)
    # Without it `int` and `float` refuse what they take of a variable of one device.
    variable.__class__ = _readable(type(variable))
    return variable


@functools.lru_cache
def _readable(kind: type) -> type:
    """Return a class of variables that are read like numbers: by their first copy."""
    ways = {
        "__int__": lambda variable: int(variable.numpy()),
        "__float__": lambda variable: float(variable.numpy()),
    }
    return type(kind.__name__, (kind,), ways)


def run_on_replicas(strategy: tf.distribute.Strategy) -> Callable:
    """Return a function like `strategy.run` that deals the rows of a batch to the replicas.

    Args:
        strategy: of `select_device`, or of several devices.

    Returns:
        `strategy.run` itself for a single replica. Else a function of a function and its arguments:
        a dict of tensors is a batch, of which each replica gets equally many consecutive rows;
        other arguments go to each replica as they are.
    """
    number = strategy.num_replicas_in_sync
    if number == 1:
        return strategy.run
    values = strategy.experimental_distribute_values_from_function

    def deal(argument: Any) -> Any:
        if not isinstance(argument, Mapping):
            return argument
        parts = [
            tf.nest.map_structure(lambda rows, n=replica: _rows(rows, n, number), dict(argument))
            for replica in range(number)
        ]
        return values(lambda context: parts[context.replica_id_in_sync_group])

    def run(function: Callable, args: Sequence[Any] = ()) -> Any:
        return strategy.run(function, args=tuple(map(deal, args)))

    return functools.partial(_run_compiled, run) if is_tpu(strategy) else run


def _run_compiled(run: Callable, function: Callable, args: Sequence[Any] = ()) -> Any:
    return run_compiled(run, function, args)


def _rows(rows: tf.Tensor, replica: int, number: int) -> tf.Tensor:
    count = rows.shape[0] // number
    return rows[replica * count : (replica + 1) * count]


class Replicas(SingleProcess):
    """A `Communicator` of one process whose step runs on several devices.

    To its loop, files and data the run is one process; only the step knows of the replicas.

    Attributes:
        replicas: number of devices that share a batch.
        group_size: replicas that `mean_of_group` averages over.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        *,
        compression: str = "none",
        group_size: int | None = None,
    ):
        """Join the replicas of a strategy.

        Args:
            strategy: of `select_devices`, or of the cores of a TPU slice.
            compression: "fp16" sends gradients in half precision, "none" as they are.
            group_size: consecutive replicas that share batch statistics; None means all.

        Raises:
            ValueError: groups that do not add up to all replicas.
        """
        self._halves = compression == "fp16"
        self.replicas = strategy.num_replicas_in_sync
        self.group_size = group_size or self.replicas
        if self.replicas % self.group_size:
            raise ValueError(
                f"train.sync_batch_norm={group_size} devices a group, but {self.replicas} devices "
                f"cannot be divided so. Choose a divisor of {self.replicas}, or True for all."
            )

    def mean_gradients(self, gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
        """Average gradients over the replicas; see `Communicator.mean_gradients`.

        Scalars among them are never compressed.
        """
        result = list(gradients)
        sent: dict[tf.DType, dict[int, tf.Tensor]] = {}
        # What is ready first travels first, as the gradients of the last layers are.
        for place, gradient in reversed(list(enumerate(gradients))):
            if gradient is None:
                continue
            gradient = tf.convert_to_tensor(gradient)
            if self._halves and gradient.shape.rank:
                gradient = tf.cast(gradient, tf.float16)
            sent.setdefault(gradient.dtype, {})[place] = gradient
        context = tf.distribute.get_replica_context()
        for alike in sent.values():
            averaged = context.all_reduce(tf.distribute.ReduceOp.MEAN, list(alike.values()))
            for place, value in zip(alike, averaged, strict=True):
                result[place] = tf.cast(value, tf.as_dtype(gradients[place].dtype))
        return result

    def mean_of_group(self, tensor: tf.Tensor) -> tf.Tensor:
        """Average a float tensor over the group of this replica; see `Communicator`."""
        context = tf.distribute.get_replica_context()
        if self.group_size == self.replicas:
            return context.all_reduce(tf.distribute.ReduceOp.MEAN, tensor)
        # The sum over all holds a row for each group, in which the others are 0.
        group = tf.convert_to_tensor(context.replica_id_in_sync_group) // self.group_size
        mine = tf.one_hot(group, self.replicas // self.group_size, dtype=tensor.dtype)
        rows = tf.tensordot(mine, tensor, axes=0)
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, rows)
        return tf.gather(total, group) / self.group_size

    def mean_variables(self, variables: Sequence[tf.Variable]) -> None:
        """Give float variables the average of their copies; see `Communicator`."""
        for variable in variables:
            variable.assign(sum(copy.numpy() for copy in copies(variable)) / self.replicas)

    def broadcast(self, variables: Sequence[tf.Variable]) -> None:
        """Give all copies of the variables the value of the first; see `Communicator`."""
        for variable in variables:
            variable.assign(copies(variable)[0].read_value())
