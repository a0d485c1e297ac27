"""Tables as people write them: what columns and numbers mean, and what is refused with its line."""

import os

import pytest

from ssd_centernet.data.readers.csv_table import read_csv
from ssd_centernet.data.readers.source import COPY
from ssd_centernet.labels import LabelMap
from tests.data.readers import own_set

HEAD = "image,xmin,ymin,xmax,ymax,class\n"


@pytest.fixture
def read(tmp_path):
    own_set.write_images(tmp_path / "images")

    def call(text, **options):
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "boxes.csv").write_bytes(data)
        options = {"split": "train", "image_dir": tmp_path / "images", **options}
        return read_csv(tmp_path / "boxes.csv", **options)

    return call


def boxes(source):
    return [a["bbox"] for a in source.content["annotations"]]


def names(source):
    return [c["name"] for c in source.content["categories"]]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HEAD + 'a.jpg,1,2,11,12,cat\na.jpg,1,2,12,13,"cat\nb.jpg,1,2,11,12,emu\nc.png,,,,,\n', 3),
        (HEAD + 'a.jpg,1,2,12,13,"cat\nb.jpg,1,2,11,12,"emu"\nc.png,1,2,11,12,emu\n', 2),
        (HEAD + 'a.jpg,1,2,12,13,"cat\nb.jpg,1,2,11,12,emu"\nc.png,1,2,11,12,emu\n', 2),
        (HEAD + 'a.jpg,1,2,12,13,cat\n"b.jpg,1,2,11,12,emu\nc.png,1,2,11,12,"a ""b"""\n', 3),
        (HEAD + 'a.jpg,1,2,12,13,"cat"x\nb.jpg,1,2,11,12,emu\n', 2),
        (HEAD.replace("xmin", 'xmin"') + "a.jpg,1,2,12,13,cat\n", 1),
        (HEAD + 'a.jpg,1,2,12,13,cat\nb.jpg,1,2,11,12,cat"\n', 3),
    ],
)
def test_an_open_quote_is_an_error_with_its_line(text, line, read):
    with pytest.raises(ValueError, match=rf"boxes\.csv line {line}.* quote"):
        read(text)


def test_quotes_that_are_right(read):
    text = HEAD + 'a.jpg,1,2,11,12,"stop, ""red"""\nb.jpg, "1", 2,11,12,5" pipe\n'
    source = read(text)
    assert boxes(source) == [[1, 2, 10, 10]] * 2
    assert names(source) == ['5" pipe', 'stop, "red"']


@pytest.mark.parametrize("head", ["sep=;\r\n", '"sep=;"\n', "\ufeffsep=;\n", ""])
def test_the_first_line_of_excel(head, read):
    source = read(head + "image;xmin;ymin;xmax;ymax;class\na.jpg;1;2;11;12;cat, red\n")
    assert boxes(source) == [[1, 2, 10, 10]] and names(source) == ["cat, red"]


def test_fields_of_any_length(read):
    codes = "1 " * 100_000
    source = read(f'image,mask,xmin,ymin,xmax,ymax,class\na.jpg,"{codes}",1,2,11,12,cat\n')
    assert boxes(source) == [[1, 2, 10, 10]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((HEAD + "a.jpg,1,2,11,12,cat\nb.jpg,1,2,3,4,k\xe4se\n").encode("latin-1"), "in line 3"),
        ((HEAD + "a.jpg,1,2,11,12,cat\n").encode("utf-16-le"), "zero byte in line 1"),
        (HEAD.encode() + b"a.jpg,1,2,\x00,12,cat\n", "zero byte in line 2"),
    ],
)
def test_other_encodings_are_refused_with_their_line(data, message, read):
    with pytest.raises(ValueError, match=rf"boxes\.csv is not .*{message}"):
        read(data)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("cat,a.jpg,1,2,11,12\n", "text, a path, numbers, numbers, numbers, numbers"),
        ("cat,1,2,11,12,a.jpg\nemu,1,2,11,12,b.jpg\n", "text, numbers, .*, a path"),
        ("1,2,11,12,cat,a.jpg\n", "numbers, numbers, numbers, numbers, text, a path"),
        ("a.jpg,1,2,11,12\n", "a path, numbers, numbers, numbers, numbers"),
        ("a.jpg,1,2,11,12,cat,0.9\n", "a path, .*, text, numbers"),
        ("object,a.jpg,1,2,11,12\n", "text, a path"),
    ],
)
def test_tables_without_header_in_another_order_are_refused(text, columns, read):
    with pytest.raises(ValueError, match=rf"line 1 is no header, .*its columns are {columns}"):
        read(text)


@pytest.mark.parametrize(
    ("header", "row", "note"),
    [
        ("class,x,y,w,h,image", "cat,1,2,10,8,a.jpg", "x, y, w, h read as left, top"),
        ("image,bbox_x,bbox_y,bbox_width,bbox_height,label", "a.jpg,1,2,10,8,cat", "left, top"),
        ("image,x,y,width,height,label", "a.jpg,1,2,10,8,cat", "x, y, width, height read as left"),
        ("image,xmin,ymin,w,h,label", "a.jpg,1,2,10,8,cat", "xmin, ymin, w, h read as left"),
        ("image,xc,yc,w,h,label", "a.jpg,6,6,10,8,cat", "xcenter, ycenter, w, h read as center"),
        ("image,x_center,y_center,width,height,label", "a.jpg,6,6,10,8,cat", "read as center"),
    ],
)
def test_boxes_by_size_and_center(header, row, note, read):
    source = read(f"{header}\n{row}\n")
    assert boxes(source) == [[1, 2, 10, 8]]
    assert any(note in reason for reason in own_set.reasons(source))


def test_columns_that_are_not_clear_are_refused(read):
    # Sizes of the picture, and no right and bottom of the box.
    text = "image,xmin,ymin,width,height,class\na.jpg,1,2,40,30,cat\na.jpg,5,6,40,30,cat\n"
    with pytest.raises(
        ValueError, match=r"line 2 has width 40 and height 30, the same in all rows"
    ):
        read(text)
    with pytest.raises(ValueError, match=r"lacks xmin, ymin, xmax, ymax: it is image, x1min"):
        read("image,x1min,y1min,w,h,class\na.jpg,1,2,3,4,cat\n")
    with pytest.raises(ValueError, match=r"has xmin twice"):
        read("image,xmin,x1,ymin,xmax,ymax,class\na.jpg,1,1,2,3,4,cat\n")


def test_widths_that_contradict_are_refused(read):
    text = "image,width,height,xmin,ymin,xmax,ymax,class\na.jpg,40,30,1,2,11,12,cat\n"
    source = read(text + "a.jpg,40.0,30,1,2,12,13,cat\n")
    assert (source.content["images"][0]["width"], len(boxes(source))) == (40, 2)
    with pytest.raises(
        ValueError, match=r"line 3 has width 11 and height 11 for a.jpg, but line 2"
    ):
        read(text + "a.jpg,11,11,1,2,12,13,cat\n")


@pytest.mark.parametrize(
    "rows",
    [
        # x, y, width, height under the names of corners
        ["a.jpg,20,15,8,6,cat", "a.jpg,25,12,5,9,cat", "b.jpg,30,20,9,9,cat"],
        # xmin, xmax, ymin, ymax
        ["a.jpg,20,35,2,6,cat", "a.jpg,25,30,5,9,cat", "b.jpg,30,38,9,19,cat"],
    ],
)
def test_corners_in_another_order_are_refused(rows, read):
    with pytest.raises(
        ValueError, match=r"3 of 3 boxes .* line 2, line 3, line 4\. Expected xmin <"
    ):
        read(HEAD + "\n".join(rows) + "\n")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("image;xmin;ymin;xmax;ymax;class\na.jpg;1,125;2,5;11,125;12,5;cat\n", 1.125),
        (HEAD + 'a.jpg,"0,125",2,"10,125",12,cat\n', 0.125),
        (HEAD + "a.jpg,1.125,2,11.125,12,cat\n", 1.125),
    ],
)
def test_decimals(text, left, read):
    assert boxes(read(text)) == [[left, pytest.approx(2, abs=0.5), 10, 10]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (HEAD + 'a.jpg,512,200,"1,024",800,cat\n', "1,024"),
        ("image;xmin;ymin;xmax;ymax;class\na.jpg;512;200;1.024;800;cat\n", "1.024"),
    ],
)
def test_separators_of_thousands_are_refused(text, value, read):
    with pytest.raises(ValueError, match=rf"line 2 has '{value}': a thousand and more, or"):
        read(text)


def test_splits(read):
    head = "image,xmin,ymin,xmax,ymax,class,split\n"
    rows = "a.jpg,1,1,9,9,cat,Training\nb.jpg,1,1,9,9,emu,valid\nc.png,1,1,9,9,cat,\n"
    source = read(head + rows, split="val")
    assert [i["file_name"] for i in source.content["images"]] == ["b.jpg"]
    assert own_set.reasons(source, "dropped boxes") == {"the column split is empty": 1}
    assert own_set.reasons(source) == {}
    other = rows.replace("Training", "red").replace("valid", "blue")
    with pytest.raises(ValueError, match=r"none for split 'train': .* has blue, red\. .*rename it"):
        read(head + other)


def test_rows_that_are_no_objects_are_counted(read):
    rows = [
        "a.jpg,1,2,11,12, cat ",
        "a.jpg,1,2,11,12,cat",
        "a.jpg,1.0,2.0,11,12,cat",
        "a.jpg,NaN,2,11,12,cat",
        "a.jpg,inf,2,11,12,cat",
        "a.jpg,1,2,11,12,  ",
        "a.jpg,1,2,11,13,cat",
    ]
    source = read(HEAD + "\n".join(rows) + "\n")
    assert boxes(source) == [[1, 2, 10, 10], [1, 2, 10, 11]] and names(source) == ["cat"]
    assert own_set.reasons(source, "dropped boxes") == {
        "corners are not four numbers": 2,
        "no class name": 1,
    }
    assert own_set.reasons(source, "repaired boxes") == {COPY: 2}


def test_flags(read):
    head = "image,xmin,ymin,xmax,ymax,class,iscrowd\n"
    flags = ("1", "TRUE", "yes", "0", "no", "")
    rows = [f"a.jpg,1,2,{20 + i},12,cat,{flag}\n" for i, flag in enumerate(flags)]
    source = read(head + "".join(rows))
    crowd = [a["iscrowd"] for a in source.content["annotations"]]
    assert crowd == [1, 1, 1, 0, 0, 0]
    for flag in ("2", "-1", "maybe"):
        with pytest.raises(
            ValueError, match=rf"csv line 8 has iscrowd '{flag}'. Expected 0, 1, true"
        ):
            read(head + "".join(rows) + f"a.jpg,1,2,30,12,cat,{flag}\n")


def test_one_file_is_not_two_pictures(read):
    rows = "cam1/a.jpg,1,2,11,12,cat\ncam2/a.jpg,1,2,12,13,cat\n"
    with pytest.raises(ValueError, match=r"'cam1/a.jpg' and 'cam2/a.jpg', but only one file"):
        read(HEAD + rows)


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "boxes.csv")
    with pytest.raises(ValueError, match=r"boxes\.csv is a pipe, a device or a socket"):
        read_csv(tmp_path / "boxes.csv", split="train")


@pytest.mark.parametrize("again", [HEAD, "Image, X min,Y min,xmax,ymax,label\n"])
def test_a_header_between_rows_is_no_picture(again, read):
    source = read(HEAD + "a.jpg,1,2,11,12,cat\n" + again + "b.jpg,2,3,12,13,emu\n")
    assert boxes(source) == [[1, 2, 10, 10], [2, 3, 10, 10]] and names(source) == ["cat", "emu"]
    assert [image["file_name"] for image in source.content["images"]] == ["a.jpg", "b.jpg"]
    assert source.report.to_dict()["notes"]["the header once more: passed over"] == {
        "count": 1,
        "first": ["line 3"],
    }


@pytest.mark.parametrize("again", ["image,xmin,xmax,ymin,ymax,class\n", "image,x,y,w,h,label\n"])
def test_rows_of_another_table_are_refused_at_their_header(again, read):
    text = HEAD + "a.jpg,1,2,11,12,cat\n" + again + "b.jpg,2,12,3,13,emu\n"
    with pytest.raises(ValueError, match=r"boxes\.csv line 3 is a second header whose columns"):
        read(text)


def test_class_numbers_with_a_decimal_point_are_the_same_classes(read):
    rows = "a.jpg,1,2,11,12,1.0\na.jpg,2,3,12,13,1\nb.jpg,2,3,12,13,2.0\nc.png,2,3,12,13,10\n"
    source = read(HEAD + rows)
    assert names(source) == ["1", "2", "10"]
    assert [a["category_id"] for a in source.content["annotations"]] == [1, 1, 2, 3]
    reason = "class number with a decimal point: read as whole"
    assert source.report.to_dict()["notes"][reason] == {"count": 2, "first": ["1.0", "2.0"]}
    ids = read(HEAD + rows, label_map=LabelMap(["emu", "cat", "owl"], ids=[1, 2, 10]))
    assert [a["category_id"] for a in ids.content["annotations"]] == [1, 1, 2, 10]


def test_class_names_that_are_fractions_stay_as_they_are(read):
    source = read(HEAD + "a.jpg,1,2,11,12,1.0\na.jpg,2,3,12,13,1.5\n")
    assert names(source) == ["1.0", "1.5"]


@pytest.mark.parametrize("nothing", ["nan", "NaN", "None", "<NA>"])
def test_rows_of_nan_are_images_without_objects(nothing, read):
    text = HEAD + f"a.jpg,1,2,11,12,cat\nb.jpg{f',{nothing}' * 5}\n"
    source = read(text)
    assert [image["file_name"] for image in source.content["images"]] == ["a.jpg", "b.jpg"]
    assert boxes(source) == [[1, 2, 10, 10]] and names(source) == ["cat"]
    assert "dropped boxes" not in source.report.to_dict()


@pytest.mark.parametrize(
    ("header", "lacks", "advice"),
    [
        ("image,x,y,w,h", "lacks class: it is image, x, y, w, h", "add those that are missing"),
        ("image_id,width,height,bbox,source", "lacks xmin, .*class: ", "Split 'bbox' into four"),
        ("filename,region_shape_attributes", "lacks xmin", "VGG Image Annotator. Export"),
    ],
)
def test_what_to_do_about_a_header_that_lacks_columns(header, lacks, advice, read):
    with pytest.raises(ValueError, match=rf"header of .*boxes\.csv {lacks}.*{advice}"):
        read(header + "\n")
