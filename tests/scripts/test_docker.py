"""The Dockerfile's steps run outside of docker; run_docker.sh asks docker for the right things."""

import fnmatch
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from tests.process import ROOT, bash, environment, run

INSIDE = "/ssd_centernet"
KNOWN = {"ARG", "FROM", "SHELL", "ENV", "WORKDIR", "COPY", "RUN", "USER", "CMD"}


def instructions():
    """(word, text) of the Dockerfile's instructions, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(" ", 1)) for line in joined.splitlines() if line.strip()]


def ignored(path):
    """Whether .dockerignore keeps a path (relative to the root) out of the image."""
    rows = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    for row in (row for row in rows if row and not row.startswith("#")):
        parts = [path, *path.parents]
        if row.startswith("**/"):
            if any(fnmatch.fnmatch(part.name, row[3:]) for part in parts):
                return True
        elif any(fnmatch.fnmatchcase(part.as_posix(), row) for part in parts):
            return True
    return False


def copy(words, place):
    """What COPY does; sources are files and folders of the repository."""
    *sources, target = words
    for source in sources:
        source = (ROOT / source).resolve()
        into = place / target if source == ROOT or source.is_dir() else place / target / source.name
        files = [source] if source.is_file() else [p for p in source.rglob("*") if p.is_file()]
        for file in files:
            if not ignored(file.relative_to(ROOT)):
                to = into if source.is_file() else into / file.relative_to(source)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, to)


def settings(text, values):
    """The NAME=value pairs of ENV or ARG with ${NAME} replaced."""
    pairs = [word.partition("=")[::2] for word in shlex.split(text)]
    return {k: re.sub(r"\$\{(\w+)\}", lambda m: values.get(m[1], ""), v) for k, v in pairs}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A folder where the steps have run, with this test's TensorFlow in the role of a vendor's."""
    place = tmp_path_factory.mktemp("image")
    home = tmp_path_factory.mktemp("home")
    arguments = {"TENSORFLOW": "installed", "PYTHON": sys.executable}
    values = {"PATH": "/usr/bin:/bin", "HOME": str(home), "PIP_NO_INDEX": "1"}
    printed = ""
    for word, text in instructions():
        if word == "ARG":
            values |= {k: arguments.get(k, v) for k, v in settings(text, values).items()}
        elif word == "ENV":
            values |= {k: v.replace(INSIDE, str(place)) for k, v in settings(text, values).items()}
        elif word == "COPY":
            copy(text.split(), place)
        elif word == "RUN":
            printed += bash(text, cwd=place, env=values).stdout
    return place, values, printed


def test_instructions_are_those_that_this_test_knows():
    words = [word for word, _ in instructions()]
    assert set(words) <= KNOWN and words[0] == "ARG" and words[1] == "FROM"
    assert ("SHELL", '["/bin/bash", "-euo", "pipefail", "-c"]') in instructions()
    assert ("WORKDIR", INSIDE) in instructions()


@pytest.mark.slow
def test_the_steps_install_around_the_tensorflow_that_is_there(image):
    place, values, printed = image
    assert "setup: installing into .venv around TensorFlow 2." in printed
    assert re.search(r"ssd_centernet \d+\.\d+", printed)
    code = "import ssd_centernet, importlib.util as u; print(u.find_spec('tensorflow').origin)"
    code += "; print(ssd_centernet.__file__)"
    ended = bash(f"python -c {shlex.quote(code)}", cwd=place / "runs", env=values)
    tensorflow, package = ended.stdout.split()
    assert not tensorflow.startswith(str(place)), "TensorFlow was installed again"
    assert package == str(place / "ssd_centernet/__init__.py")


@pytest.mark.slow
def test_a_script_in_the_image_finds_the_installation_complete(image):
    """Also without the build's arguments, as in a shell of the container's user."""
    place, values, _ = image
    left = {k: v for k, v in values.items() if k not in ("TENSORFLOW", "PYTHON")}
    assert run("bash", "scripts/setup.sh", cwd=place, env=left).stdout == ""


@pytest.mark.slow
def test_the_image_holds_sources_and_no_history_data_or_runs(image):
    place, _, _ = image
    assert (place / "scripts/demo.sh").is_file()
    assert (place / "tests/scripts/test_docker.py").is_file()
    assert (place / "ssd_centernet/data/readers/coco.py").is_file(), ".dockerignore is too greedy"
    assert not (place / ".git").exists()
    assert list((place / "runs").iterdir()) == list((place / "data").iterdir()) == []


def test_packages_of_the_distribution_exist():
    """Asked of apt without installing anything."""
    (step,) = [text for word, text in instructions() if word == "RUN" and "apt-get install" in text]
    (options,) = re.findall(r"apt-get install ([^;&]*)", step)
    if shutil.which("apt-get") is None or not any(Path("/var/lib/apt/lists").glob("*Packages*")):
        pytest.skip("there is no apt with lists of packages")
    run("apt-get", "--simulate", "install", *options.split())


def dry_run(*words, cwd=ROOT, status=0, **variables):
    """How run_docker.sh ends with DRY_RUN=1."""
    left = ("IMAGE", "DEVICE", "DEVICES", "DATA_DIR", "RUNS_DIR", "AS_ROOT", "DOCKER_ARGS", "DEV")
    env = environment(**{**dict.fromkeys(left), "DRY_RUN": 1, **variables})
    return run("bash", ROOT / "scripts/run_docker.sh", *words, cwd=cwd, env=env, status=status)


DEVICE_OPTIONS = {
    ("gpu", "all"): "--gpus all --ipc=host --ulimit memlock=-1",
    ("gpu", "0,2"): "--gpus '\"device=0,2\"' --ipc=host --ulimit memlock=-1",
    ("hpu", "all"): "--runtime=habana -e HABANA_VISIBLE_DEVICES=all "
    "-e OMPI_MCA_btl_vader_single_copy_mechanism=none --cap-add=sys_nice --ipc=host --net=host",
    ("mlu", "all"): "--device DEV/cambricon_dev0 --device DEV/cambricon_dev1 "
    "--device DEV/cambricon_ctl --device DEV/cambricon_ipcm0 --ipc=host",
    ("npu", "1"): "--device DEV/davinci1 --device DEV/davinci_manager --device DEV/devmm_svm "
    "--device DEV/hisi_hdc --ipc=host",
    ("cpu", "all"): "",
}


@pytest.mark.parametrize(("device", "numbers"), DEVICE_OPTIONS, ids="-".join)
def test_the_container_is_given_the_device(device, numbers, tmp_path):
    for name in ("cambricon_dev0", "cambricon_dev1", "cambricon_ctl", "cambricon_ipcm0"):
        (tmp_path / name).touch()
    for name in ("davinci0", "davinci1", "davinci_manager", "devmm_svm", "hisi_hdc"):
        (tmp_path / name).touch()
    ended = dry_run("ssd_centernet", "doctor", DEVICE=device, DEVICES=numbers, DEV=str(tmp_path))
    words = shlex.split(ended.stdout)
    user = ["--user", f"{os.getuid()}:{os.getgid()}", "-e", "HOME=/tmp"]
    mounts = ["-v", f"{ROOT}/data:{INSIDE}/data", "-v", f"{ROOT}/runs:{INSIDE}/runs"]
    options = shlex.split(DEVICE_OPTIONS[device, numbers].replace("DEV/", f"{tmp_path}/"))
    before = ["docker", "run", "--rm", "--init"]
    command = ["ssd_centernet", "ssd_centernet", "doctor"]
    assert words == [*before, *options, *user, *mounts, *command]


def test_folders_image_user_and_more_arguments_can_be_chosen(tmp_path):
    ended = dry_run(
        cwd=tmp_path,
        DATA_DIR="/datasets/records",
        RUNS_DIR="my runs",
        IMAGE="ssd_centernet:gaudi",
        AS_ROOT="1",
        DOCKER_ARGS="-v /datasets/coco:/ssd_centernet/coco:ro --name x",
    )
    words = shlex.split(ended.stdout)
    assert f"/datasets/records:{INSIDE}/data" in words
    assert f"{tmp_path}/my runs:{INSIDE}/runs" in words
    assert words[-5:] == [f"/datasets/coco:{INSIDE}/coco:ro", "--name", "x", *words[-2:]]
    assert words[-2:] == ["ssd_centernet:gaudi", "bash"]
    assert "--user" not in words
    assert not (tmp_path / "my runs").exists()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"DEVICE": "tpu"}, "DEVICE=tpu: expected cpu, gpu, hpu, mlu or npu."),
        ({"DEVICE": "gpu", "DEVICES": "first"}, "DEVICES=first: expected numbers such as 0,1"),
        ({"DEVICE": "npu"}, "there is no NOWHERE/davinci0 on this machine. Is its driver"),
        ({"DEVICE": "mlu", "DEVICES": "3"}, "there is no NOWHERE/cambricon_dev3 on this machine."),
    ],
)
def test_what_cannot_be_given_is_refused(variables, said, tmp_path):
    ended = dry_run(**variables, DEV=tmp_path, status=2)
    assert ended.stdout == ""
    assert said.replace("NOWHERE", str(tmp_path)) in ended.stderr
