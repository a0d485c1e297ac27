"""What the results of a check mean: which parts agree with the CPU, and how closely."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ssd_centernet.plain_text import counted


class Tolerance(NamedTuple):
    """How far a precision may be from float32 on the CPU.

    Attributes:
        outputs: raw outputs, root of the mean square, as a share of what they vary by.
        first: total loss of the first step, relative.
        gradient: norm of the gradients of the first step, relative.
        losses: the largest relative difference of the total loss over all steps.
    """

    outputs: float
    first: float
    gradient: float
    losses: float


# bf16 and fp16: twice and more of the largest differences of narrow recipes on a CPU, as these are
# rounded alike everywhere. fp32 and tf32: for other orders of summation, and TF32's three digits.
TOLERANCES = {
    "fp32": Tolerance(1e-3, 1e-4, 1e-3, 1e-2),
    "tf32": Tolerance(2e-2, 1e-3, 5e-2, 1e-1),
    "bf16": Tolerance(3e-1, 5e-3, 1.5e-1, 1e-1),
    "fp16": Tolerance(3e-2, 1e-3, 3e-2, 1.3e-1),
}
# A deep network, and batch norm over a few values, magnify what any rounding loses: a device may be
# off by so many times what the CPU is with weights that are off by one rounding. It rounds the
# results of each layer too.
_TIMES = 4.0
# But never by more: outputs that have nothing to do with each other are 1.4 apart.
_MOST = Tolerance(1.0, 0.5, 0.5, 0.5)
_OFF_LIKE = {"fp16": "tf32"}  # Both have 10 bits.
# Targets, and detections of the same raw outputs, are float32 under every precision.
_SAME = 1e-5
# Losses of a training on two devices, beside one with all images.
_JOINED = 1e-2

# How the last line of a traceback begins, and lines of a command's error that only point on.
_ERROR = re.compile(
    r"(Fatal Python error|[\w.]*(Error|Exception|Interrupt|Exit)): |\w[\w.]*Error:$"
)
# What TensorFlow logs, which names no cause.
_LOGGED = re.compile(
    r"[IWE]\d{4} |\d{4}-\d\d-\d\d [\d:.]+: [IWE] |WARNING: All log |WARNING:tensorflow"
)
_POINTER = re.compile(r"All flags: |Pass --help|usage: |Try .*--help|--debug shows|\^+$", re.I)


class Judged(NamedTuple):
    """What a part's result means: 'ok', 'FAIL' or 'not run', and a sentence."""

    verdict: str
    text: str


def judge(result: Mapping[str, Any]) -> dict[str, Judged]:
    """Judge the parts of a check.

    Args:
        result: as `Results.to_dict` returns it.

    Returns:
        Name of each part -> verdict.
    """
    parts = result["parts"]
    return {name: _judge(name, one, parts) for name, one in parts.items()}


def failed(result: Mapping[str, Any]) -> set[str]:
    """Return the names of the parts that failed, and of those that need one of these."""
    judged = judge(result)
    wrong = {name for name, one in judged.items() if one.verdict == "FAIL"}
    after = {name for name, one in judged.items() if "which did not end well" in one.text}
    # Two equal runs are compared: both begin anew.
    twins = {name.replace("second", "first") for name in wrong if name.startswith("bits ")}
    return wrong | after | (twins & set(parts_of(result)))


def parts_of(result: Mapping[str, Any]) -> list[str]:
    """Return the names of the parts that have a result."""
    return list(result["parts"])


def sentence(judged: Mapping[str, Judged]) -> str:
    """Say how many parts are as they should be."""
    verdicts = [one.verdict for one in judged.values()]
    ok, wrong, left = (verdicts.count(one) for one in ("ok", "FAIL", "not run"))
    return f"{counted(len(verdicts), 'part')}: {ok} ok, {wrong} failed, {left} not run"


def cause(one: Mapping[str, Any]) -> str:
    """Return the line of what a part said that tells why it did not end well.

    Args:
        one: result of a part.

    Returns:
        The last line that names an error, with the next one where it ends in a colon; else the
        last one that does more than point to the help. '' if nothing was said.
    """
    said = [line.strip() for line in (one.get("said") or "").splitlines() if line.strip()]
    lines = [line for line in said if not _LOGGED.match(line)] or said
    if one["status"] == "time limit":  # Its last line is the limit; what came before went on.
        return lines[-1]
    for number, line in reversed(list(enumerate(lines))):
        if _ERROR.match(line):
            return (
                f"{line} {lines[number + 1]}"
                if line.endswith(":") and lines[number + 1 :]
                else line
            )
    return next((line for line in reversed(lines) if not _POINTER.match(line)), "".join(lines[-1:]))


def number(value: float | None) -> float:
    """Return a number; None stands for one that is not finite, which JSON does not have."""
    return math.inf if value is None else value


def relative(got: Sequence[float | None], want: Sequence[float | None]) -> list[float]:
    """Return |got - want| / |want| of each pair; infinite where a value is not finite."""
    pairs = [(number(a), number(b)) for a, b in zip(got, want, strict=False)]
    return [
        abs(a - b) / max(abs(b), 1e-12) if math.isfinite(a) and math.isfinite(b) else math.inf
        for a, b in pairs
    ]


def totals(found: Mapping[str, Any]) -> list[float]:
    """Return the total loss of each step, but for those that float16 had to skip."""
    return [number(one["total"]) for one in updates(found)]


def updates(found: Mapping[str, Any]) -> list[Mapping[str, float | None]]:
    """Return the steps that updated the weights; a loss scale that is too large skips some."""
    if not found["skipped"]:
        return found["losses"]
    return [one for one in found["losses"] if math.isfinite(number(one["gradient_norm"]))]


def _judge(name: str, one: Mapping[str, Any], parts: Mapping[str, Any]) -> Judged:
    if one["status"] == "not run":
        return Judged("not run", one["said"])
    kind = name.split()[0]
    if one["status"] != "ended":
        # The comparison has ended where it has counted, whatever its status says.
        told = one["found"] and kind == "parity" and _parity(name, one["found"], parts)
        return Judged("FAIL", told.text if told else f"{one['status']}: {cause(one)}")
    judges = {"doctor": _doctor, "parity": _parity, "steps": _steps, "bits": _bits}
    judges |= {"speed": _speed, "detection": _speed, "training": _training, "several": _several}
    return judges[kind](name, one["found"], parts) if kind in judges else Judged("ok", "")


def _doctor(name: str, found: Mapping, parts: Mapping) -> Judged:
    del name, parts
    wrong = [one["name"] for one in found["checks"] if one["status"] == "FAIL"]
    warned = sum(one["status"] == "warn" for one in found["checks"])
    text = f"{counted(len(found['checks']), 'check')}, {counted(warned, 'warning')}"
    return Judged("FAIL", f"{text}; wrong: {', '.join(wrong)}") if wrong else Judged("ok", text)


def _parity(name: str, found: Mapping, parts: Mapping) -> Judged:
    del name, parts
    text = f"{found['passed']} of {found['passed'] + found['failed']} arrays agree"
    if not found["failed"]:
        return Judged("ok", text)
    worst = found["worst"][0]
    note = f" ({worst['note']})" if worst.get("note") else ""
    return Judged("FAIL", f"{text}; the furthest: {worst['name']}{note}")


def _steps(name: str, found: Mapping, parts: Mapping) -> Judged:
    if found["failed"]:
        return Judged("FAIL", found["failed"])
    if found["skipped"] > len(found["losses"]) // 2:
        return Judged("FAIL", f"{counted(found['skipped'], 'step')} skipped: gradients overflow")
    if name.endswith("reference"):
        return Judged("ok", f"{len(found['losses'])} steps on the CPU in float32")
    kind = parts["machine"]["found"]["kind"] if "machine" in parts else None
    if kind not in (None, "NPU") and not found["device"].startswith(kind):
        return Judged("FAIL", f"its weights are on {found['device']}, not on {kind}")
    reference = parts[f"{name.rpartition(' ')[0]} reference"]["found"]
    away, norm = _away(found, reference)
    compared, allowed = found["compared"], tolerance(found["precision"], reference)
    differences = {
        "targets": (compared["targets"], _SAME),
        "raw outputs": (compared["outputs"], allowed.outputs),
        "boxes": (compared["boxes"], _SAME),
        "scores": (compared["scores"], _SAME),
        "numbers of detections": (compared["counts_differ"], 0),
        "first loss": (away[0], allowed.first),
        "first gradients": (norm, allowed.gradient),
        # A skipped step leaves the weights but not the schedule: later ones go on at other rates.
        "losses": (0.0 if found["skipped"] else max(away), allowed.losses),
    }
    wrong = [
        f"{what} {number(value):.2g}, at most {limit:g}"
        for what, (value, limit) in differences.items()
        if not number(value) <= limit
    ]
    if wrong:
        return Judged("FAIL", "; ".join(wrong))
    text = f"raw outputs {compared['outputs']:.1e}, losses {max(away):.1e} from the CPU"
    text += f"; {counted(found['skipped'], 'step')} skipped" if found["skipped"] else ""
    return Judged("ok", text)


def tolerance(precision: str, reference: Mapping[str, Any]) -> Tolerance:
    """Return how far a precision may be off for a recipe.

    Args:
        precision: 'fp32', 'tf32', 'bf16' or 'fp16'.
        reference: what the CPU found; in `off` how far it is off itself with moved weights.
    """
    allowed = TOLERANCES[precision]
    off = reference.get("off", {}).get(_OFF_LIKE.get(precision, precision))
    if off is None:
        return allowed
    away, norm = _away(off, reference)
    own = (number(off["outputs"]), away[0], norm, max(away))
    limits = zip(allowed, own, _MOST, strict=True)
    return Tolerance(*(max(one, min(_TIMES * two, most)) for one, two, most in limits))


def _away(found: Mapping, reference: Mapping) -> tuple[list[float], float]:
    """Return the relative differences of the losses, and of the first norm of the gradients."""
    norms = [updates(one)[0]["gradient_norm"] for one in (found, reference)]
    (norm,) = relative(norms[:1], norms[1:])
    return relative(totals(found), totals(reference)), norm


def _bits(name: str, found: Mapping, parts: Mapping) -> Judged:
    if found["failed"]:
        return Judged("FAIL", found["failed"])
    first = parts.get(name.replace("second", "first"), {}).get("found")
    if not name.endswith("second") or first is None:
        return Judged("ok", f"{len(found['losses'])} steps")
    if first["digest"] == found["digest"] and first["losses"] == found["losses"]:
        return Judged("ok", "the bits of the first run")
    return Judged("FAIL", "other bits than the first run, under train.deterministic")


def _speed(name: str, found: Sequence[Mapping], parts: Mapping) -> Judged:
    (line,) = found
    text = f"{line['images_per_second']:.4g} images/s"
    if name.startswith("detection"):
        text += f", {line['latency_ms']:.4g} ms an image"
    if name.endswith(" xla"):
        plain = parts.get(f"{name[:-4]} plain", {}).get("found")
        if plain:
            share = line["images_per_second"] / plain[0]["images_per_second"]
            text += f", {share:.2f} of those without XLA"
    return Judged("ok", text)


def _training(name: str, found: Any, parts: Mapping) -> Judged:
    del parts
    if name.endswith("data"):
        return Judged("ok", "scenes are rendered and converted")
    if name.endswith("profile"):
        if not found["longest"]:
            return Judged("FAIL", "the trace holds no operation")
        first = found["longest"][0]
        return Judged(
            "ok", f"most time in {first['name']}, {first['share']:.0%} of {found['plane']}"
        )
    losses = [number(one["total"]) for one in found]
    if len(losses) != 8 or not all(map(math.isfinite, losses)):
        return Judged("FAIL", f"losses {losses}; expected 8 finite ones")
    return Judged("ok", f"loss {losses[0]:.3f} to {losses[-1]:.3f} in 8 steps")


def _several(name: str, found: Sequence[Mapping], parts: Mapping) -> Judged:
    if name.endswith("one device"):
        return _training(name, found, parts)
    one = parts.get("several one device", {}).get("found")
    if not one:
        return Judged("not run", "there is no training on one device to compare with")
    losses = [[step["total"] for step in run] for run in (found, one)]
    away = max(relative(*losses), default=math.inf)
    if len(losses[0]) != len(losses[1]) or not away <= _JOINED:
        return Judged("FAIL", f"losses {away:.2g} from those of one device, at most {_JOINED:g}")
    return Judged("ok", f"losses {away:.1e} from those of one device with the same images")
