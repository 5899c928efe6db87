"""COCO's captions: the original's rows and bytes, and the images that belong to them."""

import csv
import hashlib
import json

import numpy as np
import pytest
from image_files import encoded, picture, write_folder, write_zip

from restart_sampling.base.errors import InputError
from restart_sampling.images.coco import caption_images, draw_captions, write_captions
from restart_sampling.images.dataset import make_dataset, plan_dataset
from restart_sampling.images.image_set import read_images
from restart_sampling.images.sources import open_source
from restart_sampling.images.transforms import Transform

WORDS = ["a cat", 'two "big" dogs', "rain, wind", "line\nbreak", "café ☕", " spaces ", "tab\there", "plain", "it's"]


def annotations(images=40):
    """COCO's form: images in no order, three captions each in no order, and images without any."""
    random = np.random.RandomState(5)
    listed = [{"id": int(n), "file_name": f"COCO_val2014_{n:012d}.jpg"} for n in random.permutation(images) * 7 + 3]
    captions = []
    for _ in range(3):
        for place in random.permutation(images):
            if place % 11 != 5:
                number = 100 + len(captions)
                caption = f"{WORDS[number % 9]} {number}"
                captions.append({"image_id": listed[place]["id"], "id": number, "caption": caption})
    return {"images": listed, "annotations": captions}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(annotations()))
    return path


PANDAS = {  # sha256 of what pandas 3.1.1 writes of these annotations in the original's steps
    False: "78f617558e0b93869f373b8d91f6574e2a3aed3920190dd8514ae040bfc3e79b",
    True: "3d9244556631d9d358a99a708a838bfb66d7b5759fb41cc2f0acc8207a8ce6c3",
}


@pytest.mark.parametrize("unique", [False, True])
def test_the_csv_is_the_originals_byte_for_byte(unique, path, tmp_path):
    write_captions(draw_captions(path, 30, unique_images=unique), tmp_path / "subset.csv")
    content = (tmp_path / "subset.csv").read_bytes()
    assert content.startswith(b",file_name,caption\n")
    assert hashlib.sha256(content).hexdigest() == PANDAS[unique]


def test_rows_are_captions_of_their_images(path):
    content = annotations()
    names = {image["id"]: image["file_name"] for image in content["images"]}
    pairs = {(names[each["image_id"]], each["caption"]) for each in content["annotations"]}
    drawn = draw_captions(path, 112)  # of 36 images with three each, and 4 without
    assert sorted(each.row for each in drawn) == list(range(112))
    assert {(each.file_name, each.caption) for each in drawn if each.caption} == pairs
    assert sum(not each.caption for each in drawn) == 4


def test_unique_images_are_unique(path):
    assert len({each.file_name for each in draw_captions(path, 30)}) < 30
    assert len({each.file_name for each in draw_captions(path, 30, unique_images=True)}) == 30


def test_the_csv_can_be_read_again(path, tmp_path):
    drawn = draw_captions(path, 30)
    write_captions(drawn, tmp_path / "subset.csv")
    with (tmp_path / "subset.csv").open(newline="", encoding="utf-8") as file:
        assert [row["caption"] for row in csv.DictReader(file)] == [each.caption for each in drawn]


def test_the_images_of_the_captions_are_cropped_once_each(path, tmp_path):
    drawn = draw_captions(path, 30)
    files = {
        f"val2014/{image['file_name']}": encoded(picture(image["id"], (9 + image["id"] % 5, 12)), "jpeg")
        for image in annotations()["images"]
    }
    names = sorted({each.file_name for each in drawn})
    transform = Transform("center-crop", (8, 8))
    for source in (write_zip(tmp_path / "val2014.zip", files), write_folder(tmp_path / "coco", files)):
        out = tmp_path / f"{source.stem}-subset.zip"
        make_dataset(plan_dataset(caption_images(open_source(source), drawn), out, transform))
        made = np.concatenate(list(read_images(out)))
        opened = open_source(source)
        places = {name.rpartition("/")[2]: place for place, name in enumerate(opened.names)}
        expected = [np.asarray(transform(opened.image(places[name]))).transpose(2, 0, 1) for name in names]
        assert np.array_equal(made, np.stack(expected))


def test_a_missing_image_is_named(path, tmp_path):
    drawn = draw_captions(path, 30)
    gone = sorted({each.file_name for each in drawn})[0]
    names = {image["file_name"] for image in annotations()["images"]} - {gone}
    source = open_source(write_folder(tmp_path / "coco", dict.fromkeys(names, b"")))
    with pytest.raises(InputError, match=rf"coco has no {gone}, whose captions were drawn"):
        caption_images(source, drawn)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"images": [{"id": 1}], "annotations": []}', '{"images": [], "annotations": [{"id": 1}]}'],
)
def test_another_file_is_one_sentence(content, tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"instances.json is not COCO's file of captions .*; give captions_val2014"):
        draw_captions(path)


def test_too_few_captions_are_one_sentence(path, tmp_path):
    with pytest.raises(InputError, match="holds 112 captions, and 113 are asked for"):
        draw_captions(path, 113)
    with pytest.raises(InputError, match="holds 40 images, and 41 are asked for"):
        draw_captions(path, 41, unique_images=True)
    with pytest.raises(InputError, match=r"none.json cannot be read"):
        draw_captions(tmp_path / "none.json")
