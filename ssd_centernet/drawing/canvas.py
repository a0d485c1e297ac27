"""Parts of pictures: frames, hatching, and labels that do not cover each other."""

import functools
import importlib.util
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

LUMINANCE = np.array([0.299, 0.587, 0.114])
CROWD_COLOR = (235, 64, 52)
# Pixels; smaller letters are hard to read.
SMALLEST_FONT = 12
# A label covered by others for more than this share is not readable.
_MOST_COVERED = 0.35
# A label that is wider than its box and than this share of the picture is cut.
_WIDEST_LABEL = 0.6
# As many letters and digits of a name tell something without the others.
_LEGIBLE_PART = 3

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def outline(
    draw: ImageDraw.ImageDraw, box: np.ndarray, color: tuple[int, int, int], width: int
) -> None:
    """Draw a frame with a thin dark rim, visible on bright and on dark ground."""
    left, top, right, bottom = box.tolist()
    if width > 1:
        rim = (left - 1, top - 1, right + 1, bottom + 1)
        draw.rectangle(rim, outline=(20, 20, 20), width=1)
    draw.rectangle((left, top, right, bottom), outline=color, width=width)


def hatched(picture: Image.Image, box: np.ndarray, width: int) -> Image.Image:
    """Draw faint diagonal lines over a crowd region."""
    left, top, right, bottom = box.tolist()
    size = (right - left + 1, bottom - top + 1)
    veil = Image.new("L", size, 28)
    pen = ImageDraw.Draw(veil)
    step = max(8, 6 * width)
    for x in range(-size[1], size[0], step):
        pen.line((x, size[1], x + size[1], 0), fill=120, width=max(1, width // 2))
    picture.paste(Image.new("RGB", size, CROWD_COLOR), (left, top), veil)
    return picture


def draw_labels(
    draw: ImageDraw.ImageDraw,
    corners: np.ndarray,
    texts: Sequence[str],
    palette: Sequence[tuple[int, int, int]],
    order: np.ndarray,
    font_size: int,
) -> None:
    """Write labels at the boxes' upper left corners, each in its own free place if there is one."""
    taken: list[tuple[float, float, float, float]] = []
    # Small boxes choose first: they have the fewest places near them.
    for i in order[::-1]:
        if not texts[i]:
            continue
        width = int(corners[i, 2] - corners[i, 0])
        text, font, size = _label_font(texts[i], width, font_size, draw.im.size[0])
        place, covered = _free_place(corners[i].tolist(), size, draw.im.size, taken)
        if covered > _MOST_COVERED * size[0] * size[1]:
            continue
        taken.append(place)
        draw.rectangle(place, fill=palette[i])
        ink = (255, 255, 255) if _luminance(palette[i]) < 0.5 else (16, 16, 16)
        middle = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
        draw.text(middle, text, fill=ink, font=font, anchor="mm")


def fitting(texts: Sequence[str], corners: np.ndarray) -> list[str]:
    """Leave out the texts that are wider than their boxes, int [N, 4], in the smallest font."""
    fonts = ((*legible(text, SMALLEST_FONT), box) for text, box in zip(texts, corners, strict=True))
    widths = [font.getlength(shown) - (box[2] - box[0]) for shown, font, box in fonts]
    return [text if width <= 0 else "" for text, width in zip(texts, widths, strict=True)]


def _label_font(
    text: str, box_width: int, font_size: int, picture_width: int
) -> tuple[str, Font, tuple[int, int]]:
    """Return a label, its font and its size with padding, smaller above narrow boxes."""
    shown, font = legible(text, font_size)
    if font.getlength(shown) > 1.25 * box_width:
        font_size = max(SMALLEST_FONT, round(0.75 * font_size))
        shown, font = legible(text, font_size)
    pad = max(2, font_size // 5)
    shown = _cut(shown, font, max(box_width, _WIDEST_LABEL * picture_width) - 2 * pad)
    return shown, font, (round(font.getlength(shown)) + 2 * pad, font_size + pad + 2)


def _cut(text: str, font: Font, width: float) -> str:
    """Cut a text to a width in its middle: names may differ at both ends, and a score is last."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 2, -1):
        shown = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
        if font.getlength(shown) <= width:
            return shown
    return text[:1] + "..."


def _free_place(
    box: Sequence[int],
    size: tuple[float, float],
    picture: tuple[int, int],
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[tuple[float, float, float, float], float]:
    """Return the place where a label covers others least (above, inside, ...), and how much."""
    left, top, right, bottom = box
    width, height = size
    options = [(left, top - height), (left, top), (left, bottom), (left, bottom - height)]
    options += [(right - width, top - height), (right - width, top), (right - width, bottom)]
    best, least = None, np.inf
    for x, y in options:
        x = min(max(x, 0), max(picture[0] - 1 - width, 0))
        y = min(max(y, 0), max(picture[1] - 1 - height, 0))
        place = (x, y, x + width, y + height)
        covered = sum(_overlap(place, other) for other in taken)
        if covered < least:
            best, least = place, covered
        if not covered:
            break
    return best, least


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def _luminance(color: tuple[int, int, int]) -> float:
    return float(np.array(color) @ LUMINANCE) / 255.0


def load_font(size: int) -> Font:
    """Return the font of labels and titles, `size` pixels high."""
    return ImageFont.load_default(size=size)


def legible(text: str, size: int) -> tuple[str, Font]:
    """Choose a font with the letters of a text; replace letters that no font has.

    Args:
        text: any text, such as the name of a file.
        size: size of the font in pixels.

    Returns:
        The text, with control characters as question marks, and the font.
    """
    # Accents may be separate characters, as in file names of some systems.
    text = unicodedata.normalize("NFC", text)
    text = "".join(char if char.isprintable() else "?" for char in text)
    font = load_font(size)
    if text.isascii():
        return text, font
    if _wide_font():
        font = ImageFont.truetype(_wide_font(), size)
    missing = bytes(font.getmask("\U0010ffff"))
    known = [c if c.isascii() or bytes(font.getmask(c)) != missing else _plain(c) for c in text]
    return _in_visual_order("".join(known)), font


def distinct(labels: Sequence[str], classes: Sequence[int] | None) -> list[str]:
    """Name classes so that they stay apart where no font has the letters of their names.

    Args:
        labels: names of classes.
        classes: their numbers from 0; None numbers the names that cannot be written.

    Returns:
        The names, but 'class 1' (counted from 1) for what cannot be written, and with that in
        brackets for what can be written in part.
    """
    unwritable: dict[str, int] = {}
    shown = []
    for place, label in enumerate(labels):
        written, _ = legible(label, 12)
        if written.count("?") <= label.count("?"):
            shown.append(label)
            continue
        number = unwritable.setdefault(label, len(unwritable))
        number = number if classes is None else int(classes[place])
        rest = "".join(char for char in written if char.isalnum())
        told = f"class {number + 1}"
        shown.append(f"{label} ({told})" if len(rest) >= _LEGIBLE_PART else told)
    return shown


def _in_visual_order(text: str) -> str:
    """Put letters that are read from right to left in the order in which they are drawn.

    Pillow does this itself where it has the library Raqm.
    """
    if not _is_right(text) or features.check("raqm"):
        return text
    runs = re.findall(r"[^\W\d_]+|[\d.,%:/-]+|.", text, re.DOTALL)
    turned = [run[::-1] if _is_right(run) else run for run in runs]
    strong = next(c for c in text if c.isalpha())
    if _is_right(strong):
        return "".join(turned[::-1])
    ordered: list[str] = []
    waiting: list[str] = []
    for run in [*turned, ""]:
        if _is_right(run) or (waiting and run and not run.strip()):
            waiting.append(run)
            continue
        spaces = len(waiting) - max(
            (n for n, w in enumerate(waiting, 1) if _is_right(w)), default=0
        )
        end = len(waiting) - spaces
        ordered += [*waiting[:end][::-1], *waiting[end:], run]
        waiting = []
    return "".join(ordered)


def _is_right(run: str) -> bool:
    return any(unicodedata.bidirectional(char) in ("R", "AL") for char in run)


@functools.cache
def _wide_font() -> str | None:
    """Find a font with more than ASCII (Pillow's own has no more): mostly matplotlib's."""
    package = importlib.util.find_spec("matplotlib")
    folders = package.submodule_search_locations or () if package else ()
    candidates = [f"{folder}/mpl-data/fonts/ttf/DejaVuSans.ttf" for folder in folders]
    for name in (*candidates, "DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf"):
        try:
            return ImageFont.truetype(name, 10).path
        except OSError:
            continue
    return None


def _plain(char: str) -> str:
    """Write a letter without its accent, or as a question mark."""
    letters = {"ß": "ss", "æ": "ae", "Æ": "Ae", "ø": "o", "Ø": "O", "ð": "d", "þ": "th"}
    base = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
    return letters.get(char) or base or "?"


def line_height(font: Font) -> int:
    """Return the height of a line of text in pixels."""
    left, top, right, bottom = font.getbbox("Ag|")
    return int(bottom - min(top, 0)) + 2


def shortened(text: str, font: Font, width: int) -> str:
    """Cut a text to a width; three dots mark the cut."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
