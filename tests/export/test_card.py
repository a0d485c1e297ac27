"""The card of an export: what is told of a checkpoint."""

import json

from ssd_centernet.export import card as cards


def test_facts_are_those_of_the_checkpoint(tmp_path):
    (tmp_path / "evaluation").mkdir()
    metrics = {"checkpoint": f"{tmp_path}/ckpt-7", "split": "val", "metrics": {"AP": 0.1, "ARs": 2}}
    (tmp_path / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
    facts = cards.run_facts(tmp_path, f"{tmp_path}/ckpt-7")
    assert facts["step"] == 7
    assert facts["evaluations"] == {
        "evaluation/metrics.json": {"split": "val", "AP": 0.1, "ARs": 2}
    }
    # What was measured on another checkpoint is not said of this one.
    assert cards.run_facts(tmp_path, f"{tmp_path}/ckpt-9")["evaluations"] == {}


def test_averages_and_trained_weights_are_told_apart(tmp_path):
    (tmp_path / "evaluation").mkdir()
    path, best = tmp_path / "evaluation" / "metrics.json", tmp_path / "metrics.json"
    metrics = {"checkpoint": f"{tmp_path}/ckpt-7", "metrics": {"AP": 0.1}}
    best.write_text(json.dumps({"step": 7, "AP": 0.3}))

    def facts(**kinds):
        found = cards.run_facts(tmp_path, f"{tmp_path}/ckpt-7", **kinds)
        return found["weights"], sorted(found["evaluations"])

    both = ["evaluation/metrics.json", "metrics.json"]
    path.write_text(json.dumps(metrics))
    assert facts() == ("raw", both)
    assert facts(averaged=True) == ("ema", both)
    assert facts(averaged=True, trained=True) == ("raw", [])
    # A later evaluation of the others says so, and what a training keeps as the best are averages.
    path.write_text(json.dumps({**metrics, "weights": "raw"}))
    assert facts(averaged=True) == ("ema", both[1:])
    assert facts(averaged=True, trained=True) == ("raw", both[:1])
