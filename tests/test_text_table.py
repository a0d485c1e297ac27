"""Tables for a terminal, by hand."""

from ssd_centernet.text_table import text_table

ROWS = [["class", "AP", "note"], ["cat", "0.5", ""], ["traffic light", "-", "few"]]


def test_words_to_the_left_and_numbers_to_the_right():
    assert text_table(ROWS, words=(0, 2)).split("\n") == [
        "class           AP  note",
        "------------------------",
        "cat            0.5",
        "traffic light    -  few",
    ]


def test_without_a_rule():
    assert text_table([["", "fp32"], ["AP", "0.25"]], rule=False) == "    fp32\nAP  0.25"
