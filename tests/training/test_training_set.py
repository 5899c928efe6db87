import json

import numpy as np
import pytest
import torch

from restart_sampling.base.errors import InputError
from restart_sampling.images.image_set import read_images
from restart_sampling.training.training_set import count_classes, read_training_set

CPU = torch.device("cpu")


def test_all_images_with_their_classes(folder, pictures):
    images = read_images(folder)
    counted = []
    data = read_training_set(images, True, CPU, counted.append)
    assert sum(counted) == len(data) == 500
    assert np.array_equal(data.images.numpy(), np.concatenate([pictures[0::2], pictures[1::2]]))  # by name: down, up
    assert data.labels.tolist() == [0] * 250 + [1] * 250
    assert count_classes(images) == 2
    assert images.classes == ("down", "up")


def test_the_hash_is_that_of_pixels_and_used_labels(folder):
    images = read_images(folder)
    cond, plain = read_training_set(images, True, CPU), read_training_set(images, False, CPU)
    assert plain.labels is None
    assert cond.sha256 != plain.sha256 == read_training_set(images, False, CPU).sha256
    assert read_training_set(images.take(range(499)), False, CPU).sha256 != plain.sha256


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["00000/a.png", "00001/b.png"], [0, 1]),  # as in EDM's datasets
        (["x/a.png", "x/b.png"], [0, 1]),  # no folders below that of all
        (["x/a.png", "x/b.png", "y/c.png"], [0, 1, 1]),  # folders that are not the classes
        (["x/a.png", "y/b.png"], [0, 2]),  # a class without images
    ],
)
def test_folders_that_do_not_name_the_classes(names, labels, folder, tmp_path):
    picture = next(folder.rglob("*.png")).read_bytes()
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": list(zip(names, labels, strict=True))}))
    assert read_images(tmp_path).classes == ()


def test_folders_of_numbers_out_of_order_name_the_classes(folder, tmp_path):
    picture = next(folder.rglob("*.png")).read_bytes()
    for name in ("0", "1", "10", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(picture)
    assert read_images(tmp_path).classes == ("0", "1", "10", "2")


def test_classes_that_no_image_can_have(folder, tmp_path):
    (tmp_path / "a.png").write_bytes(next(folder.rglob("*.png")).read_bytes())
    assert read_images(tmp_path).classes == ()
    with pytest.raises(InputError, match=r"--cond needs classes, and .* has none"):
        count_classes(read_images(tmp_path))
