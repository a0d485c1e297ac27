"""Every published network with few channels, for tests that train it on a CPU."""

from pathlib import Path

SIZE = (96, 96)

_FOLDER = Path(__file__).resolve().parents[1] / "scripts" / "smoke"


def _settings(path: Path) -> tuple[str, ...]:
    """Return the settings of a file, one a line, but for the size of images."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith(("#", "IMAGE_SIZE")))


# Settings that leave the kinds of layers and their precision as the recipe has them; run scripts
# lay them over a recipe too.
NARROW = {path.stem: _settings(path) for path in sorted(_FOLDER.glob("*.gin"))}
# The same networks with other assigners and losses: recipe -> the published one.
PLUS = {
    f"{name}_plus": name
    for name in ("ssd300_vgg16", "ssd320_resnet50_fpn", "centernet_resnet101_fpn")
}
NARROW |= {plus: NARROW[published] for plus, published in PLUS.items()}

# The run scripts train them: tests/scripts/test_smoke.py.
TRAINED_BY_SCRIPTS = (
    "ssd300_resnet34",
    "ssd320_resnet50_fpn",
    "ssd300_vgg16",
    "centernet_resnet101_fpn",
    "centernet_hourglass104",
)
