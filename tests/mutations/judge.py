"""What a changed input may end in, and what it may not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ssd_centernet.cli._errors import message_for_user

# What a change claims about its input.
SAME, BROKEN, EITHER = "same", "broken", "either"
CLAIMS = (SAME, BROKEN, EITHER)
# Verdicts; the last is a fault of the library, or of a change that claims too much.
READ, REFUSED, COUNTED, WRONG = "same", "refused", "counted", "WRONG"
VERDICTS = (READ, REFUSED, COUNTED, WRONG)

# A place in a file, where a change does not say which.
ANY_PLACE = (
    r"\b(line|column|byte|row|record|entry|item|annotation|image_id|field|key|tensor|detection"
    r"|[Cc]ategory)s? \S|'[a-z_]+'|\b\w+\.\w+ (is|has)\b"
    # An element of XML that is in another one.
    r"|<\w+> stands in <\w+>"
    # Pictures that are not there, by their names.
    r"|for example \S"
)
# Errors about a whole file, such as an empty one, have no place in it.
WHOLE_FILE = r""

# Kinds and reasons of the report that stand for objects or images which the result lacks. Each
# names its place; whatever else is missing has vanished without a word.
LOSSES = {
    "dropped boxes": "each is one object",
    "dropped images": "each is one image with its objects",
}
NOTED_LOSSES = {
    "no label file: an image without objects": "the picture is named, and its objects cannot be",
    "image without an XML file: not used": "the picture is named, and its objects cannot be",
    "label file without a picture of its own: not used": "the file is named",
    "row of another split than train, val and test: not used": "the picture and line are named",
}


@dataclass(frozen=True)
class Meaning:
    """What an input says: image -> its objects, and the classes in their order.

    An object is any tuple that compares exactly; numbers in it are rounded by who makes it.
    """

    images: Mapping[str, tuple]
    classes: tuple = ()

    @property
    def objects(self) -> Counter:
        """Return (image, object) -> how often it is there."""
        return Counter((name, one) for name, all_of in self.images.items() for one in all_of)


@dataclass(frozen=True)
class Changed:
    """A changed input.

    Attributes:
        files: path in the input's folder -> bytes, of all its files.
        file: name that an error must mention; of several, one is enough.
        places: regular expression that an error or the report must match; a place of any kind if
            it is None.
        meaning: what the changed input says, if it is another than the clean one.
        joined: lines that were put at the end of others: what reports a line means all of it.
    """

    files: Mapping[str, bytes]
    file: str | tuple[str, ...]
    places: str | None = None
    meaning: Meaning | None = None
    joined: int = 0


@dataclass
class Outcome:
    """What the library made of an input: a meaning and a report, or an error; and what it ran."""

    meaning: Meaning | None = None
    report: Mapping[str, Mapping[str, Mapping]] = field(default_factory=dict)
    error: Exception | None = None
    ran: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """One of `VERDICTS`, and why."""

    verdict: str
    why: str = ""


def judge(claim: str, changed: Changed, outcome: Outcome, clean: Outcome) -> Verdict:
    """Judge what became of a changed input.

    Args:
        claim: of the change: 'same' must be read as the clean input (or as `changed.meaning`),
            'broken' must be refused or counted, 'either' may be any of these.
        changed: the input.
        outcome: what the library made of it.
        clean: what it makes of the clean input.

    Returns:
        The verdict; WRONG says why.
    """
    if outcome.ran:
        return Verdict(WRONG, f"code of the input is run: {'; '.join(outcome.ran)}")
    if outcome.error is not None:
        return _judge_error(claim, changed, outcome.error)
    wanted = changed.meaning or clean.meaning
    news = _news(outcome.report, clean.report)
    if outcome.meaning == wanted:
        if claim != BROKEN:
            return Verdict(READ)
        if not news:
            return Verdict(WRONG, "broken, and read without a word")
        return _placed(changed, news) or Verdict(COUNTED, _told(news))
    if claim == SAME:
        return Verdict(
            WRONG, f"not the same: {_difference(wanted, outcome.meaning)}; {_told(news)}"
        )
    fault = _unaccounted(wanted, outcome.meaning, news, changed.joined)
    if fault:
        return Verdict(WRONG, f"{fault}; report: {_told(news) or 'nothing'}")
    return _placed(changed, news) or Verdict(COUNTED, _told(news))


def _judge_error(claim: str, changed: Changed, error: Exception) -> Verdict:
    message = message_for_user(error)
    if message is None:
        return Verdict(WRONG, f"ends in a traceback: {type(error).__name__}: {error}")
    if claim == SAME:
        return Verdict(WRONG, f"refused, though it means the same: {message}")
    names = (changed.file,) if isinstance(changed.file, str) else changed.file
    if not any(name in message for name in names):
        return Verdict(WRONG, f"the error names no file ({' or '.join(names)}): {message}")
    if re.search(r"\{'\w+':", message):
        return Verdict(WRONG, f"a Python dict in the error: {message}")
    if not re.search(ANY_PLACE if changed.places is None else changed.places, message):
        return Verdict(WRONG, f"the error does not name the place ({changed.places}): {message}")
    return Verdict(REFUSED, message)


def _news(report: Mapping, clean: Mapping) -> list[tuple[str, str, int, list]]:
    """Return (kind, reason, count, places) of what the clean input does not report."""
    found = []
    for kind, reasons in report.items():
        for reason, entry in reasons.items():
            known = clean.get(kind, {}).get(reason, {"count": 0, "first": []})
            places = [str(item) for item in entry["first"] if item not in known["first"]]
            if entry["count"] > known["count"] or places:
                found.append((kind, reason, entry["count"] - known["count"], places))
    return found


def _unaccounted(wanted: Meaning, got: Meaning, news: list, joined: int) -> str:
    """Say what is other or missing without a word in the report; '' if nothing is."""
    strange = [name for name in got.images if name not in wanted.images]
    if strange:
        return f"images that are not there: {strange}"
    strange = got.objects - wanted.objects
    if strange:
        return f"other objects: {list(strange)}, for {list(wanted.objects - got.objects)}"
    if any(name not in wanted.classes for name in got.classes):
        return f"other classes: {got.classes}, for {wanted.classes}"
    noted = " ".join(p for _, reason, _, places in news for p in places if reason in NOTED_LOSSES)
    dropped = " ".join(p for kind, _, _, places in news for p in places if kind == "dropped images")
    for name in wanted.images:
        if name not in got.images and not _names(f"{noted} {dropped}", name):
            return f"image {name} is missing"
    lost = wanted.objects - got.objects
    lost = {
        (name, one): count
        for (name, one), count in lost.items()
        if name in got.images and not _names(noted, name)
    }
    counted = sum(count for kind, _, count, _ in news if kind == "dropped boxes")
    if sum(lost.values()) > counted + (joined if counted else 0):
        return f"objects are missing: {list(lost)}, and {counted} are counted"
    return ""


def _names(places: str, image: str) -> bool:
    stem = image.rpartition("/")[2].rpartition(".")[0]
    return re.search(rf"(?<!\w){re.escape(stem)}(?!\w)", places) is not None


def _placed(changed: Changed, news: list) -> Verdict | None:
    """Return the fault of a report that does not name the place, None if it does."""
    if changed.places is None or not news:
        return None
    text = " ".join(p for _, _, _, places in news for p in places)
    if re.search(changed.places, text):
        return None
    return Verdict(WRONG, f"the report does not name the place ({changed.places}): {_told(news)}")


def _told(news: list) -> str:
    return "; ".join(
        f"{count} {kind}: {reason} ({', '.join(p)})" for kind, reason, count, p in news
    )


def _difference(wanted: Meaning | None, got: Meaning | None) -> str:
    if wanted is None or got is None:
        return "nothing was read"
    if wanted.images.keys() != got.images.keys():
        return f"images {sorted(got.images)} for {sorted(wanted.images)}"
    more, less = list(got.objects - wanted.objects), list(wanted.objects - got.objects)
    if more or less:
        return f"objects {more} for {less}"
    return f"classes {got.classes} for {wanted.classes}"


Reader = Callable[..., Outcome]
