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
