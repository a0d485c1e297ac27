"""Run a command in several processes that train one model, one process per device.

Examples:
  ssd_centernet launch --num_processes=8 -- train --gin_file=ssd300_resnet34 \\
      --data_dir=data/coco --model_dir=runs/ssd300
  ssd_centernet launch --engine=tf --num_processes=8 -- train ...
  ssd_centernet launch --engine=mpi --num_processes=8 \\
      --launcher_args='--map-by socket:PE=6 --bind-to core' -- train ...
  ssd_centernet launch --num_processes=16 --hosts=a:8,b:8 -- train ...

After `--` comes a command of ssd_centernet. Horovod joins the processes: horovodrun starts them,
and --use_horovod is added to the command. Or TensorFlow itself does (--engine=tf), without Horovod;
on several machines the same line is then given on each of them. OpenMPI's mpirun can start the
processes too (--engine=mpi); TensorFlow joins them, or Horovod by --use_horovod.

If a process is killed, all begin again from the last checkpoint. An error of the program itself
ends the run at once, with that error. Ctrl-C and SIGTERM save a checkpoint.
"""

from __future__ import annotations

import shlex
import sys

from absl import flags

from ssd_centernet.runtime.launch_plans import ENGINES

_IN_SEVERAL = ("train", "evaluate", "benchmark")


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_integer("num_processes", None, "Processes on all machines.", lower_bound=1)
    flags.DEFINE_enum(
        "engine",
        "horovod",
        ENGINES,
        "What starts and joins the processes: horovodrun and Horovod; tf, this command and "
        "TensorFlow; mpi, OpenMPI's mpirun, and TensorFlow, or Horovod by --use_horovod.",
    )
    flags.DEFINE_string(
        "hosts", None, "Machines and their processes, such as a:8,b:8 (default: this machine)."
    )
    flags.DEFINE_integer(
        "port",
        29500,
        "With --engine=tf and --hosts: port of the first process of each machine; the next ones "
        "take those above it.",
        lower_bound=1,
        upper_bound=65535,
    )
    flags.DEFINE_integer(
        "max_restarts", 3, "How often a run may begin again after it lost a process.", lower_bound=0
    )
    flags.DEFINE_string(
        "launcher_args",
        "",
        "More arguments for horovodrun or mpirun, such as '--map-by socket:PE=6 --bind-to core'.",
    )


def main(argv: list[str]) -> int:
    """Run the command."""
    from ssd_centernet.cli import _flags
    from ssd_centernet.runtime.cluster import started_by_mpirun
    from ssd_centernet.runtime.launcher import launch

    _flags.require("num_processes")
    if started_by_mpirun() is not None:  # An mpirun within another one ends without a word.
        raise flags.Error(
            "mpirun started this process, and `ssd_centernet launch` starts processes itself. Give "
            "mpirun the command that stands after `--`, or leave mpirun out and set --engine=mpi."
        )
    values, command = flags.FLAGS, argv[1:]
    if not command or command[0] not in _IN_SEVERAL:
        raise flags.Error(
            f"after `--` comes {command[0] if command else 'nothing'!r}; expected one of "
            f"{', '.join(_IN_SEVERAL)} and its flags, such as: ssd_centernet launch "
            "--num_processes=2 -- train --gin_file=ssd300_resnet34 ..."
        )
    if values.launcher_args and values.engine == "tf":
        raise flags.Error(
            "--launcher_args are for horovodrun or mpirun, and --engine=tf starts neither."
        )
    given = {argument.lstrip("-").partition("=")[0] for argument in command}
    if values.engine == "horovod" and "use_horovod" not in given:
        command = [*command, "--use_horovod"]
    return launch(
        [sys.executable, "-m", "ssd_centernet", *command],
        num_processes=values.num_processes,
        engine=values.engine,
        hosts=values.hosts,
        port=values.port,
        max_restarts=values.max_restarts,
        launcher_args=shlex.split(values.launcher_args),
        say=lambda text: print(f"launch: {text}", file=sys.stderr, flush=True),
    )
