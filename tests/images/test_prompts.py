"""Prompts from a CSV, and the images that belong to them."""

import numpy as np
import pytest
from image_files import picture, png, write_folder

from restart_sampling.base.errors import InputError
from restart_sampling.images.prompts import match_images, read_numbered_prompts, read_prompts, write_prompts
from restart_sampling.images.sources import open_source

PROMPTS = [f"prompt {number}" for number in range(12)]


def matched(folder, names, prompts=PROMPTS):
    return match_images(
        open_source(write_folder(folder, {name: png(place) for place, name in enumerate(names)})), prompts
    )


@pytest.mark.parametrize("form", ["{}.png", "{:06d}.png", "{:06d}/{:06d}.png", "{}.jpg"])
def test_images_are_found_by_their_numbers(form, tmp_path):
    """Where names sort as text, 10 comes before 2."""
    files = {form.format(number, number): png(number) for number in range(12)}
    images = match_images(open_source(write_folder(tmp_path, {**files, "grid.png": png(99)})), PROMPTS)
    batches = list(images.batches(range(1, 12), 4, np.asarray))
    assert [prompts for prompts, _ in batches] == [PROMPTS[1:5], PROMPTS[5:9], PROMPTS[9:]]
    for number, found in enumerate((image for _, images in batches for image in images), start=1):
        assert np.array_equal(found, np.asarray(picture(number)))


def test_images_and_prompts_have_to_fit(tmp_path):
    names = [f"{number}.png" for number in range(12)]
    with pytest.raises(InputError, match=r"a has no image for prompt 3 \('prompt 3'\), nor for 1 other; .* 3.png"):
        matched(tmp_path / "a", names[:3] + names[4:11])
    with pytest.raises(InputError, match=r"b/12.png has no prompt: there are 12, counted from 0"):
        matched(tmp_path / "b", [*names, "12.png", "13.png"])
    with pytest.raises(InputError, match=r"c/0005.png and .*c/5.png are both number 5"):
        matched(tmp_path / "c", [*names, "0005.png"])


def test_prompts_are_the_column_of_captions(tmp_path):
    path = tmp_path / "prompts.csv"
    text = '\ufeff,file_name,caption\n17,a.jpg,"two ""big"" dogs, é"\n3,b.jpg,"one\nmore"\n'
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        path.write_bytes(text.encode(encoding))
        assert read_prompts(path) == ['two "big" dogs, é', "one\nmore"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"number,prompt\n0,a cat\n", r"has no column 'caption' \(it has: 'number', 'prompt'\)"),
        (b"", r"has no column 'caption' \(it has: none\)"),
        (b",caption\n", "holds no prompts, only a header"),
        (b",caption\n0,a cat\n1,\n", "number 1, counted from 0, has no text"),
        (b",caption\n0\n", "number 0, counted from 0, has no text"),
        (b",caption\n0,\xff\xfe\n", r"prompts.csv is no text in UTF-8, .*; save it as UTF-8"),
        (",caption\n0,a cat\n".encode("utf-16-le"), "is no text in UTF-8"),
        (b"\xff\xfe,", "is no text in UTF-8"),  # half a character
        (
            b"id,caption\n7,a dog\n8,a cat, running\n",
            r"number 1, .* the header's 2 fields but 3 \('8,a cat, running'\)",
        ),
        (b"caption,id\na dog,7\na cat\n", r"number 1, .* the header's 2 fields but 1 \('a cat'\); put a text with"),
        (b'id,caption\n7,"a dog\n8,a cat\n', "is not a CSV"),  # the quote never ends
        (b"caption,caption\na,b\n", r"has more than one column 'caption' \(it has: 'caption', 'caption'\)"),
        (b'caption\na dog\n""\n', "number 1, counted from 0, has no text"),
        (b"caption\n", "holds no prompts, only a header"),
    ],
)
def test_other_files_are_one_sentence(content, sentence, tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_prompts(path)
    with pytest.raises(InputError, match=r"none.csv cannot be read \(No such file"):
        read_prompts(tmp_path / "none.csv")


def test_a_file_of_one_column_is_read_whole(tmp_path):
    path = tmp_path / "prompts.csv"
    lines = (
        "A man riding a wave, on top of a surfboard.",
        "A cat, a dog, and a bird",
        '"Stop" sign, in snow',
        '"a, b"',
        'it says ""hi"", twice',
        '"it says ""hi"", once"',
        '"two\nlines"',
        '"an open quote, here',
    )
    expected = [*lines[:3], "a, b", lines[4], 'it says "hi", once', "two\nlines", lines[7]]
    for header in ("caption", '"caption"', "\ufeffcaption"):
        for end in ("\n", "\r\n", "\r"):
            path.write_bytes(end.join([header, *lines, ""]).encode())
            assert read_prompts(path) == expected


def test_the_first_column_of_our_own_table_numbers_the_images(tmp_path):
    """Whatever the order of its rows; other first columns number nothing."""
    path, prompts = tmp_path / "subset.csv", ["a", "b, c", 'd "e"']
    write_prompts(prompts, path)
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(rows)]))
    assert read_prompts(path) == prompts
    assert list(read_numbered_prompts(path).items()) == list(enumerate(prompts))
    rest = {",caption\n5,x\n3,y\n": {5: "x", 3: "y"}}  # some of the images
    others = (
        ",file_name,caption\n1,a.jpg,x\n0,b.jpg,y\n",  # COCO's, whose first column is of another table
        "id,caption\n1,x\n0,y\n",
        ",caption\none,x\ntwo,y\n",
        "file_name,caption\n1.png,x\n1.png,y\n",  # two captions of an image
        "file_name,caption\nCOCO_val2014_000000000001.jpg,x\nCOCO_val2014_000000000000.jpg,y\n",
    )
    for text, expected in (rest | {text: {0: "x", 1: "y"} for text in others}).items():
        path.write_text(text)
        assert read_numbered_prompts(path) == expected
        assert read_prompts(path) == ["x", "y"]


@pytest.mark.parametrize(
    "table",
    [
        ",caption,image_id\n11,x,5\n3,y,6\n",
        ",image_id,caption\n11,5,x\n3,6,y\n",
        ",caption\n11.0,x\n3.0,y\n",
        ",caption\n 11,x\n3 ,y\n",
        ",caption\n11.png,x\n000003.JPEG,y\n",
        ",caption\nimages/000011.png,x\n3,y\n",
        "file_name,caption\n11.png,x\n000000/000003.png,y\n",
        "caption,file_name\nx,11.webp\ny,3.webp\n",
        ",caption,file_name\n0,x,11.png\n1,y,3.png\n",  # the rows of a table, and the names of its images
        ",caption,file_name\n11,x,a.png\n3,y,b.png\n",
    ],
)
def test_numbers_are_read_in_every_usual_form(table, tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text(table)
    assert read_numbered_prompts(path) == {11: "x", 3: "y"}


@pytest.mark.parametrize(
    ("table", "order"),
    [
        ("index,caption\n2,c\n0,a\n1,b\n", "abc"),
        ("Unnamed: 0,caption\n2,c\n0,a\n1,b\n", "abc"),
        ("caption,File_Name\nc,2.png\na,0.png\nb,1.png\n", "abc"),
        ("id,image,caption\n0,x/2.png,c\n1,x/0.png,a\n2,x/1.png,b\n", "abc"),
        ("image,caption\n2,c\n0,a\n3,b\n", "cab"),  # of other images
        ("image,caption\n1,c\n0,a\n1,b\n", "cab"),
        ("score,caption\n2,c\n0,a\n1,b\n", "cab"),
    ],
)
def test_all_numbers_in_a_column_of_images_are_theirs(table, order, tmp_path):
    (tmp_path / "prompts.csv").write_text(table)
    assert list(read_numbered_prompts(tmp_path / "prompts.csv").items()) == list(enumerate(order))


@pytest.mark.parametrize(
    ("table", "what"),
    [
        (",caption\n1,x\n1,y\n", "has 1 twice"),
        (",caption\n1,x\n01.png,y\n", "has 1 twice"),
        (",caption,id\n1,x,2\n1.0,y,3\n", "has 1 twice"),
        (",caption\none,x\n0,y\n", "has 'one', which is no number"),
        (",caption\n1.5,x\n0.0,y\n", "has '1.5', which is no number"),
        (",caption\n0,x\n,y\n", "has '', which is no number"),
    ],
)
def test_a_column_that_numbers_some_of_the_images_is_refused(table, what, tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text(table)
    with pytest.raises(InputError, match=f"first column without a name numbers the images, and this {what}; give"):
        read_numbered_prompts(path)


def test_images_are_found_by_the_numbers_of_the_table(tmp_path):
    source = open_source(write_folder(tmp_path, {f"{number}.png": png(number) for number in (3, 5)}))
    images = match_images(source, {5: "x", 3: "y"})
    assert images.prompts == ["x", "y"]
    assert [source.names[place] for place in images.places] == ["5.png", "3.png"]
    with pytest.raises(InputError, match="has no image for prompt 4"):
        match_images(source, {3: "x", 4: "y"})
    with pytest.raises(InputError, match=r"5.png has no prompt: there are 1, counted from 3"):
        match_images(source, {3: "x"})


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        ('a fox, red\n\n  a "cat"  \r\nsnow', ["a fox, red", 'a "cat"', "snow"]),
        ("\ufeffone\n", ["one"]),
        (
            "a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i\rj\r\nk",
            ["a\x0bb\x0cc\x1cd\x1de\x1ef\x85g\u2028h\u2029i", "j", "k"],
        ),
        ("id\u2028,caption\n7,a fox\n", ["a fox"]),
        ("caption\na fox, red\n", ["a fox, red"]),  # files of this form had any name before
        ("id,caption\n7,a fox\n", ["a fox"]),
    ],
)
def test_a_text_file_has_a_prompt_a_line(content, prompts, tmp_path):
    path = tmp_path / "prompts.TXT"
    path.write_text(content, encoding="utf-8", newline="")
    assert read_prompts(path) == prompts


def test_a_table_of_excels_unicode_text_is_no_text_file_of_prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("title\tid\na red ship\t1\n", encoding="utf-16")
    with pytest.raises(InputError, match=r"has a tab in the line 'title.*'; write one prompt a line, or give a table"):
        read_prompts(path)


def test_a_text_file_without_prompts_is_refused(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text(" \n\n")
    with pytest.raises(InputError, match=r"prompts.txt holds no prompts; write one a line"):
        read_prompts(path)
