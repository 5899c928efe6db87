"""Prompts from a CSV, and the images that belong to them."""

import numpy as np
import pytest
from image_files import picture, png, write_folder

from restart_sampling.base.errors import InputError
from restart_sampling.images.prompts import match_images, read_prompts
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
    with pytest.raises(InputError, match=r"a has no image for prompt 3 \('prompt 3'\), nor for 1 others; .* 3.png"):
        matched(tmp_path / "a", names[:3] + names[4:11])
    with pytest.raises(InputError, match=r"b/12.png has no prompt: there are 12, counted from 0"):
        matched(tmp_path / "b", [*names, "12.png", "13.png"])
    with pytest.raises(InputError, match=r"c/0005.png and .*c/5.png are both number 5"):
        matched(tmp_path / "c", [*names, "0005.png"])


def test_prompts_are_the_column_of_captions(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_bytes('\ufeff,file_name,caption\n17,a.jpg,"two ""big"" dogs, é"\n3,b.jpg,"one\nmore"\n'.encode())
    assert read_prompts(path) == ['two "big" dogs, é', "one\nmore"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"number,prompt\n0,a cat\n", r"has no column 'caption' \(it has: 'number', 'prompt'\)"),
        (b"", r"has no column 'caption' \(it has: none\)"),
        (b",caption\n", "holds no prompts, only a header"),
        (b",caption\n0,a cat\n1,\n", "number 1, counted from 0, has no text"),
        (b",caption\n0\n", "number 0, counted from 0, has no text"),
        (b",caption\n0,\xff\xfe\n", "is not a CSV in UTF-8"),
    ],
)
def test_other_files_are_one_sentence(content, sentence, tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=sentence):
        read_prompts(path)
    with pytest.raises(InputError, match=r"none.csv cannot be read \(No such file"):
        read_prompts(tmp_path / "none.csv")
