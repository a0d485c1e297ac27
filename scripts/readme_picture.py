"""Make the picture of README from what scripts/demo.sh leaves behind.

python scripts/readme_picture.py runs/demo/predictions docs/images/demo.png
"""

import sys
from pathlib import Path

from PIL import Image

NAMES = ("001002", "001003", "001007", "001009", "001011", "001012")
COLUMNS, CELL, GAP = 3, (392, 200), 6
# Renders are noisy, which PNG stores badly; fewer colours are hardly seen.
NUM_COLOURS = 256


def main(folder: str, output: str) -> None:
    """Put six drawings, each truth beside detections, on one small sheet."""
    rows = -(-len(NAMES) // COLUMNS)
    size = [COLUMNS * (CELL[0] + GAP) + GAP, rows * (CELL[1] + GAP) + GAP]
    drawings = [Image.open(Path(folder) / f"{name}.png").convert("RGB") for name in NAMES]
    sheet = Image.new("RGB", size, drawings[0].getpixel((0, 0)))
    for place, drawing in enumerate(drawings):
        drawing.thumbnail(CELL, Image.Resampling.LANCZOS)
        row, column = divmod(place, COLUMNS)
        x = GAP + column * (CELL[0] + GAP) + (CELL[0] - drawing.width) // 2
        sheet.paste(drawing, (x, GAP + row * (CELL[1] + GAP) + (CELL[1] - drawing.height) // 2))
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    small = sheet.quantize(NUM_COLOURS, Image.Quantize.MAXCOVERAGE, 5, dither=Image.Dither.NONE)
    small.save(output, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
