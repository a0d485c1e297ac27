"""torchvision's SSD300 VGG-16 with random weights: train step, inference and input."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import torch
from torchvision.models.detection import ssd300_vgg16

from contestants.likely import SPREAD, background_bias

_CLASSES, _OBJECTS = 81, 7


def _network(options: dict, **settings) -> torch.nn.Module:
    torch.manual_seed(0)
    # As TensorFlow does by itself on a GPU.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    network = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=_CLASSES, **settings)
    if options["form"] == "channels_last":
        network = network.to(memory_format=torch.channels_last)
    return network.to(_device(options))


def _device(options: dict) -> str:
    return "cuda" if options.get("device") == "gpu" else "cpu"


def train_step(options: dict):
    """Train on a batch of noise with seven objects an image, as the reference script does it."""
    network, device = _network(options).train(), _device(options)
    rng = np.random.default_rng(0)
    count = options["batch_size"]
    images = list(torch.from_numpy(rng.random((count, 3, 300, 300), np.float32)))
    if options["form"] == "channels_last":
        images = [_last(image) for image in images]
    images = [image.to(device) for image in images]
    targets = []
    for _ in range(count):
        extent = rng.uniform(0.1, 0.7, (_OBJECTS, 2))
        corner = rng.uniform(0.0, 1.0, (_OBJECTS, 2)) * (1.0 - extent)
        boxes = 300.0 * np.concatenate([corner, corner + extent], axis=1)
        labels = rng.integers(1, _CLASSES, _OBJECTS)
        values = {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.tensor(labels)}
        targets.append({name: value.to(device) for name, value in values.items()})
    # Of references/detection/train.py; at its rate of 0.002 random weights would diverge.
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)

    def precision():
        if options["dtype"] == "bf16":
            return torch.autocast(device, torch.bfloat16)
        return contextlib.nullcontext()

    def work(units: int) -> int:
        for _ in range(units):
            with precision():
                loss = sum(network(images, targets).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        value = float(loss.detach())
        if not np.isfinite(value):
            raise RuntimeError(f"the loss is {value}: its time would mean nothing.")
        return units * count

    return work


def detect(options: dict):
    """Detect on pictures of 300 x 300, from uint8 to detections."""
    # The score threshold is ours: at torchvision's 0.01 it would have more to do.
    network, device = _network(options, score_thresh=0.02).eval(), _device(options)
    one = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    picture = torch.from_numpy(one).permute(2, 0, 1)
    logits = []
    head = network.head.classification_head
    handle = head.register_forward_hook(lambda layer, given, made: logits.append(made))
    with torch.inference_mode():
        network([picture.to(device) / 255.0])
        spread = float(logits[-1].std())
        for layer in head.module_list:
            layer.weight.mul_(SPREAD / spread)
        network([picture.to(device) / 255.0])
        bias = background_bias(logits[-1][0].cpu().numpy(), network.score_thresh)
        for layer in head.module_list:
            layer.bias.view(-1, _CLASSES)[:, 0] += bias
    handle.remove()
    if options["form"] == "compile":
        # The network; what selects detections has shapes that depend on values.
        network.backbone = torch.compile(network.backbone)
        network.head = torch.compile(network.head)
    count = options["batch_size"]
    pictures = [picture] * count

    def work(units: int) -> int:
        with torch.inference_mode():
            for _ in range(units):
                found = network([one.to(device) / 255.0 for one in pictures])
                # Detections on the host, as ours are.
                found = [{name: value.cpu() for name, value in one.items()} for one in found]
        if not all(len(one["scores"]) for one in found):
            raise RuntimeError("nothing was detected: its time would mean nothing.")
        return units * count

    return work


def _last(image: torch.Tensor) -> torch.Tensor:
    """Lay an image [3, H, W] out with the channels last."""
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


class _Photographs(torch.utils.data.Dataset):
    """JPEGs with boxes and labels, through the transforms that the reference trains SSD with."""

    def __init__(self, path: str, length: int):
        from torchvision import tv_tensors
        from torchvision.transforms import v2

        with np.load(path) as values:
            self._files = [values[f"file{i}"].tobytes() for i in range(int(values["count"]))]
            self._boxes = [values[f"boxes{i}"] for i in range(len(self._files))]
        self._length, self._tv = length, tv_tensors
        self._transforms = v2.Compose(
            [
                v2.RandomPhotometricDistort(),
                v2.RandomZoomOut(fill=(123, 117, 104)),
                v2.RandomIoUCrop(),
                v2.RandomHorizontalFlip(p=0.5),
                v2.PILToTensor(),
                v2.ToDtype(torch.float, scale=True),
                v2.ConvertBoundingBoxFormat(tv_tensors.BoundingBoxFormat.XYXY),
                v2.SanitizeBoundingBoxes(),
            ]
        )
        # The network itself does this to every image.
        self._resize = v2.Resize((300, 300), antialias=False)
        self._normalize = v2.Normalize((0.48235, 0.45882, 0.40784), (1 / 255.0,) * 3)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int):
        from PIL import Image

        index %= len(self._files)
        picture = Image.open(io.BytesIO(self._files[index])).convert("RGB")
        width, height = picture.size
        boxes = self._boxes[index]
        target = {
            "boxes": self._tv.BoundingBoxes(
                boxes[:, :4], format="XYXY", canvas_size=(height, width), dtype=torch.float32
            ),
            "labels": torch.from_numpy(boxes[:, 4].astype(np.int64)),
        }
        image, target = self._transforms(picture, target)
        image, target = self._resize(image, target)
        return self._normalize(image), target


def read_input(options: dict):
    """Read batches with a `DataLoader` of two workers."""
    torch.set_num_threads(1)
    length = 1 << 30
    loader = torch.utils.data.DataLoader(
        _Photographs(options["photographs"], length),
        batch_size=options["batch_size"],
        num_workers=2,
        collate_fn=lambda pairs: (torch.stack([one for one, _ in pairs]), [b for _, b in pairs]),
    )
    iterator = iter(loader)

    def work(units: int) -> int:
        for _ in range(units):
            next(iterator)
        return units * options["batch_size"]

    return work
