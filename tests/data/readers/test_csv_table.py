"""CSV tables: header names, separators, decimal commas, paths and the mistakes made in them."""

import pytest

from ssd_centernet.data.convert_formats import convert_annotations
from ssd_centernet.data.readers.csv_table import read_csv
from ssd_centernet.labels import LabelMap
from tests.data.readers import own_set


@pytest.fixture
def read(tmp_path):
    own_set.write_images(tmp_path / "images")

    def call(text, encoding="utf-8", **options):
        (tmp_path / "boxes.csv").write_text(text, encoding=encoding)
        options = {"split": "train", "image_dir": tmp_path / "images", **options}
        return read_csv(tmp_path / "boxes.csv", **options)

    return call


def boxes(source):
    return [(a["bbox"], a["category_id"]) for a in source.content["annotations"]]


@pytest.mark.parametrize(
    "text",
    [
        "image,xmin,ymin,xmax,ymax,class\na.jpg,1,2,11,12,cat\n",
        "Filename,Width,Height,Class,X Min,Y_Min,XMax,Y-max\na.jpg,40,30,cat,1,2,11,12\n",
        "class;path;x1;y1;x2;y2;weather\ncat;a.jpg;1,0;2,0;11,0;12;sunny\n",
        "image\tleft\ttop\tright\tbottom\tlabel\r\na.jpg\t1\t2\t11\t12\tcat\r\n",
        "a.jpg,1,2,11,12,cat\n",
        '"a.jpg","1.0"," 2","11","12","cat"\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_headers_separators_and_encodings(text, encoding, read):
    source = read(text, encoding)
    assert boxes(source) == [([1, 2, 10, 10], 1)]
    assert [image["file_name"] for image in source.content["images"]] == ["a.jpg"]
    # The other two pictures of the folder are in no row.
    assert own_set.reasons(source) == {"picture that no annotation lists: not used": 2}
    assert list(source.report.to_dict()) == ["notes"]


def test_header_that_lacks_a_column(read):
    with pytest.raises(ValueError, match="lacks ymax: it is image, xmin, ymin, xmax, class"):
        read("image,xmin,ymin,xmax,class\na.jpg,1,2,11,cat\n")
    with pytest.raises(ValueError, match="has image twice"):
        read("image,file,xmin,ymin,xmax,ymax,class\na.jpg,a.jpg,1,2,11,12,cat\n")
    with pytest.raises(ValueError, match="is empty"):
        read("\n\n")


def test_decimal_commas_between_commas(read):
    with pytest.raises(
        ValueError, match=r"line 2 has 7 columns, expected 6.*separator must be ';'"
    ):
        read("image,xmin,ymin,xmax,ymax,class\na.jpg,1,5,2,11,12,cat\n")


def test_other_encodings_are_refused(read):
    with pytest.raises(ValueError, match="not UTF-8 text"):
        read("image,xmin,ymin,xmax,ymax,class\na.jpg,1,2,11,12,käse\n", "latin-1")


def test_images_without_objects_and_bad_rows(read):
    source = read(
        "image,xmin,ymin,xmax,ymax,class\n"
        "a.jpg,11,12,1,2,cat\n"  # swapped
        "b.jpg,,,,,\nc.png\n"
        "a.jpg,1,2,x,12,cat\na.jpg,1,2,11,12,\n,1,2,11,12,cat\n"
    )
    assert boxes(source) == [([1, 2, 10, 10], 1)]
    assert [i["file_name"] for i in source.content["images"]] == ["a.jpg", "b.jpg", "c.png"]
    report = source.report.to_dict()
    assert report["repaired boxes"]["corners swapped: put in order"]["first"] == ["line 2"]
    assert sorted(e["first"][0] for e in report["dropped boxes"].values()) == [
        "line 5",
        "line 6",
        "line 7",
    ]
    with pytest.raises(ValueError, match=r"no row of .* is a box: 1: .* \(line 2\).*swapped\?"):
        read("image,xmin,ymin,xmax,ymax,class\na.jpg,cat,1,2,11,12\n")


def test_fractions_are_refused(read, tmp_path):
    text = "image,xmin,ymin,xmax,ymax,class\na.jpg,0.1,0.2,0.5,0.9,cat\n"
    read(text)  # The conversion sees the unit by all boxes together, and may be told it.
    with pytest.raises(ValueError, match=r"lie within 0..1: for example line 2 has box \[0.1, 0.2"):
        convert_annotations(
            tmp_path / "boxes.csv", tmp_path / "out", image_dir=tmp_path / "images", progress=False
        )


def test_paths_of_another_machine(read, tmp_path):
    own_set.write_images(tmp_path / "images/night", ["a.jpg"])
    head = "image,xmin,ymin,xmax,ymax,class\n"
    source = read(head + "C:\\me\\night\\a.jpg,1,2,11,12,cat\n/home/x/B.JPG,1,2,11,12,cat\n")
    assert [i["file_name"] for i in source.content["images"]] == ["night/a.jpg", "b.jpg"]
    # Of several files with the same end none is taken.
    own_set.write_images(tmp_path / "images/day", ["a.jpg"])
    source = read(head + "dusk/a.jpg,1,2,11,12,cat\n")
    assert [i["file_name"] for i in source.content["images"]] == ["dusk/a.jpg"]


def test_splits_lists_and_first_pixel(read, tmp_path):
    text = (
        "image,xmin,ymin,xmax,ymax,class,split\n"
        "a.jpg,1,1,10,10,cat,train\nb.jpg,1,1,10,10,emu,VAL\nc.png,1,1,10,10,cat,train\n"
    )
    assert [i["file_name"] for i in read(text, split="val").content["images"]] == ["b.jpg"]
    assert boxes(read(text, split="val")) == [([1, 1, 9, 9], 2)]
    assert boxes(read(text, split="val", first_pixel=1)) == [([0, 0, 10, 10], 2)]
    (tmp_path / "list.txt").write_text("c.png\n")
    source = read(text, image_list=tmp_path / "list.txt")
    assert [i["file_name"] for i in source.content["images"]] == ["c.png"]
    with pytest.raises(ValueError, match="none for split 'test'"):
        read(text, split="test")


def test_classes_that_are_numbers(read):
    text = "image,xmin,ymin,xmax,ymax,class\n" + "".join(
        f"a.jpg,1,2,11,12,{name}\n" for name in (10, 2, 0)
    )
    source = read(text)
    assert [c["name"] for c in source.content["categories"]] == ["0", "2", "10"]
    label_map = LabelMap(["x", "y", "z"], [0, 2, 10])
    assert [c for _, c in boxes(read(text, label_map=label_map))] == [10, 2, 0]
    with pytest.raises(ValueError, match=r"'10' \(1 box, first in line 2\)"):
        read(text, label_map=LabelMap(["x", "y", "z"], [0, 1, 2]))


def test_a_row_cut_off_after_its_path_is_counted(read):
    head = "image,xmin,ymin,xmax,ymax,class\n"
    source = read(f"{head}a.jpg,1,2,11,12,cat\na.jpg,5,6,15,16,dog\na.jpg\n")
    assert boxes(source) == [([1, 2, 10, 10], 1), ([5, 6, 10, 10], 2)]
    reason = "only a path, though other rows have objects of the image"
    assert source.report.to_dict()["dropped boxes"][reason] == {"count": 1, "first": ["line 4"]}


def test_a_split_that_is_misspelt_is_noted(read):
    rows = ["image,xmin,ymin,xmax,ymax,class,split", "a.jpg,1,2,11,12,cat,train"]
    rows += ["b.jpg,1,2,11,12,cat,trian", "b.jpg,4,5,11,12,cat,val"]
    report = read("\n".join(rows) + "\n").report.to_dict()
    noted = report["notes"]["row of another split than train, val and test: not used"]
    assert noted == {"count": 1, "first": ["'trian' in line 3, b.jpg"]}
