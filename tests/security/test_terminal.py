"""Names of strangers reach the terminal as text: nothing in them turns it, moves it or ends it."""

import io
import json
import sys

import pytest
from PIL import Image

from ssd_centernet.plain_text import PlainStream, plain, plain_streams
from ssd_centernet.text_table import text_table
from tests.process import ROOT, bash, cli, environment

EVIL = "cat\x1b[2J\x1b]0;pwned\x07\x9b31m\u202egnp\u2066\u0085\u2028\x00\x08\r"
ACTING = set(EVIL) - set("cat[2J]0;pwned31mgnp")


def test_what_a_terminal_obeys_is_written_as_escapes():
    assert plain(EVIL) == (r"cat\x1b[2J\x1b]0;pwned\x07\x9b31m\u202egnp\u2066\x85\u2028\x00\x08\r")
    assert plain("a\nb\tc") == "a\nb\tc"
    assert plain("a\nb\tc", one_line=True) == r"a\nb\tc"
    assert plain("half \udc80") == r"half \udc80"


@pytest.mark.parametrize(
    "text",
    [
        "façade Größe",
        "猫と犬",
        "кот",
        "חתול قط",
        "👩‍👩‍👧 🐈‍⬛",
        "e\u0301",
        "naïve\u00a0x",
        "\u200f",
    ],
)
def test_every_script_prints_as_it_is(text):
    assert plain(text, one_line=True) == text


def test_streams_are_plain_and_progress_bars_still_return():
    class Owner:
        stdout, stderr = io.StringIO(), None

    with plain_streams(Owner):
        print("a", EVIL, "z", file=Owner.stdout)
        Owner.stdout.write("\r 10%\r")
        Owner.stdout.writelines(["\r\x1b[A", "b\rc"])
        assert not Owner.stdout.isatty() and Owner.stderr is None
    assert isinstance(Owner.stdout, io.StringIO)
    written = Owner.stdout.getvalue()
    assert written.endswith("\n\r 10%\r\r\\x1b[Ab\\rc")
    assert not (ACTING - {"\r"}) & set(written)


def test_cells_of_tables_stay_in_their_line():
    table = text_table([["class", "AP"], ["a\nb\x1b[1m", "1"]])
    assert table.splitlines()[2].split("  ")[0] == r"a\nb\x1b[1m"


def test_the_rest_of_a_stream_is_its_own():
    stream = PlainStream(sys.stdout)
    assert stream.encoding == sys.stdout.encoding


def _shown(ended, *names):
    """Nothing acts in what a command printed, and the strange names are in it."""
    assert not (ACTING - {"\r"}) & set(ended.text), ended
    for name in names:
        assert name in ended.text, ended
    return ended


def test_file_names_class_names_settings_and_errors_are_shown_safely(tmp_path, warm):
    name = "x\x1b[31m\u202e猫.png"
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / name)
    images = [{"id": 1, "file_name": name, "width": 40, "height": 30}]
    images += [{"id": 2, "file_name": f"gone{name}", "width": 40, "height": 30}]
    boxes = [{"id": n, "image_id": 1, "category_id": 1, "bbox": [2, 2, 9, 9]} for n in (1, 2)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    options = {"python": warm, "cwd": tmp_path, "status": None}
    convert = ("convert", "--annotations=a.json", "--image_dir=images", "--output_dir=data")
    _shown(cli(*convert, **options), r"gonex\x1b[31m\u202e猫.png")
    # A name of a class is in many files: one that does not print is refused, in words that do.
    content |= {"images": images[:1], "categories": [{"id": 1, "name": "\u202ecat\x85"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    _shown(cli(*convert, **options), r"needs a name that prints, got '\u202ecat\x85'")
    found = [{"image_id": 1, "category_id": 1, "bbox": [2, 2, 9, 9], "score": 0.9}]
    (tmp_path / "found.json").write_text(json.dumps(found))
    truth = {**content, "categories": [{"id": 1, "name": EVIL}]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    scored = cli("evaluate", "--detections=found.json", "--annotations=truth.json", **options)
    _shown(scored, r"in its name 'cat\x1b[2J\x1b]0;pwned\x07\x9b31m\u202egnp")
    _shown(cli("show_anchors", f"--gin_file={name}", "--data_dir=data", **options), r"x\x1b[31m")
    _shown(cli(f"{name}", **options), "No such command")
    _shown(cli("train", f"--{name}=1", **options), "All flags:")


def test_help_that_nobody_reads_to_its_end_is_no_error(warm):
    """`CMD --help | head` closes the pipe; the status is that of a closed pipe."""
    script = f'"{warm}" -m ssd_centernet train --help | head -n 0; echo "${{PIPESTATUS[0]}}"'
    ended = bash(f"set +o pipefail; {script}", env=environment(PYTHONUNBUFFERED=1), cwd=ROOT)
    assert ended.stdout.strip() in ("0", "141") and not ended.stderr, ended
