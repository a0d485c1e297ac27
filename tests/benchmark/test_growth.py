"""What conversion and evaluation cost as a split grows, in a tiny run of the benchmark."""

import math
import re

from tests.process import ROOT, run

PARTS = ("convert", "read", "first batch", "metric")


def test_every_size_has_a_line_and_every_part_its_growth(warm):
    script = ROOT / "benchmarks" / "growth.py"
    said = run(warm, script, "--images", "40", "160", "--shards", "1", "5").stdout
    head, *rows = said.splitlines()
    assert re.findall(r"(\w+(?: \w+)*), ms", head) == [*PARTS]
    sizes = [("40", "1"), ("40", "5"), ("160", "1"), ("160", "5")]
    assert [tuple(row.split()[:2]) for row in rows[:4]] == sizes
    for row in rows[:4]:
        numbers = [float(cell) for cell in row.split()[2:]]
        assert len(numbers) == 2 * len(PARTS)
        assert all(0 < value < 100 for value in numbers[::2])
        assert all(0 <= value < 1000 for value in numbers[1::2])
    powers = dict(re.findall(r"^(.+): grows with the images to the power of (.+)$", said, re.M))
    assert tuple(powers) == PARTS
    of_an_image = [[float(cell) for cell in row.split()[2::2]] for row in rows[:4]]
    for column, told in enumerate(powers.values()):
        for few, many, power in zip(
            of_an_image[:2], of_an_image[2:], told.split(", "), strict=True
        ):
            # Four times the images; a cost by image that stays the same is the power of 1.
            expected = math.log(4 * many[column] / few[column]) / math.log(4)
            assert abs(float(power) - expected) < 0.05


def test_sizes_that_cannot_be_are_refused(warm):
    ended = run(warm, ROOT / "benchmarks" / "growth.py", "--images", "7", status=2)
    assert "expected at least 8 images, 1 shard and 1 round" in ended.stderr
