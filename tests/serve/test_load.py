"""A short run of the load test: bad requests among good ones, slow clients, and an end at work."""

import json
import sys

from benchmarks.traffic import bad, good, rude
from tests.process import ROOT, environment, run
from tests.serve.serving import need_packages


def test_under_load_every_answer_is_the_expected_one_and_memory_stays(model_dir, tmp_path):
    need_packages()
    report = tmp_path / "report.json"
    command = (sys.executable, ROOT / "benchmarks" / "serve.py", f"--model_dir={model_dir}")
    options = ("--requests=250", "--clients=8", "--slow=4", "--seconds=120", f"--json={report}")
    said = run(*command, *options, env=environment(TF_NUM_INTRAOP_THREADS="1"), limit=240)
    assert "WRONG" not in said.stdout, str(said)
    told = json.loads(report.read_text())
    assert told["wrong"] == [] and sum(told["answers"].values()) == 250
    # Each kind was sent, and pictures were answered beside all that is none.
    kinds = {name.rpartition(": ")[0] for name in told["answers"]}
    assert kinds == {kind.name for kind in (*good(), *bad(1), *rude())}
    assert told["answers"]["jpeg 640x480: 200"] > 5
    assert told["stop"]["status"] == 0 and set(told["stop"]["answers"]) == {200}
    files = [row["files"] for row in told["phases"].values()]
    assert max(files) - min(files) < 40, files
