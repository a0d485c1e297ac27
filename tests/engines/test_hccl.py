"""What docs/distributed.md promises of processes on NPUs, on a stand-in for their adapter."""

import json
import shutil
import socket

import pytest

from tests.engines.conftest import cli
from tests.engines.test_mirrored import (
    assert_alike,
    assert_all_evaluated,
    at_step,
    records,
    variables,
)
from tests.process import ROOT, Running, slowness
from tests.runtime import stub

ADAPTER = ROOT / "tests" / "runtime" / "npu"


def train(python, table, recipe, data_dir, model_dir):
    """Train in two processes by the command line."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        table.write_text(json.dumps({"address": probe.getsockname()}))
    flags = ["train", f"--gin_file={recipe}", f"--data_dir={data_dir}", f"--model_dir={model_dir}"]
    flags += ["--strategy=hccl", "--batch_size=3"]
    shared = {"RANK_SIZE": "2", "RANK_TABLE_FILE": str(table), "TF_USE_LEGACY_KERAS": "1"}
    started = []
    for rank in range(2):
        own = {"RANK_ID": str(rank), "ASCEND_DEVICE_ID": str(rank)}
        env = stub.environment(None, "NPU", 0, TF_NUM_INTEROP_THREADS="8", **own, **shared)
        env["PYTHONPATH"] += f":{ADAPTER}"
        started.append(Running(python, "-m", "ssd_centernet", *flags, env=env))
    with started[0] as first, started[1] as second:
        return [one.finish(status=0, limit=120.0 * slowness()) for one in (first, second)]


@pytest.mark.slow
def test_a_run_is_saved_and_goes_on_by_the_command_line(recipe, data_dir, tmp_path, warm):
    table, whole = tmp_path / "table.json", tmp_path / "whole"
    first, second = train(warm, table, recipe, data_dir, whole)
    assert "10/10" in first.stdout and "10/10" not in second.stdout, f"{first}\n{second}"
    assert_all_evaluated(whole)
    assert [one["step"] for one in records(whole, "train")] == list(range(1, 11))
    expected = variables(whole / "ckpt-10")
    # By the same processes exactly, and as one process of the joined batch.
    again = at_step(5, whole, tmp_path / "again")
    alone = shutil.copytree(again, tmp_path / "alone")
    told = train(warm, table, recipe, data_dir, again)[0].stdout
    assert "at step 5" in told, told
    assert_alike(variables(again / "ckpt-10"), expected, atol=0.0)
    flags = ["train", f"--gin_file={recipe}", f"--data_dir={data_dir}", f"--model_dir={alone}"]
    ended = cli(*flags, "--device=cpu", python=warm)
    assert "at step 5" in ended.stdout, str(ended)
    assert variables(alone / "ckpt-10").keys() == expected.keys()
