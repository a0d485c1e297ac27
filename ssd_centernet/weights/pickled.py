"""A reader of pickles that builds plain values and tensors, and never runs anything.

A pickle is a program for a stack machine, and Python's own reader imports and calls what the
program names. Here the operations of that machine work on inert values alone: a name stays a name.
A call of one of the few names that files of weights need gives a value made here; a call of a name
that is known to be harmless gives a placeholder; any other one is an error.
"""

from __future__ import annotations

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

# A checkpoint of a thousand tensors with the state of its optimizer has about 100 000 operations.
_MAX_OPERATIONS = 3_000_000
_MARK = object()


@dataclasses.dataclass(frozen=True)
class Name:
    """A name of Python that stands in a file; nothing is imported for it."""

    module: str
    name: str

    def __str__(self) -> str:
        """Return it with a dot."""
        return f"{self.module}.{self.name}"


@dataclasses.dataclass(frozen=True)
class Skipped:
    """An object that is not built, such as a date in the notes of a checkpoint."""

    what: str


@dataclasses.dataclass(frozen=True)
class Storage:
    """Numbers outside the pickle.

    Attributes:
        kind: such as "FloatStorage".
        key: where they are in the file.
        count: how many.
    """

    kind: str
    key: str
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage, in elements; not checked yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


# What notes beside the weights are made of. Their objects are skipped, not built.
_HARMLESS = (
    "argparse.Namespace",
    "numpy.",
    "datetime.",
    "pathlib.",
    "torch.",
    "mmcv.utils.config.",
    "mmengine.",
    "_codecs.encode",
    "copyreg._reconstructor",
    *(
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in "set frozenset bytearray complex object int float str bool dict list".split()
    ),
)
# These begin like harmless ones, and run code where they are called.
_HARMFUL = ("torch.hub", "torch.jit", "torch.utils", "torch.ops", "numpy.testing", "numpy.f2py")


def _call(what: Any, given: Any) -> Any:
    """Return what a call of a name gives, without calling it."""
    if isinstance(what, Skipped):
        return Skipped(what.what)
    if not isinstance(what, Name) or not isinstance(given, tuple):
        raise ValueError("it calls something that is not a name")
    name = str(what)
    if name in ("collections.OrderedDict", "collections.defaultdict"):
        return {} if name.endswith("defaultdict") or not given else _from_pairs(given[0])
    if name == "torch.Size":
        return given[0] if given else ()
    if name in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
        return _tensor(given)
    if name.startswith("torch._utils._rebuild_parameter"):
        return given[0] if given else Skipped(name)
    _refuse_harmful(what)
    return Skipped(name)


def _refuse_harmful(name: Name) -> None:
    """Raise an error for a name that has no place in a file of weights."""
    full = str(name)
    if full.startswith(_HARMLESS) and not full.startswith(_HARMFUL) and "." not in name.name:
        return
    raise ValueError(
        f"it asks to call {full}, which files of weights do not need; nothing was called. Either "
        "the file is hostile, or it holds a whole pickled model: where it can be trusted, load it "
        "with PyTorch and save its model.state_dict()"
    )


def _from_pairs(pairs: Any) -> dict:
    found: dict = {}
    for pair in pairs if isinstance(pairs, list | tuple) else ():
        if isinstance(pair, list | tuple) and len(pair) == 2:
            _set(found, *pair)
    return found


def _tensor(given: tuple) -> Tensor:
    if len(given) < 4 or not isinstance(given[0], Storage):
        raise ValueError("it has a tensor without numbers")
    storage, offset, shape, strides = given[:4]
    for numbers in ((offset,), shape, strides):
        if not isinstance(numbers, tuple) or any(type(n) is not int for n in numbers):
            raise ValueError("it has a tensor whose shape or place is not made of whole numbers")
    return Tensor(storage, offset, shape, strides)


def _set(target: dict, key: Any, value: Any) -> None:
    # Other keys, tuples of tuples for example, could take for ever to hash.
    if key is None or type(key) in (str, int, float, bool, bytes):
        target[key] = value


def load(file: BinaryIO, storage_of: Callable[[Any], Storage] | None = None) -> Any:
    """Read one pickle; the file then stands behind it.

    Args:
        file: stands where the pickle begins.
        storage_of: makes the storage of a persistent id; without it there may be none.

    Returns:
        Numbers, texts, lists, tuples, dicts, `Tensor`, and `Name` and `Skipped` for the rest.

    Raises:
        ValueError: the pickle is damaged, hostile, or uses what files of weights do not.
    """
    machine = _Machine(storage_of)
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if count > _MAX_OPERATIONS:
            raise ValueError(f"its pickle has more than {_MAX_OPERATIONS} operations")
        if operation.name == "STOP":
            return machine.pop()
        machine.step(operation.name, argument)
    raise ValueError("its pickle has no end")


class _Machine:
    """The stack, the marks and the memo of a pickle."""

    def __init__(self, storage_of: Callable[[Any], Storage] | None):
        self._storage_of = storage_of
        self._stack: list = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do one operation."""
        if name in _VALUES:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"its pickle uses {name}, which files of weights do not")

    def pop(self) -> Any:
        """Take the top of the stack."""
        if not self._stack or self._stack[-1] is _MARK:
            raise ValueError("its pickle takes more than it has")
        return self._stack.pop()

    def _items(self) -> list:
        """Take what is above the last mark, and the mark."""
        for place in range(len(self._stack) - 1, -1, -1):
            if self._stack[place] is _MARK:
                items = self._stack[place + 1 :]
                del self._stack[place:]
                return items
        raise ValueError("its pickle has no mark where one is needed")

    def _pushed(self, value: Any) -> None:
        self._stack.append(value)

    def _top(self) -> Any:
        value = self.pop()
        self._stack.append(value)
        return value

    def _extend(self, items: list) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Skipped | set):
            raise ValueError("its pickle appends to what is not a list")

    def _fill(self, items: list) -> None:
        target = self._top()
        if isinstance(target, Skipped):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("its pickle sets items of what is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set(target, key, value)

    def _tuple(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    def _remember(self, place: Any) -> None:
        self._memo[len(self._memo) if place is None else int(place)] = self._top()

    def _recall(self, place: Any) -> None:
        if int(place) not in self._memo:
            raise ValueError(f"its pickle recalls {place}, which it never stored")
        self._stack.append(self._memo[int(place)])

    def _name(self, text: str) -> None:
        module, _, name = text.partition(" ")
        self._stack.append(Name(module, name))

    def _stack_name(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("its pickle names something by what is not a text")
        self._stack.append(Name(module, name))

    def _reduce(self, _: Any) -> None:
        given, what = self.pop(), self.pop()
        self._stack.append(_call(what, given))

    def _new(self, count: int) -> None:
        parts = [self.pop() for _ in range(count)]
        self._stack.append(_call(parts[-1], ()))

    def _build(self, _: Any) -> None:
        # Attributes such as `_metadata` of an OrderedDict say nothing of the weights.
        self.pop()
        if not isinstance(self._top(), dict | Skipped | Tensor):
            raise ValueError("its pickle sets attributes of a plain value")

    def _persistent(self, _: Any) -> None:
        if self._storage_of is None:
            raise ValueError("its pickle refers to what is not in it")
        self._stack.append(self._storage_of(self.pop()))

    def _drop_dict(self, _: Any) -> None:
        items = self._items()
        self._stack.append({})
        self._fill(items)


_VALUES = set(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 "
    "BYTEARRAY8".split()
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Skipped("set"),
    "MARK": lambda: _MARK,
}
_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "POP": lambda m, _: m._stack and m._stack.pop(),
    "POP_MARK": lambda m, _: m._items(),
    "DUP": lambda m, _: m._pushed(m._top()),
    "APPEND": lambda m, _: m._extend([m.pop()]),
    "APPENDS": lambda m, _: m._extend(m._items()),
    "ADDITEMS": lambda m, _: m._extend(m._items()),
    "LIST": lambda m, _: m._pushed(m._items()),
    "TUPLE": lambda m, _: m._pushed(tuple(m._items())),
    "TUPLE1": lambda m, _: m._tuple(1),
    "TUPLE2": lambda m, _: m._tuple(2),
    "TUPLE3": lambda m, _: m._tuple(3),
    "DICT": _Machine._drop_dict,
    "SETITEM": lambda m, _: m._fill([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m._fill(m._items()),
    "FROZENSET": lambda m, _: (m._items(), m._pushed(Skipped("frozenset"))),
    "PUT": _Machine._remember,
    "BINPUT": _Machine._remember,
    "LONG_BINPUT": _Machine._remember,
    "MEMOIZE": _Machine._remember,
    "GET": _Machine._recall,
    "BINGET": _Machine._recall,
    "LONG_BINGET": _Machine._recall,
    "GLOBAL": _Machine._name,
    "STACK_GLOBAL": _Machine._stack_name,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": lambda m, _: m._new(2),
    "NEWOBJ_EX": lambda m, _: m._new(3),
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
}
