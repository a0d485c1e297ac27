"""Detect objects in pictures with a TFLite file, without the library that made it.

    python detect.py street.jpg photos/*.png --draw=drawn

It needs numpy, pillow and ai-edge-litert (or tflite-runtime), and beside the TFLite file its
model_card.json. It prints a line of JSON for each picture; boxes are x, y, width and height in
pixels of the picture, turned as its EXIF orientation says.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

HERE = Path(__file__).resolve().parent
NAMES = ("full_int8", "int8", "", "16x8", "int8_heads")


def resized(pixels, size):
    """Resize uint8 [H, W, 3]: bilinear, half-pixel centres, not antialiased, whole numbers."""
    top, bottom, down = neighbours(pixels.shape[0], size[0])
    left, right, along = neighbours(pixels.shape[1], size[1])
    columns = pixels[:, left] + (pixels[:, right] - pixels[:, left].astype("f4")) * along[:, None]
    rows = columns[top] + (columns[bottom] - columns[top]) * down[:, None, None]
    return np.round(rows).astype(np.uint8)


def neighbours(before, after):
    """Return the two source positions of each position of a side, and the share of the second."""
    scale = np.float32(before) / np.float32(after)
    places = (np.arange(after, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    first = np.floor(places)
    second = np.ceil(places).astype(int).clip(max=before - 1)
    return first.astype(int).clip(min=0), second, places - first


def fitted(pixels, frame, keep_aspect):
    """Make a picture of the file's size; return the share of it that holds the picture, too."""
    size, sides = np.array(frame), np.float32(pixels.shape[:2])
    if keep_aspect:  # Black at the bottom and the right.
        size = np.round(sides * np.min(np.float32(frame) / sides)).clip(1, frame).astype(int)
    image = np.zeros((*frame, 3), np.uint8)
    image[: size[0], : size[1]] = resized(pixels, size)
    return image, np.float32(size / np.array(frame))


def upright(path):
    """Read a picture as it is shown, in RGB of 8 bits; grey of 16 bits keeps the upper 8 in use."""
    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file)
        if picture.mode.startswith("I"):  # Pillow would make white of all above 255.
            levels = np.asarray(picture)
            shift = 8 if levels.max() > 4095 else 4 if levels.max() > 255 else 0
            picture = Image.fromarray((levels >> shift).clip(0, 255).astype(np.uint8))
        elif picture.mode == "F":
            raise ValueError("grey levels of an unknown range: save it with 8 bits")
        return picture.convert("RGB")


class Detector:
    """A TFLite file with what its model card says of it."""

    def __init__(self, path):
        """Load a file; its model card lies beside it."""
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            from tflite_runtime.interpreter import Interpreter
        card = json.loads((path.parent / "model_card.json").read_text(encoding="utf-8"))
        self.names = [label["name"] for label in card["labels"]]
        self.keep_aspect = card["preprocessing"]["keep_aspect"]
        # Held, as the function below does not keep it.
        self.interpreter = Interpreter(str(path))
        self.run = self.interpreter.get_signature_runner()
        self.batch, *self.frame, _ = self.run.get_input_details()["images"]["shape"].tolist()
        self.decode = None
        if "boxes" not in self.run.get_output_details():  # The network alone, in integers.
            sys.path.insert(0, str(path.resolve().parent))
            import decode_heads

            settings = decode_heads.load(path.with_suffix(".npz"))
            self.decode = lambda maps: decode_heads.decode(maps, settings)

    def __call__(self, pixels):
        """Detect on uint8 [H, W, 3]: boxes (ymin, xmin, ymax, xmax) in pixels, scores, classes."""
        image, extent = fitted(pixels, self.frame, self.keep_aspect)
        found = self.run(images=np.repeat(image[None], self.batch, axis=0))
        found = {name: values[0] for name, values in found.items()}
        if self.decode is not None:
            boxes, scores, classes = self.decode(found)
        else:
            boxes, scores, classes = (
                found[name][: int(found["count"])] for name in ("boxes", "scores", "classes")
            )
        return boxes / np.tile(extent, 2) * np.tile(pixels.shape[:2], 2), scores, classes


def main():
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    files = [HERE / f"model{'_' * bool(name)}{name}.tflite" for name in NAMES]
    model = next((file for file in files if file.is_file()), files[0])
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--model", type=Path, default=model, help="default: %(default)s")
    parser.add_argument("--min_score", type=float, default=0.3, help="default: %(default)s")
    parser.add_argument("--draw", type=Path, help="a folder for drawn pictures")
    chosen = parser.parse_args()
    for file in (chosen.model, chosen.model.parent / "model_card.json"):
        if not file.exists():
            parser.error(f"there is no {file}: --model is a TFLite file beside its model_card.json")
    try:
        detect = Detector(chosen.model)
    except ImportError as error:
        parser.error(f"{error}: pip install ai-edge-litert numpy pillow")
    except Exception as error:  # The runtime raises many kinds.
        parser.error(f"{chosen.model} and the files beside it are not whole: {error!r}")
    names, unread = set(), 0
    for path in chosen.pictures:
        try:
            picture = upright(path)
        except Exception as error:  # Pillow raises many kinds.
            print(f"not read: {path}: {error}", file=sys.stderr)
            unread += 1
            continue
        found = detect(np.asarray(picture))
        detections = [
            {"class": detect.names[number], "score": round(float(score), 5),
             "bbox": [round(float(n), 2) for n in (x1, y1, x2 - x1, y2 - y1)]}
            for (y1, x1, y2, x2), score, number in zip(*found, strict=True)
            if score >= chosen.min_score
        ]  # fmt: skip
        print(json.dumps({"file": str(path), "detections": detections}), flush=True)
        if chosen.draw:
            pen = ImageDraw.Draw(picture)
            for one in detections:
                x, y, width, height = one["bbox"]
                pen.rectangle([x, y, x + width, y + height], outline="#ffd60a", width=2)
                pen.text((x + 3, y + 1), f"{one['class']} {one['score']:.0%}", fill="#ffd60a")
            chosen.draw.mkdir(parents=True, exist_ok=True)
            name, number = path.stem, 1
            while name.lower() in names:  # Of another folder, or with another ending.
                number += 1
                name = f"{path.stem}_{number}"
            names.add(name.lower())
            picture.save(chosen.draw / f"{name}.png")
    return 1 if unread else 0


if __name__ == "__main__":
    sys.exit(main())
