"""What single values of annotation files mean."""

import json
import math

import numpy as np
import pytest

from ssd_centernet.data.values import read_box, read_flag, read_number, read_whole

BIG = 1234567890123456789


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3.0),
        (-2.5, -2.5),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7.0),
        ("12.5", 12.5),
        (" 12,5 ", 12.5),
        ("-.5", -0.5),
        ("1e3", 1000.0),
        ("+4.", 4.0),
        (True, None),
        (None, None),
        ("", None),
        ("True", None),
        ("1_000", None),
        ("1,234.5", None),
        ("１２", None),
        ("٣", None),
        (math.nan, None),
        (math.inf, None),
        (-math.inf, None),
        (np.float32("nan"), None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        (10**400, None),
        ([1], None),
        ({"x": 1}, None),
    ],
)
def test_number(value, number):
    assert read_number(value) == number
    assert type(read_number(value)) is (type(None) if number is None else float)


@pytest.mark.parametrize(
    ("value", "whole"),
    [
        (101, 101),
        (101.0, 101),
        ("101", 101),
        ("101.0", 101),
        (" 007 ", 7),
        (-1, -1),
        ("-1", -1),
        (np.int32(5), 5),
        (np.float64(5), 5),
        (BIG, BIG),
        (str(BIG), BIG),
        (f"{BIG}.0", BIG),
        (2**63 - 1, 2**63 - 1),
        (2**63, None),
        ("9999999999999999999", None),
        ("12345678901234567890", None),
        (float(BIG), None),
        (101.5, None),
        ("101.5", None),
        ("101,000", None),
        ("1e3", None),
        ("000000000139.jpg", None),
        ("１０１", None),
        ("", None),
        (True, None),
        (None, None),
        (math.nan, None),
        (math.inf, None),
        ([101], None),
    ],
)
def test_whole(value, whole):
    assert read_whole(value) == whole
    assert type(read_whole(value)) is (type(None) if whole is None else int)


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        (0, False),
        (1, True),
        (0.0, False),
        (1.0, True),
        ("0", False),
        ("1", True),
        (" 0.0", False),
        ("1.0", True),
        ("false", False),
        ("True", True),
        ("FALSE", False),
        (False, False),
        (True, True),
        (np.bool_(False), False),
        (np.int64(1), True),
        (None, None),
        ("", None),
        (-1, None),
        (2, None),
        ("-1", None),
        ("no", None),
        (math.nan, None),
        ([], None),
        ([0], None),
        ({}, None),
    ],
)
def test_flag(value, flag):
    assert read_flag(value) is flag


@pytest.mark.parametrize(
    "value",
    [
        [10, 20.0, 30, 40.5],
        (10, 20, 30, 40.5),
        np.array([10, 20, 30, 40.5]),
        [[10, 20, 30, 40.5]],
        ["10", "20.0", "30", "40,5"],
        {"x": 10, "y": 20, "width": 30, "height": 40.5},
        {"h": "40.5", "w": "30", "y": "20", "x": "10"},
        {"x": 10, "y": 20, "width": 30, "w": "30", "height": 40.5, "h": 40.5, "cx": 25},
        {"left": 10, "top": 20, "width": 30, "height": 40.5},
        {"X": 10, "Y": 20, "Width": 30, "Height": 40.5, "rotation": 0},
        "[10, 20, 30, 40.5]",
        "10,20,30,40.5",
        "10 20 30 40,5",
        "(10; 20; 30; 40,5)",
    ],
)
def test_box(value):
    assert read_box(value) == (10.0, 20.0, 30.0, 40.5)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        10,
        [],
        [10, 20, 30],
        [10, 20, 30, 40, 50],
        [10, 20, 30, None],
        [10, 20, 30, math.nan],
        [10, 20, 30, "４０"],
        [10, 20, 30, True],
        [[10, 20], [30, 40], 1, 1],
        [[10, 20], [30, 40]],
        [[[10, 20, 30, 40]]],
        {"xmin": 10, "ymin": 20, "xmax": 30, "ymax": 40},
        {"x": 10, "y": 20, "width": 30},
        {"x": 10, "left": 11, "y": 20, "width": 30, "height": 40},
        {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 12.5},
        {10, 20, 30, 40},
        "",
        "abcd",
        "10,20,30",
        np.array(4.0),
    ],
)
def test_no_box(value):
    assert read_box(value) is None


def test_values_of_json_text():
    """JSON of Python writes NaN and Infinity: they are no numbers, no ids, no flags."""
    values = json.loads("[NaN, Infinity, -Infinity, 1e400]")
    for read in (read_number, read_whole, read_flag):
        assert [read(value) for value in values] == [None] * 4
