"""Train variants of a recipe with several seeds each, and say which differ by more than chance.

Examples:
  ssd_centernet ablate --study=studies/ssd_demo.yaml --output_dir=runs/study
  ssd_centernet ablate --study=studies/ssd_demo.yaml --output_dir=runs/study --report --metric=AP50

The file has the settings in common, the variants and the seeds:

  base:
    gin_file: ssd_demo
    data_dir: data/demo
  variants:
    ema: ["train.ema_decay = 0.998"]
    giou: ["MultiBoxLoss.box_loss = 'giou'", "MultiBoxLoss.box_loss_weight = 2.0"]
  seeds: [0, 1, 2]

`base` without changes is always a variant; the others are compared with it. All runs see as many
images. All variants are built before the first is trained. Runs are trained one after the other, in
OUTPUT_DIR/VARIANT/seedN. Give the same command again to go on after a stop, also with more variants
or seeds in the file. OUTPUT_DIR gets the tables as ablation.json and ablation.md.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from ssd_centernet.cli import _flags, _runs

if TYPE_CHECKING:
    from ssd_centernet.runs.ablation import Plan
    from ssd_centernet.runs.study import Study

# COCO's numbers, as evaluation/result.py has them; that module takes too long for a help.
_METRICS = "AP AP50 AP75 APs APm APl ARmax1 ARmax10 ARmax100 ARs ARm ARl".split()


def define_flags() -> None:
    """Define the flags of this command."""
    flags.DEFINE_string("study", None, "YAML file with base, variants, seeds and perhaps a budget.")
    flags.DEFINE_string("output_dir", None, "Folder of the study and of its runs.")
    flags.DEFINE_multi_string(
        "only", None, "Train this variant alone; the tables have what there is. Repeatable."
    )
    flags.DEFINE_enum("metric", "AP", _METRICS, "COCO's number that is compared.")
    flags.DEFINE_enum(
        "evaluation",
        "last",
        ["last", "best"],
        "last takes the evaluation of the last step, best that of the highest AP of each run.",
    )
    flags.DEFINE_boolean(
        "dry_run", False, "Build every variant, print the commands of the trainings, run none."
    )
    flags.DEFINE_boolean("report", False, "Train nothing; print the tables of what there is.")
    flags.DEFINE_boolean("json", False, "Print one JSON object instead of tables or commands.")


def main(argv: list[str]) -> int:
    """Run the command."""
    _runs.refuse_arguments(argv)
    _flags.require("study", "output_dir")
    _flags.check_folders("output_dir")
    values = flags.FLAGS
    if values.dry_run and values.report:
        raise flags.Error("--dry_run and --report contradict each other: give only one.")
    if values.json and not (values.dry_run or values.report):
        raise flags.Error(
            "--json belongs to --dry_run or --report, as trainings print their progress; "
            "OUTPUT_DIR/ablation.json has the same."
        )
    from ssd_centernet.run_directory import refuse_wildcards
    from ssd_centernet.runs.ablation import check_unchanged, train_runs
    from ssd_centernet.runs.planned import StoppedError
    from ssd_centernet.runs.study import read_study

    study = read_study(values.study)
    _check_only(study, values.only or ())
    refuse_wildcards(values.output_dir, "--output_dir", "no run could go on")
    if values.dry_run:
        return _show_plans(study, values.output_dir, as_json=values.json)
    failed: list[str] = []
    if values.report:
        _check_there(study, values.output_dir)
    else:
        plans = _plans(values.study, values.output_dir)
        check_unchanged(plans, study.seeds, values.output_dir)
        chosen = [plan for plan in plans if not values.only or plan.name in values.only]
        try:
            failed = train_runs(chosen, study.seeds, values.output_dir, say=_say)
        except StoppedError as stopped:
            _report(study)
            _say(f"{stopped}: the same command goes on with this study.")
            return 128 + stopped.number
    _report(study)
    if failed:
        print(
            f"ssd_centernet ablate: {len(failed)} of the trainings failed: {'; '.join(failed)}. "
            "When the cause is gone the same command goes on.",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _check_only(study: Study, names: Sequence[str]) -> None:
    known = [variant.name for variant in study.variants]
    for name in names:
        if name not in known:
            raise flags.Error(f"--only={name}; expected one of the variants {', '.join(known)}.")


def _check_there(study: Study, output_dir: str) -> None:
    names = [variant.name for variant in study.variants]
    if not any((Path(output_dir) / name).is_dir() for name in names):
        raise FileNotFoundError(
            f"there is no run of {study.path} in {output_dir}: expected a folder for one of "
            f"{', '.join(names)}. Was --output_dir another, or did no training begin?"
        )


def _show_plans(study: Study, output_dir: str, *, as_json: bool) -> int:
    """Build every variant, and print what would be trained."""
    from ssd_centernet.cli._variants import plan_variants

    plans = plan_variants(study)
    if as_json:
        print(json.dumps([dataclasses.asdict(plan) for plan in plans]))
        return 0
    _say(f"{len(plans)} variants with {len(study.seeds)} seeds each")
    for plan in plans:
        _say(f"\n{plan.name}: {plan.steps} steps of {plan.batch_size}, {plan.images} images")
        for seed in study.seeds:
            _say(shlex.join(["ssd_centernet", *plan.command(seed, output_dir)]))
    return 0


def _plans(study: str, output_dir: str) -> list[Plan]:
    """Have every variant built in another process, whose memory is then free for the trainings.

    Raises:
        SystemExit: it failed, and has said why.
    """
    from ssd_centernet.runs.ablation import Plan

    words = ["ablate", f"--study={study}", f"--output_dir={output_dir}", "--dry_run", "--json"]
    words += ["--debug"] if flags.FLAGS.debug else []
    ended = subprocess.run(
        [sys.executable, "-m", "ssd_centernet", *words], stdout=subprocess.PIPE, text=True
    )
    if ended.returncode:
        sys.exit(ended.returncode if ended.returncode > 0 else 128 - ended.returncode)
    return [Plan(**one) for one in json.loads(ended.stdout.splitlines()[-1])]


def _report(study: Study) -> None:
    """Write the files of the tables, and print these."""
    from ssd_centernet.runs.ablation import read_run
    from ssd_centernet.runs.ablation_report import Ablation

    values = flags.FLAGS
    names = [variant.name for variant in study.variants]
    runs = [read_run(values.output_dir, name, seed) for name in names for seed in study.seeds]
    ablation = Ablation(runs, metric=values.metric, evaluation=values.evaluation)
    paths = ablation.save(values.output_dir, study=study.path)
    if values.json:
        _say(json.dumps(ablation.to_dict(), indent=1, allow_nan=False))
        return
    _say(f"\n{ablation.text()}\n")
    for path in paths:
        _say(f"written: {path}")


def _say(text: str) -> None:
    print(text, flush=True)
