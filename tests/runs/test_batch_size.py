"""The largest batch that fits: what is chosen from trials, what a machine has left, and a run."""

import dataclasses
import json

import pytest

from ssd_centernet.memory import available_memory, used_memory
from ssd_centernet.runs import batch_size
from ssd_centernet.runs.batch_size import Trial, choose, find_batch_size, size_of_run
from ssd_centernet.runtime.distribution import SingleProcess
from tests.process import cli
from tests.tiny import RUN_RECIPE

MIB = 1 << 20


def trials(of_process, of_image, sizes=(2, 8), least=MIB, limit=None):
    common = {"least": least, "limit": limit, "images": 1000, "device": "CPU:0"}
    peaks = [(of_process + of_image * size) * MIB for size in sizes]
    return [Trial(batch_size=n, peak=p, **common) for n, p in zip(sizes, peaks, strict=True)]


@pytest.mark.parametrize(
    ("taken", "limit", "images", "size", "told"),
    [
        # 0.8 * 2000 - 600 = 1000 MiB.
        ((600, 10), 2000, 1000, 96, "600.0 MiB and 10.0 MiB for each image"),
        ((600, 100), 2000, 1000, 10, "80% of 1.95 GiB on CPU:0 hold 10"),
        ((600, 10), 2000, 37, 32, "more than the 37 images of an epoch"),
        ((600, 10), 2000, 12, 12, "more than the 12 images of an epoch"),
        # Noise: an image never takes less than itself.
        ((600, -5), 2000, 1000, 1000, "1.0 MiB for each image"),
    ],
)
def test_what_is_left_is_shared_among_images(taken, limit, images, size, told):
    found, why = choose(trials(*taken), limit * MIB, images=images)
    assert found == size and told in why
    assert why.startswith(f"--batch_size=auto takes {size}: ")


def test_where_not_even_one_image_fits():
    with pytest.raises(
        ValueError, match="--batch_size=auto: not even one image fits: .* IMAGE_SIZ"
    ):
        choose(trials(600, 100), 700 * MIB, images=9)


def write_system(root, *, free=8000, files=()):
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {free * 1024} kB\n")
    for name, text in files:
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return str(root)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ((), 8000),
        ((("memory.max", "max"), ("memory.current", 5), ("memory.stat", "anon 1")), 8000),
        (
            # Of a cache that nobody has used for long, all can be given up.
            (
                ("memory.max", 3000 * MIB),
                ("memory.current", 1000 * MIB),
                ("memory.stat", f"anon 1\ninactive_file {500 * MIB}"),
            ),
            2500,
        ),
        (
            (
                ("memory/memory.limit_in_bytes", 700 * MIB),
                ("memory/memory.usage_in_bytes", 800 * MIB),
                ("memory/memory.stat", "total_inactive_file 0"),
            ),
            0,
        ),
        (
            (
                ("memory/memory.limit_in_bytes", 2**63 - 4096),
                ("memory/memory.usage_in_bytes", 800),
                ("memory/memory.stat", "total_inactive_file 0"),
            ),
            8000,
        ),
    ],
)
def test_the_limit_of_a_container_counts(tmp_path, files, wanted):
    assert available_memory(write_system(tmp_path, files=files)) == wanted * MIB


def test_memory_of_this_system(tmp_path):
    assert available_memory(str(tmp_path)) is None
    assert 0 < used_memory() <= used_memory(peak=True)


class Two(SingleProcess):
    """The first of two processes, of which the other is on another machine and says `theirs`."""

    size = 2

    def __init__(self, theirs):
        self._answers = [["elsewhere"], [theirs]]

    def gather(self, objects):
        return [*objects, *self._answers.pop(0)]


def test_several_processes_take_the_smallest_size(monkeypatch):
    sizes = []

    def run(request, size, local_rank):
        sizes.append(size)
        place = int(size != 2)
        return trials(600, 100 if size < 64 else 1, sizes=(2, size), limit=2000 * MIB)[place]

    monkeypatch.setattr(batch_size, "_run", run)
    assert find_batch_size({}, Two((7, "theirs")))[0] == 7
    size, why = find_batch_size({}, Two((70, "theirs")))
    assert (size, sizes) == (10, [2, 8] * 2) and why.endswith("; the smallest of 2 processes")
    with pytest.raises(ValueError, match="^no memory there$"):
        find_batch_size({}, Two("no memory there"))


def test_images_that_take_little_are_measured_in_a_larger_batch(monkeypatch):
    def run(request, size, local_rank):
        return dataclasses.replace(trials(600, 3, sizes=(size,))[0], limit=2000 * MIB)

    monkeypatch.setattr(batch_size, "_run", run)
    size, why = find_batch_size({}, SingleProcess())
    assert size == 328 and "measured with batches of 2 and 64" in why


def test_a_run_that_goes_on_keeps_its_size(tmp_path):
    run = tmp_path / "run"
    assert size_of_run(run) is None
    run.mkdir()
    (run / "config.gin").write_text("train.batch_size = 24\n")
    assert size_of_run(run) is None  # Nothing is trained yet.
    (run / "ckpt-3.index").write_bytes(b"")
    assert size_of_run(run) == 24
    new = tmp_path / "new"
    assert size_of_run(new, str(run)) == size_of_run(new, str(run / "ckpt-3")) == 24
    (run / "config.gin").write_text("train.steps = 3\n")
    with pytest.raises(ValueError, match="config.gin does not say the batch size.* --batch_size"):
        size_of_run(run)


def test_a_trial_that_fails_is_told_in_one_line(tmp_path):
    request = {"gin_file": ["no_such_recipe"], "gin_params": None, "flag_params": []}
    with pytest.raises(
        ValueError, match="a trial with 2 images a step failed: .*no_such_recipe"
    ) as e:
        batch_size._run({**request, "allow_import": None, "data_dir": str(tmp_path)}, 2, 0)
    assert "\n" not in str(e.value) and "Give the number of images as --batch_size." in str(e.value)


@pytest.mark.slow(minutes=0.4)
def test_train_finds_a_size_and_keeps_it(data_dir, tmp_path, warm):
    recipe, run = tmp_path / "tiny.gin", tmp_path / "run"
    recipe.write_text(f"{RUN_RECIPE}\ntrain.pictures = 0\ntrain.evaluate_every = 0\n")
    given = ["train", f"--gin_file={recipe}", f"--data_dir={data_dir}", f"--model_dir={run}"]
    given += ["--device=cpu", "--batch_size=auto"]
    said = cli(*given, python=warm, status=0).stdout
    assert "--batch_size=auto takes 3: a training needs " in said
    assert "more than the 3 images of an epoch" in said and ", batch 3, " in said
    begun = json.loads((run / "sessions.jsonl").read_text().splitlines()[0])
    assert begun["global_batch_size"] == 3
    # Another machine would find another size.
    settings = (run / "config.gin").read_text().replace("batch_size = 3", "batch_size = 2")
    (run / "config.gin").write_text(settings)
    again = cli(*given, "--num_steps=4", python=warm, status=0).stdout
    assert "--batch_size=auto: 2, as the run had before" in again and ", batch 2, " in again
    assert "measuring" not in again
    twice = cli(
        *given[:3],
        f"--model_dir={tmp_path / 'b'}",
        *given[4:],
        "--gin_params=train.batch_size = 2",
        python=warm,
        status=2,
    ).stderr
    assert "both say the batch size" in twice
    ended = cli(*given, "--mode=eval", python=warm, status=2).stderr
    assert "--batch_size=auto is for a training" in ended
    where = cli("evaluate", f"--model_dir={run}", "--batch_size=auto", python=warm, status=2).stderr
    assert "only train finds the largest batch that fits" in where
