"""What a worker tells of itself, and what it must share with a training."""

from __future__ import annotations

import dataclasses
import json

import tensorflow as tf

from ssd_centernet import __version__
from ssd_centernet.native import library

# Most bytes of what a worker tells.
MOST_BYTES = 4096


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a worker tells of itself, and what it must share with a training.

    Attributes:
        dispatcher: port of its dispatcher; 0 for a training.
        worker: port of TensorFlow's worker; 0 for a training.
        host: where that listens; '' for a training.
        instance: another text each time that it starts.
        package: version of this library.
        tensorflow: version of TensorFlow, and of its build.
        native: the compiled operations of its input, or None.
    """

    dispatcher: int
    worker: int
    host: str
    instance: str
    package: str
    tensorflow: str
    native: str | None

    def to_line(self) -> bytes:
        """Write it as a line."""
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Facts:
        """Read it from a line.

        Raises:
            ValueError: the line is of something else.
        """
        try:
            values = json.loads(line)
            facts = cls(**values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"it answers {line[:40]!r}") from error
        kinds = {field.name: str for field in dataclasses.fields(cls)} | {
            "dispatcher": int,
            "worker": int,
        }
        for name, kind in kinds.items():
            value = getattr(facts, name)
            if not (type(value) is kind or (name == "native" and value is None)):
                raise ValueError(f"it answers {name} = {value!r}")
            if kind is int and not 0 < value < 2**16:
                raise ValueError(f"it answers {name} = {value!r}, which is no port")
        return facts

    def misfit(self, worker: Facts) -> str | None:
        """Return why a worker would not make the batches of this process; None where it would."""
        for name, what in (("package", "ssd_centernet"), ("tensorflow", "TensorFlow")):
            ours, its = getattr(self, name), getattr(worker, name)
            if ours != its:
                return f"it has {what} {its}, and the training {ours}: install the same one"
        if self.native not in (None, worker.native):
            its = worker.native or "none"
            return (
                f"the training uses the compiled operations {self.native}, and it has {its}: run "
                f"`{library.BUILD_COMMAND}` there, copy the file there, or set "
                "training_batches.native = False"
            )
        return None


def own_facts(*, dispatcher: int = 0, worker: int = 0, host: str = "", instance: str = "") -> Facts:
    """Return what this process is, once it has loaded what it uses.

    Args:
        dispatcher: see `Facts`.
        worker: see `Facts`.
        host: see `Facts`.
        instance: see `Facts`.
    """
    return Facts(
        dispatcher=dispatcher,
        worker=worker,
        host=host,
        instance=instance,
        package=__version__,
        tensorflow=f"{tf.__version__} ({tf.version.GIT_VERSION})",
        native=library.loaded(),
    )
