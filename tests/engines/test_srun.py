"""What docs/distributed.md promises of processes that Slurm's srun starts."""

import contextlib
import json
import os
import shutil
import socket

import pytest

from ssd_centernet.runtime import slurm
from ssd_centernet.runtime.cluster import VARIABLE, launched_rank, started_by_srun
from ssd_centernet.runtime.engine import start_engine
from tests import process
from tests.distributed.conftest import WORKERS as SHARED
from tests.engines.conftest import cli, environment
from tests.engines.test_workers import endless, trained_steps
from tests.process import CLI, Running, run, slowness

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "scancel", "sinfo", "squeue")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Slurm of this machine alone; the variable by which its commands find it."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(
            f"Slurm runs as root, and needs {' '.join(missing) or 'nothing more'} "
            "(Debian: apt-get install slurmctld slurmd slurm-client munge)"
        )
    folder, host = tmp_path_factory.mktemp("slurm"), socket.gethostname().partition(".")[0]
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(2)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in taken]
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key, conf = folder / "key", folder / "slurm.conf"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    conf.write_text(
        f"""ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs={os.cpu_count()}
PartitionName=all Nodes=ALL Default=YES
"""
    )
    env = environment(SLURM_CONF=conf)
    names = ("socket=munge", "key-file=key", "pid-file=munge.pid", "log-file=munge.log")
    options = [f"--{name.replace('=', f'={folder}/')}" for name in (*names, "seed-file=seed")]
    idle = ("sinfo", "--noheader", "--format=%T")
    with Running("munged", "--foreground", "--force", *options, env=env) as munged:
        munged.wait_until((folder / "munge").exists)
        with Running("slurmctld", "-D", "-f", conf, env=env) as controller:
            # A slurmd that finds nobody waits long before it asks again.
            controller.wait_until(lambda: run(*idle, env=env, status=None).status == 0)
            with Running("slurmd", "-D", "-f", conf, env=env) as slurmd:
                slurmd.wait_until(lambda: run(*idle, env=env).stdout.strip() == "idle")
                yield {"SLURM_CONF": conf}


def srun(*more):
    return ("srun", "--ntasks=2", "--overcommit", *more)


def test_what_srun_starts_is_joined(cluster, warm):
    ended = run(*srun(warm), SHARED / "collectives.py", "fp16", 0, env=environment(**cluster))
    for rank in range(2):
        assert f"rank {rank} of 2 is content" in ended.stdout, str(ended)


def test_a_run_saves_when_its_job_is_cancelled(cluster, data_dir, tmp_path):
    command, model_dir = endless(tmp_path, data_dir), tmp_path / "run"
    command = (*CLI, *command[command.index("train") :])
    with Running(*srun("--label"), *command, env=environment(**cluster)) as job:
        job.wait_until(lambda: len(trained_steps(model_dir)) > 2)
        number = run("squeue", "--noheader", "--format=%i", env=environment(**cluster)).stdout
        run("scancel", number.strip(), env=environment(**cluster))
        ended = job.finish(limit=60 * slowness())
    assert "0: SIGTERM: saved" in ended.stdout, str(ended)
    assert len(list(model_dir.glob("ckpt-*.index"))) == 1
    assert "\n1: " not in ended.stdout  # Process 0 alone prints.


def tell(monkeypatch, **told):
    for name in [name for name in os.environ if name.startswith(("SLURM", "OMPI", VARIABLE))]:
        monkeypatch.delenv(name)
    # Set and taken away again after the test.
    monkeypatch.setenv(VARIABLE, "")
    step = {"STEP_NUM_TASKS": 3, "PROCID": 2, "LOCALID": 0, "STEP_NODELIST": "n[09-10]"}
    step |= {"STEP_TASKS_PER_NODE": "2,1", "JOB_ID": 7, "STEP_ID": 1, **told}
    for name, value in step.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SLURMD_NODENAME", "n10")


def test_addresses_on_several_machines(monkeypatch):
    tell(monkeypatch)
    assert started_by_srun() == (2, 3) and launched_rank() == 2
    slurm.join_for_tensorflow()
    told = json.loads(os.environ[VARIABLE])
    port = 15000 + 29 * 64
    assert told["cluster"]["worker"] == [f"n09:{port}", f"n09:{port + 1}", f"n10:{port}"]
    assert told["task"] == {"type": "worker", "index": 2}
    # What a user has set stays.
    monkeypatch.setenv("SLURM_PROCID", "1")
    slurm.join_for_tensorflow()
    assert json.loads(os.environ[VARIABLE]) == told


@pytest.mark.parametrize(
    ("nodes", "counts", "expected"),
    [
        ("a", "2", "a a"),
        ("n[1-3,7],m5", "1(x4),2", "n1 n2 n3 n7 m5 m5"),
        ("r[1-2]n[08-10]", "1(x6)", "r1n08 r1n09 r1n10 r2n08 r2n09 r2n10"),
    ],
)
def test_names_of_machines(nodes, counts, expected):
    assert slurm.hosts_of_ranks(nodes, counts) == expected.split()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"PROCID": 1}, "Add --distribution=block to srun"),
        ({"LOCALID": 1}, "Add --distribution=block to srun"),
        ({"STEP_TASKS_PER_NODE": "2(x2)"}, "Add --distribution=block to srun"),
        ({"STEP_TASKS_PER_NODE": "3"}, "are 2 machines, and .* is of 1"),
        ({"STEP_TASKS_PER_NODE": "2;1"}, "is '2;1'; expected such as"),
        ({"STEP_NODELIST": "n[9:10]"}, r"has 'n\[9:10\]'; expected such as"),
        ({"JOB_ID": ""}, "SLURM_JOB_ID is not set"),
    ],
)
def test_what_cannot_be_read_or_lies_otherwise_is_told(monkeypatch, told, said):
    tell(monkeypatch, **told)
    with pytest.raises(ValueError, match=said):
        slurm.join_for_tensorflow()


@pytest.mark.parametrize(
    "told",
    [
        {"STEP_NUM_TASKS": 1},
        # Of a batch script, which may start one process by itself.
        {"STEP_NUM_TASKS": ""},
    ],
)
def test_one_process_is_alone(monkeypatch, told):
    tell(monkeypatch, **told)
    slurm.join_for_tensorflow()
    assert started_by_srun() is None and not os.environ[VARIABLE]


def test_those_of_mpirun_are_its_own(monkeypatch):
    tell(monkeypatch)
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    assert started_by_srun() is None


def test_processes_that_would_train_alone_are_refused(monkeypatch, data_dir, tmp_path, warm):
    process.need_horovod()
    flags = ["--gin_file=ssd_demo", f"--data_dir={data_dir}", f"--model_dir={tmp_path / 'run'}"]
    flags += ["--device=cpu", "--use_horovod"]
    several = {"SLURM_STEP_NUM_TASKS": 2, "SLURM_PROCID": 0}
    ended = cli("train", *flags, python=warm, status=1, **several)
    assert "this Horovod does not find the others" in ended.stderr, str(ended)
    assert not (tmp_path / "run").exists()
    tell(monkeypatch)
    with pytest.raises(ValueError, match="srun started 3 processes, which would each train"):
        start_engine("one", device="cpu")
