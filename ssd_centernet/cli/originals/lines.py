"""Whole lines as they stand in the readmes: a launcher, an interpreter, a program, its options."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from absl import flags

from ssd_centernet.cli.originals import cambricon, fps, gaudi, mmdetection, program_help
from ssd_centernet.cli.originals.options import Given, Option
from ssd_centernet.cli.originals.plan import Plan


class Program(NamedTuple):
    """A program of an original: of which system, its options, and how they are taken over."""

    system: str
    options: tuple[Option, ...]
    translate: Callable[[Given], Plan]


_CENTERNET = Program(
    "CenterNet ResNet-101-FPN (MLU)", cambricon.CENTERNET_OPTIONS, cambricon.translate_centernet
)
_TRAIN = Program("SSD VGG-16 (NPU)", mmdetection.TRAIN_OPTIONS, mmdetection.translate_train)
_TEST = Program("SSD VGG-16 (NPU)", mmdetection.TEST_OPTIONS, mmdetection.translate_test)
PROGRAMS = {
    "ssd.py": Program("SSD ResNet-34 (Gaudi)", gaudi.OPTIONS, gaudi.translate),
    "model_main.py": Program(
        "SSD320 ResNet-50-FPN (GPU, MLU)", cambricon.SSD_OPTIONS, cambricon.translate_ssd
    ),
    # The readme's names of the second, and that of the code.
    "model_main_tf2.py": _CENTERNET,
    "centernet_train.py": _CENTERNET,
    "centernet.py": _CENTERNET,
    "tools/train.py": _TRAIN,
    "tools/test.py": _TEST,
    "calc_fps.py": Program("SSD VGG-16 (NPU)", (), fps.translate),
}
_LAUNCHERS = ("horovodrun", "mpirun", "mpiexec", "orterun", "torchrun")
_TORCH = "torch.distributed.launch"
_COUNTS = ("-np", "--np", "-n", "--num-proc", "--nproc_per_node", "--nproc-per-node")
_HOSTS = ("-H", "--hosts", "-host", "--host")
# Interpreters of the program.
_PYTHON = re.compile(r"\$?\{?PYTHON\}?|([\w./-]*/)?python[\d.]*|bash|sh")
# Scripts that start a program on several devices: CONFIG N, or CONFIG CHECKPOINT N.
_STARTERS = {"dist_train.sh": ("tools/train.py", 1), "dist_test.sh": ("tools/test.py", 2)}


def translate_line(words: Sequence[str]) -> Plan:
    """Turn a line into a command of this library.

    Args:
        words: of the line: [VARIABLE=VALUE ...] [launcher ...] [python] PROGRAM OPTIONS...

    Returns:
        The command, the processes it runs in, and what the user should know; of a line that asks
        for help, the options of the program.

    Raises:
        flags.Error: no known program in the line, or an option that cannot be taken over.
    """
    before, name, after = _split(list(words))
    program = PROGRAMS[name]
    if program_help.ASKED.intersection(after):
        return Plan([], answer=program_help.describe(name, *program[:2]))
    processes, hosts, environment, notes = _launched(before)
    plan = program.translate(Given(name, program.options, after))
    plan.notes = notes + plan.notes
    plan.environment = environment | plan.environment
    plan.processes = processes or plan.processes
    if plan.processes > 1:
        told = [f"--hosts={hosts}"] if hosts else []
        plan.command = [word for word in plan.command if word != "--use_horovod"]
        plan.command = ["launch", f"--num_processes={plan.processes}", *told, "--", *plan.command]
    return plan


def _split(words: list[str]) -> tuple[list[str], str, list[str]]:
    """Find the program: what stands before it, its name, and its options."""
    for number, word in enumerate(words):
        base = os.path.basename(word)
        if base in _STARTERS:
            name, count = _STARTERS[base]
            own = words[number + 1 :]
            if len(own) <= count or not own[count].isdigit():
                raise flags.Error(f"{base} needs {count} words and the number of devices.")
            starts = [*words[:number], "torchrun", f"--nproc_per_node={own[count]}"]
            return starts, name, [*own[:count], "--launcher=pytorch", *own[count + 1 :]]
        for name in (f"tools/{base}", base):
            if name in PROGRAMS:
                return words[:number], name, words[number + 1 :]
    if not words:
        raise flags.Error(
            "give a line of a published system after `--`, such as: ssd_centernet compat -- ssd.py "
            f"-e 64 -b 128. Its programs: {', '.join([*PROGRAMS, *_STARTERS])}. What is done with "
            "one: ssd_centernet compat -- ssd.py --help"
        )
    raise flags.Error(
        f"{' '.join(words[:8])}: none of the programs that are known: "
        f"{', '.join([*PROGRAMS, *_STARTERS])}."
    )


def _launched(words: list[str]) -> tuple[int | None, str | None, dict[str, str], list[str]]:
    """Read what stands before the program: processes, hosts, variables, and what is left out."""
    environment = {}
    while words and re.match(r"\w+=", words[0]):
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    words = [word for word in words if not _PYTHON.fullmatch(word)]
    if words[:1] == ["-m"] and words[1:2] == [_TORCH]:
        words = words[1:]
    if not words:
        return None, None, environment, []
    launcher, rest = os.path.basename(words[0]), words[1:]
    if launcher not in (*_LAUNCHERS, _TORCH):
        raise flags.Error(
            f"{words[0]} in front of the program is no launcher that is known: expected one of "
            f"{', '.join(_LAUNCHERS)}, or python -m {_TORCH}."
        )
    processes, hosts, left = None, None, []
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name in _COUNTS or name in _HOSTS or name.replace("-", "_") == "__nnodes":
            value = value if equals else rest.pop(0) if rest else ""
        if name in _COUNTS:
            processes = _count(launcher, name, value)
        elif name in _HOSTS:
            hosts = value
        elif name.replace("-", "_") == "__nnodes" and value != "1":
            raise flags.Error(
                f"{launcher} --nnodes={value}: Horovod starts the processes of all machines from "
                "the first one. Give `horovodrun -np N -H first:8,second:8 PROGRAM ...` there."
            )
        else:
            left.append(f"{name}{equals}{value}")
    notes = [f"of {launcher}, changes nothing here: {' '.join(left)}"] if left else []
    return processes, hosts, environment, notes


def _count(launcher: str, name: str, text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise flags.Error(f"{launcher} {name} {text}: expected a number of processes.")
    return int(text)
