"""Every source that code and pages cite can be opened: a section of docs/reference, or a paper."""

import re

import pytest

from tests.docs.pages import PAGES, ROOT, SPECIFICATIONS

_FOLDERS = ("ssd_centernet", "tests", "tools", "benchmarks", "scripts", "gin_configs")
_FILES = [
    *PAGES,
    *(
        path
        for folder in _FOLDERS
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".py", ".gin", ".sh", ".cc") and path.name != "test_sources.py"
    ),
]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in _FILES}
SECTIONS = {
    page.stem: set(re.findall(r"^##+ (\d[\d.]*\d|\d)", page.read_text(encoding="utf-8"), re.M))
    for page in SPECIFICATIONS
}
_CITED = re.compile(r"docs/reference/(\w+)\.md(?:, sections? ([^;`\n]*))?")
# Behind "Source:" on its line, or one a line below it and further in.
_SOURCES = re.compile(r"^([ #]*)(?:.*\. )?Source:(?: (.+)|((?:\n\1    .+)+))$", re.M)
# Paper -> its number. Whoever cites another one looks its number up and adds it.
PAPERS = {
    "ByteTrack: Multi-Object Tracking by Associating Every Detection Box": "2110.06864",
    "Quantizing deep convolutional networks for efficient inference: A whitepaper": "1806.08342",
    "Distilling the Knowledge in a Neural Network": "1503.02531",
    "Training Deep Nets with Sublinear Memory Cost": "1604.06174",
    "Weighted boxes fusion: Ensembling boxes from different object detection models": "1910.13302",
    "RandAugment: Practical Automated Data Augmentation": "1909.13719",
    "Random Erasing Data Augmentation": "1708.04896",
    "Improved Regularization of Convolutional Neural Networks with Cutout": "1708.04552",
    "YOLOv4: Optimal Speed and Accuracy of Object Detection": "2004.10934",
    "YOLOX: Exceeding YOLO Series in 2021": "2107.08430",
    "Bag of Freebies for Training Object Detection Neural Networks": "1902.04103",
    "Simple Copy-Paste is a Strong Data Augmentation Method": "2012.07177",
    "Decoupled Weight Decay Regularization": "1711.05101",
    "Large Batch Optimization for Deep Learning": "1904.00962",
    "Training-Time-Friendly Network for Real-Time Object Detection": "1909.00700",
    "Object detection via a multi-region & semantic segmentation-aware CNN model": "1505.01749",
    "Bridging the Gap Between Anchor-based and Anchor-free Detection": "1912.02424",
    "TOOD: Task-aligned One-stage Object Detection": "2108.07755",
    "PP-YOLOE: An evolved version of YOLO": "2203.16250",
    "Generalized Focal Loss": "2006.04388",
    "VarifocalNet: An IoU-aware Dense Object Detector": "2008.13367",
    "Generalized Intersection over Union": "1902.09630",
    "Distance-IoU Loss": "1911.08287",
    "Dynamic Label Assignment for Object Detection by Combining Predicted IoUs and Anchor IoUs": (
        "2201.09396"
    ),
    "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour": "1706.02677",
    "CornerNet: Detecting Objects as Paired Keypoints": "1808.01244",
    "Deep Residual Learning for Image Recognition": "1512.03385",
    "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks": "1905.11946",
    "Enhancing Geometric Factors in Model Learning and Inference for Object Detection and Instance "
    "Segmentation": "2005.03572",
    "FCOS: Fully Convolutional One-Stage Object Detection": "1904.01355",
    "Feature Pyramid Networks for Object Detection": "1612.03144",
    "Focal Loss for Dense Object Detection": "1708.02002",
    "Mixed Precision Training": "1710.03740",
    "Objects as Points": "1904.07850",
    "ParseNet: Looking Wider to See Better": "1506.04579",
    "SSD: Single Shot MultiBox Detector": "1512.02325",
    "Stacked Hourglass Networks for Human Pose Estimation": "1603.06937",
    "Very Deep Convolutional Networks for Large-Scale Image Recognition": "1409.1556",
    "YOLO9000: Better, Faster, Stronger": "1612.08242",
}


def _cited(text):
    """Return (page, numbers of sections) for each citation of a text, ranges spelled out."""
    found = []
    for page, sections in _CITED.findall(text):
        numbers = []
        for first, last in re.findall(
            r"(\d[\d.]*\d|\d)(?: to (\d[\d.]*\d|\d))?",
            re.sub(r"\(.*?\)|, steps? .*", "", sections),
        ):
            chapter, low = re.fullmatch(r"(.*?)(\d+)", first).groups()
            high = (last or first).removeprefix(chapter)
            numbers += [f"{chapter}{number}" for number in range(int(low), int(high) + 1)]
        found.append((page, numbers))
    return found


def _sources(text):
    """Return the entries of all `Source:` of a text."""
    return [
        entry.strip(" #")
        for _, same_line, below in _SOURCES.findall(text)
        for entry in (same_line or below.strip()).split("\n")
    ]


def test_citations_are_read():
    text = (
        "Source: docs/reference/a.md, sections 2 to 4 and 13\n"
        "# Source: docs/reference/b.md, section 7.1 (fields 3 and 4)\n"
        "    Short. Source: docs/reference/c.md, sections 6.2, 6.3 and 16; docs/reference/d.md\n\n"
        "    Source:\n"
        "        docs/reference/e.md, sections 7.1 to 7.3\n"
        "        docs/reference/f.md, sections 5.2 (x 1) and 15.3 (legacy)\n"
        "        docs/reference/g.md, section 5.2, steps 2 and 3\n"
        '    """\n'
    )
    assert _cited(text) == [
        ("a", ["2", "3", "4", "13"]),
        ("b", ["7.1"]),
        ("c", ["6.2", "6.3", "16"]),
        ("d", []),
        ("e", ["7.1", "7.2", "7.3"]),
        ("f", ["5.2", "15.3"]),
        ("g", ["5.2"]),
    ]
    assert [entry[:19] for entry in _sources(text)] == [f"docs/reference/{p}.md" for p in "abcefg"]


def test_cited_pages_and_sections_exist():
    pages = {"README", *SECTIONS}
    citations = [(where, *one) for where, text in TEXTS.items() for one in _cited(text)]
    assert len(citations) > 100
    assert not [one for one in citations if one[1] not in pages]
    assert not [one for one in citations if set(one[2]) - SECTIONS.get(one[1], set())]


def test_every_source_is_a_section_a_paper_or_an_address():
    code = {where: text for where, text in TEXTS.items() if not where.endswith(".md")}
    entries = [(where, entry) for where, text in code.items() for entry in _sources(text)]
    assert len(entries) > 100
    form = re.compile(r"docs/reference/(\w+\.md, section|README\.md)|.+ \(arXiv:[\d.]+\)|https://")
    assert not [one for one in entries if not form.match(one[1])]


@pytest.mark.parametrize("where", [name for name, text in TEXTS.items() if "arXiv" in text])
def test_papers_are_cited_by_title_and_number(where):
    text = " ".join(TEXTS[where].split())
    known = sum(text.count(f"{title} (arXiv:{number})") for title, number in PAPERS.items())
    assert text.count("arXiv") == known, "a title or number that PAPERS does not have"


def test_sources_have_no_other_form():
    other = re.compile(r"\bet al\b.*|arxiv\.org.*|reference specification.*", re.IGNORECASE)
    assert not [(where, m[0]) for where, text in TEXTS.items() for m in other.finditer(text)]


def test_tests_and_code_that_pages_name_exist():
    defined = {
        where: set(re.findall(r"^ *(?:def |class |(?=\w+(?:: .+)? = ))(\w+)", text, re.M))
        for where, text in TEXTS.items()
        if where.endswith(".py")
    }
    tests = {name for where in defined if where.startswith("tests/") for name in defined[where]}
    pages = {where: text for where, text in TEXTS.items() if where.endswith(".md")}
    # A name of two words may be that of a setting.
    named = [
        (where, name)
        for where, text in pages.items()
        for name in re.findall(r"`(?:[\w/]+\.py: )?(test_\w+_\w+_\w+)`", text)
    ]
    assert len(named) > 40
    assert not [one for one in named if one[1] not in tests]
    of_files = [
        (where, *one)
        for where, text in pages.items()
        for one in re.findall(r"`([\w/]+\.py)(?:: (\w+))?`", text)
    ]
    assert len(of_files) > 100
    for where, file, name in of_files:
        found = [path for path in defined if f"/{path}".endswith(f"/{file}")]
        # Files of other systems are named too.
        ours = file.startswith(("tests/", "ssd_centernet/"))
        assert not ours or (ROOT / file).exists(), (where, file)
        assert not name or not (ours or found) or any(name in defined[path] for path in found), (
            f"{where}: {file} has no {name}"
        )
