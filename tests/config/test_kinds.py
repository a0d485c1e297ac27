"""Values of a wrong kind are told with parameter, value and place, before anything is built."""

import pytest

from ssd_centernet import config
from tests.tiny import RUN_RECIPE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SSD.backbone = 3", r"SSD\.backbone is 3, expected a part of the library.*mine\.gin, l"),
        ("SSD.neck = (1, 2)", r"SSD\.neck is \(1, 2\), expected a part"),
        ("build_detector.model = 7", r"build_detector\.model is 7, expected a part"),
        (
            "IMAGE_SIZE = (1, 2, 3, 4, 5, 6)\nSSD.image_size = %IMAGE_SIZE",
            r"is \(1, 2, 3, 4, 5, 6\) through %IMAGE_SIZE, expected 2 values in brackets",
        ),
        ("SSD.image_size = 300", "SSD.image_size is 300, expected 2 values in brackets"),
        ("SSD.image_size = ('a', 2)", "expected a whole number"),
        ("SSD.image_size = (30.5, 2)", "expected a whole number"),
        ("ResNet.blocks = 3", "ResNet.blocks is 3, expected values in brackets"),
        ("ResNet.blocks = (1, None)", "expected a whole number"),
        ("ResNet.stem_width = (8,)", r"ResNet\.stem_width is \(8,\), expected a whole number"),
        ("ResNet.stem_width = 1e999", "ResNet.stem_width is inf, expected a whole number"),
        ("ResNet.norm_epsilon = [1]", "expected a number"),
        ("SIDE = 64\nSSD.image_size = (64, %SIDE)", None),
        ("SSDAugment.compiled = 1", "SSDAugment.compiled is 1, expected True or False"),
        ("SSD.neck = @SSD()", r"SSD\.neck = @SSD\(\) would be built inside of itself"),
        ("SSD.neck = @a/SSD()\na/SSD.neck = @SSDExtraLevels()", None),
        ("A = %B\nB = (1, %A)\nSSD.image_size = %A", "would be built inside of itself"),
        ("SSD.neck = @x/ResNet()\nResNet.output_groups = @SSD()", "inside of itself"),
    ],
)
def test_a_value_of_another_kind_is_told_with_its_place(tmp_path, text, message):
    path = tmp_path / "mine.gin"
    path.write_text(f"{RUN_RECIPE}\n{text}\n")
    if message is None:
        config.parse([path])
        return
    with pytest.raises(config.ConfigError, match=message) as caught:
        config.parse([path])
    assert "mine.gin, line" in str(caught.value)


def test_a_long_chain_of_names_is_refused_and_no_stack_runs_over(tmp_path):
    lines = [f"A{n} = %A{n + 1}" for n in range(5000)]
    with pytest.raises(config.ConfigError, match="is nested too deep"):
        config.parse([], ["\n".join([*lines, "A5000 = 1"])])


def test_every_recipe_has_values_of_the_right_kind():
    for name in config.recipes():
        config.parse([name])
