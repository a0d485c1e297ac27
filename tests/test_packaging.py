"""What gets installed."""

import json
import re
import shutil
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.process import ROOT, environment, python, run


def copy_sources(place, *folders):
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, place)
    for name in ("ssd_centernet", "gin_configs", *folders):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """Build the source distribution from a copy of the sources, offline."""
    pytest.importorskip("setuptools")
    source = tmp_path_factory.mktemp("source")
    copy_sources(source, "constraints", "docs", "tests")
    code = "from setuptools import build_meta; print(build_meta.build_sdist('.'))"
    python(code, cwd=source, env=environment(PYTHONPATH=None))
    return next(source.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """Build the wheel from the source distribution, so that nothing of the checkout is at hand."""
    pytest.importorskip("wheel")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(out), str(sdist)]
    run(*command, env=environment(PYTHONPATH=None))
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Install the wheel into an environment that borrows every other package of this one."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", place)
    own = sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)})
    # Before anything is borrowed and without the checkout on the path: pip would take an
    # installation of the same version there for this one.
    command = [sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install"]
    command += ["--quiet", "--no-deps", "--no-index", wheel]
    run(*command, env=environment(PYTHONPATH=None))
    # A path file adds the folder behind this environment's own, and no path files of that folder:
    # an editable installation there is not seen.
    (Path(own) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    return place / "bin"


def test_wheel_has_every_module_and_recipe(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "ssd_centernet").rglob("*.py")}
    recipes = {
        f"ssd_centernet/{p.relative_to(ROOT).as_posix()}"
        for p in (ROOT / "gin_configs").rglob("*.gin")
    }
    # Styles and scripts of pages and charts, and what is compiled.
    modules |= {
        path.relative_to(ROOT).as_posix()
        for kind in ("cc", "css", "h", "html", "js", "mplstyle")
        for path in (ROOT / "ssd_centernet").rglob(f"*.{kind}")
    }
    assert {"ssd_centernet/drawing/page.css", "ssd_centernet/native/ops.cc"} < modules
    assert not [name for name in names if name.endswith(".so")]
    assert modules <= names, sorted(modules - names)
    assert recipes <= names, sorted(recipes - names)
    assert recipes, "there is no recipe to install"
    assert not [name for name in names if name.startswith("tests")]


def test_source_distribution_has_what_is_installed_and_no_vectors(sdist):
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    folders = {name.partition("/")[0] for name in names if "/" in name}
    assert folders == {"constraints", "gin_configs", "ssd_centernet", "ssd_centernet.egg-info"}
    assert "ssd_centernet/train.py" in names and "gin_configs/ssd_demo.gin" in names


def test_installed_wheel_makes_data_and_trains_on_it_far_from_the_checkout(installed, tmp_path):
    env = environment(PYTHONPATH=None)
    command, python_there = installed / "ssd_centernet", installed / "python"
    code = "import ssd_centernet, json; from ssd_centernet import config\n"
    code += "print(json.dumps([ssd_centernet.__file__, config.recipes()]))"
    place, recipes = json.loads(run(python_there, "-c", code, cwd=tmp_path, env=env).stdout)
    assert Path(place).is_relative_to(installed.parent)
    assert recipes == sorted(path.stem for path in (ROOT / "gin_configs").glob("*.gin"))

    small = ("--num_train=8", "--num_val=4", "--min_size=64", "--max_size=96")
    run(command, "make_synthetic", "--output_dir=shapes", *small, cwd=tmp_path, env=env)
    demo = ("--gin_file=ssd_demo", "--device=cpu", "--model_dir=run")
    data = ("--annotations=shapes/annotations/instances_train.json", "--image_dir=shapes/train")
    few = ("--num_steps=2", "--batch_size=2")
    run(command, "train", *demo, *data, *few, cwd=tmp_path, env=env)
    assert (tmp_path / "run" / "ckpt-2.index").exists()
    assert "gin_configs" not in (tmp_path / "run" / "config.gin").read_text("utf-8")


def test_wheel_metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    folder = next(n for n in archive.namelist() if n.endswith("METADATA")).rpartition("/")[0]
    metadata = archive.read(f"{folder}/METADATA").decode()
    assert "Requires-Python: >=3.10,<3.14" in metadata.replace("<3.14,>=3.10", ">=3.10,<3.14")
    core = [
        line.split(":")[1].strip()
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist") and "extra" not in line
    ]
    assert not [need for need in core if need.startswith(("tf-models", "pycocotools", "horovod"))]
    for extra in (
        "train",
        "model_garden",
        "weights",
        "test",
        "notebooks",
        "export",
        "all",
    ):
        assert f"Provides-Extra: {extra}" in metadata
    # pip alone cannot build it: scripts/install_horovod.sh.
    assert "Provides-Extra: horovod" not in metadata
    entry_points = archive.read(f"{folder}/entry_points.txt").decode()
    assert "ssd_centernet = ssd_centernet.cli.main:run" in entry_points


@pytest.mark.parametrize("path", sorted((ROOT / "constraints").glob("*.txt")), ids=lambda p: p.name)
def test_constraints_name_one_tensorflow_minor(path):
    minor = {"gaudi1.14": "2.15"}.get(path.stem, path.stem.removeprefix("tf"))
    rows = [r for r in path.read_text(encoding="utf-8").splitlines() if r and r[0] != "#"]
    pins = dict(row.split(";")[0].strip().split("==") for row in rows)
    # Until 2.14 Keras 2 is a part of TensorFlow.
    of_this_minor = ["tensorflow", "tensorboard", *["tf-keras"] * (minor != "2.10")]
    for name in of_this_minor:
        name = {"tensorflow": "tensorflow-cpu"}.get(name, name) if name not in pins else name
        assert pins[name].startswith(f"{minor}."), (name, pins[name])
    for name in ("tf-models-official", "tensorflow-text"):
        assert pins.get(name, minor).startswith(minor), (name, pins[name])


def test_the_bounds_of_tensorflow_are_said_alike_everywhere():
    pattern = r"(?:tensorflow|tf_keras)(?:\[\S+\])?>=2\.1[056],<2\.(\d+)"
    bounds = set(re.findall(pattern, (ROOT / "setup.py").read_text("utf-8")))
    (bound,) = bounds - {"15"}  # Of the Keras that is a part of TensorFlow.
    newest = str(int(bound) - 1)
    paths = [ROOT / "README.md", ROOT / "Dockerfile", *(ROOT / "docs").glob("*.md")]
    paths += [*(ROOT / "scripts").glob("*.*"), *(ROOT / "ssd_centernet").rglob("*.py")]
    said = []
    for path in paths:
        text = path.read_text("utf-8")
        assert set(re.findall(pattern, text)) <= {bound}, path
        said += re.findall(r"2\.10 to 2\.(\d+)", text)
        assert set(said) <= {newest}, path
    assert len(said) > 4
    assert (ROOT / "constraints" / f"tf2.{newest}.txt").exists()


@pytest.mark.parametrize("name", ["setup.sh", "test.sh", "demo.sh"])
def test_scripts_are_valid_shell(name):
    run("bash", "-n", ROOT / "scripts" / name)


def test_setup_refuses_an_unknown_tensorflow():
    result = run("bash", ROOT / "scripts" / "setup.sh", env=environment(TF="1.15"), status=1)
    assert "constraints/tf1.15.txt" in result.stderr
    assert "tf2.20.txt" in result.stderr


def test_setup_refuses_another_python(tmp_path):
    interpreter = tmp_path / "python3"
    interpreter.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1\nexit 1\n')
    interpreter.chmod(0o755)
    for name in ("scripts", "constraints"):
        shutil.copytree(ROOT / name, tmp_path / name)
    setup, env = tmp_path / "scripts" / "setup.sh", environment(PYTHON=interpreter)
    result = run("bash", setup, env=env, status=1)
    assert "Python 3.10 to 3.13 is needed" in result.stderr
    assert "Python 3.9.1" in result.stderr
    assert not (tmp_path / ".venv").exists()
