"""The command that exports a run: what it prints, writes and refuses."""

import json
import os
import shutil

import pytest

from ssd_centernet.cli import main
from tests.process import cli, environment


def test_export_of_a_run(model_dir, data_dir, tmp_path_factory, tmp_path):
    model_dir = shutil.copytree(model_dir, tmp_path_factory.mktemp("run") / "model")
    (model_dir / "best" / "metrics.json").write_text('{"step": 5, "AP": 0.25, "loss_box": 1.0}')
    flags = [f"--model_dir={model_dir}"]
    flags += [f"--output={tmp_path / 'out'}", f"--data_dir={data_dir}", "--num_check_images=2"]
    flags += ["--formats=saved_model,tflite", "--gin_params=export.pairs = 2000"]
    # At the level that users have: what is asked is also that converters say nothing.
    ended = cli("export", *flags, env=environment(TF_CPP_MIN_LOG_LEVEL="2"))
    lines = ended.stdout.splitlines()
    assert lines[0].endswith(f"best/ckpt-5, checked on 2 images: coco_val of {data_dir}")
    assert [line.split()[0] for line in lines[3:5]] == ["saved_model", "tflite"]
    assert ended.stdout.count("written: ") == 5
    # Converters are quiet.
    assert not [line for line in ended.stderr.splitlines() if "tfl" in line.lower()]
    card = json.loads((tmp_path / "out" / "model_card.json").read_text())
    assert card["weights"] == "raw"  # It has no averages.
    assert card["step"] == 5 and card["checkpoint"].endswith("best/ckpt-5")
    assert card["evaluations"] == {"best/metrics.json": {"AP": 0.25}}
    assert "SSDDecoder.score_threshold = 0.01" in card["settings"]
    assert card["thresholds"]["score_threshold"] == 0.01
    assert card["check_images"] == f"coco_val of {data_dir}"
    assert card["formats"]["tflite"]["parity"]["share"] >= 0.995
    assert sorted(os.listdir(tmp_path)) == ["out"]


def test_formats_of_integers_are_calibrated_on_the_training_split(model_dir, data_dir, tmp_path):
    flags = [f"--model_dir={model_dir}", f"--data_dir={data_dir}", f"--output={tmp_path / 'out'}"]
    flags += ["--num_check_images=2", "--num_calibration_images=3"]
    ended = cli(
        "export",
        *flags,
        "--formats=tflite_16x8",
        env=environment(TF_CPP_MIN_LOG_LEVEL="2"),
    )
    # Converters are quiet.
    assert not [line for line in ended.stderr.splitlines() if "quantize" in line or "tfl" in line]
    assert "quantize" not in ended.stdout and ended.stdout.count("written: ") == 4
    card = json.loads((tmp_path / "out" / "model_card.json").read_text())
    assert card["calibration"] == f"3 of coco_train of {data_dir}"
    assert card["formats"]["tflite_16x8"]["ap"]["images"] == 2
    assert card["formats"]["tflite_16x8"]["ap"]["max_loss"] == 0.01
    assert "  AP 0." in ended.stdout and "AP: of the file, and of the model" in ended.stdout
    assert {one["calibration_images"] for one in card["formats"].values()} == {3}


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        ([], 2, "--output must be given"),
        (["--output=x", "--input_size=300"], 2, "expected HEIGHT,WIDTH"),
        (["--output=x", "--check_images=nowhere"], 1, "no images in --check_images=nowhere"),
        (["--output=x", "--formats=coreml"], 1, "coreml"),
        (["--output=x", "--formats=tflite_16x8"], 1, "Give --data_dir, the data of the run, or"),
        (
            ["--output=x", "--formats=tflite_16x8", "--calibration_images=nowhere"],
            1,
            "no images in --calibration_images=nowhere",
        ),
        (["--output=x", "--max_ap_loss=0.02"], 2, "--max_ap_loss=0.02 has no effect: AP is"),
        (["--output=x", "--num_calibration_images=5"], 2, "has no effect on --formats=saved_model"),
    ],
)
def test_wrong_commands(flags, status, message, model_dir, capsys, tmp_path, monkeypatch):
    from absl import flags as absl_flags

    monkeypatch.chdir(tmp_path)
    (tmp_path / "nowhere").mkdir()
    before = set(absl_flags.FLAGS)
    try:
        with pytest.raises(SystemExit) as ended:
            main.run(["ssd_centernet", "export", f"--model_dir={model_dir}", *flags])
    finally:
        for name in set(absl_flags.FLAGS) - before:
            delattr(absl_flags.FLAGS, name)
    assert ended.value.code == status
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["nowhere"]
