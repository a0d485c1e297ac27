"""What lies in oneDNN's kernels: the lines that it prints, and a small run."""

import sys

import pytest

from tests.process import ROOT, run

BENCHMARKS = ROOT / "benchmarks"


def line(kind, direction, milliseconds, version="v1,primitive,"):
    said = f"exec,cpu,{kind},jit,{direction},src:bf16 dst:bf16,,,mb4_ic3oc4,{milliseconds}"
    return f"onednn_verbose,{version}{said}\n"


def test_times_are_added_by_what_is_computed(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import kernels

    for name in ("kernels", "rows", "turns"):
        monkeypatch.delitem(sys.modules, name)
    lines = [
        line("convolution", "forward_training", 1.5),
        line("convolution", "forward_inference", 0.5, version="primitive,"),
        line("matmul", "undef", 2.0),
        line("convolution", "backward_data", 8.0),
        line("convolution", "backward_weights", 16.0),
        line("reorder", "undef", 32.0),
        "onednn_verbose,v1,info,cpu,isa:Intel AVX-512\n",
        "onednn_verbose,v1,primitive,create:cache_hit,cpu,convolution,jit,forward_training,,,,,64\n",
        "another line, exec, 128.0\n",
    ]
    assert kernels.kernel_times(lines) == {
        "forward": 4.0,
        "gradient of maps": 8.0,
        "gradient of kernels": 16.0,
        "other": 32.0,
    }


@pytest.mark.slow(minutes=1)
def test_a_step_has_all_directions_and_a_detection_one(warm, tmp_path):
    command = [warm, BENCHMARKS / "kernels.py", "--small", "--units=1"]
    options = ["--rows=train_vgg16_fp32,detect_vgg16_1", f"--peers={tmp_path / 'none'}"]
    said = run(*command, *options, limit=300).stdout
    step, ours, onnx = [row for row in said.splitlines() if row.startswith(("train_", "detect_"))]
    step, ours, onnx = ([float(word) for word in row.split()[-7:]] for row in (step, ours, onnx))
    assert min(step[:3]) > 0.0 and 0.0 < step[-1] <= 1.0
    assert ours[0] > 0.0 and ours[1:3] == [0.0, 0.0]
    # onnxruntime has kernels of its own.
    assert onnx[:5] == [0.0] * 5 and onnx[5] > 0.0


def test_rows_without_a_network_are_refused():
    command = [sys.executable, BENCHMARKS / "kernels.py", "--rows=metric_1000"]
    done = run(*command, status=2)
    assert "--rows=metric_1000: expected a train step or an inference" in done.stderr
