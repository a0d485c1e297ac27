"""Whole lines as they stand in the readmes: a launcher, an interpreter, a program, its options."""

from __future__ import annotations

import os
import re
import shlex
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
# Names of OpenMPI's, which the launch of this library knows too, and what it does without a word.
_OF_MPI = ("mpirun", "mpiexec", "orterun")
_DONE_ANYHOW = ("--allow-run-as-root", "--tag-output", "-tag-output")
_HOST_FILES = ("--hostfile", "-hostfile", "--machinefile", "-machinefile")
_TORCH = "torch.distributed.launch"
_COUNTS = ("-np", "--np", "-n", "--num-proc", "--nproc_per_node", "--nproc-per-node")
_HOSTS = ("-H", "--hosts", "-host", "--host")
# Interpreters of the program.
_PYTHON = re.compile(r"\$?\{?PYTHON\}?|([\w./-]*/)?python[\d.]*|bash|sh")
# Scripts that start a program on several devices: CONFIG N, or CONFIG CHECKPOINT N.
_STARTERS = {"dist_train.sh": ("tools/train.py", 1), "dist_test.sh": ("tools/test.py", 2)}


class Launched(NamedTuple):
    """What stands before a program: processes, hosts, variables, notes, and words for mpirun.

    The last is None where another launcher, or none, starts the processes.
    """

    processes: int | None = None
    hosts: str | None = None
    environment: dict[str, str] = {}
    notes: list[str] = []
    for_mpirun: list[str] | None = None


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
    launched = _launched(before)
    plan = program.translate(Given(name, program.options, after))
    plan.notes = launched.notes + plan.notes
    plan.environment = launched.environment | plan.environment
    plan.processes = launched.processes or plan.processes
    if plan.processes > 1:
        plan.command = _in_several(plan, launched)
    return plan


def _in_several(plan: Plan, launched: Launched) -> list[str]:
    """Return the command that starts a plan's command in several processes."""
    command = [word for word in plan.command if word != "--use_horovod"]
    first = ["launch", f"--num_processes={plan.processes}"]
    first += [f"--hosts={launched.hosts}"] if launched.hosts else []
    if launched.for_mpirun is not None:
        first.append("--engine=mpi")
        if launched.for_mpirun:
            first.append(f"--launcher_args={shlex.join(launched.for_mpirun)}")
        # Horovod joins them, as in the originals: TensorFlow alone knows GPUs and CPUs only.
        command.append("--use_horovod")
    return [*first, "--", *command]


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


def _launched(words: list[str]) -> Launched:
    """Read what stands before the program."""
    environment = {}
    while words and re.match(r"\w+=", words[0]):
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    words = [word for word in words if not _PYTHON.fullmatch(word)]
    if words[:1] == ["-m"] and words[1:2] == [_TORCH]:
        words = words[1:]
    if not words:
        return Launched(environment=environment)
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
        elif launcher in _OF_MPI and name in _HOST_FILES:
            raise flags.Error(
                f"{launcher} {name}: name the machines and their processes in the line instead, "
                "such as -H first:8,second:8."
            )
        else:
            left.append(f"{name}{equals}{value}")
    if launcher in _OF_MPI:
        kept = [word for word in left if word not in _DONE_ANYHOW]
        return Launched(processes, hosts, environment, [], kept)
    notes = [f"of {launcher}, changes nothing here: {' '.join(left)}"] if left else []
    return Launched(processes, hosts, environment, notes)


def _count(launcher: str, name: str, text: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise flags.Error(f"{launcher} {name} {text}: expected a number of processes.")
    return int(text)
