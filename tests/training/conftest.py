"""A small set of images, and the settings of a small network for it."""

import numpy as np
import pytest
import torch
from PIL import Image

from restart_sampling.training.settings import Settings
from restart_sampling.training.training_set import TrainingSet


def make_pictures(count, size=8):
    """uint8 [count, 3, size, size], two classes by turns: dark at the top, or bright; each of its own hue."""
    random = np.random.default_rng(0)
    ramp = np.linspace(0.1, 0.9, size)[None, None, :, None]
    ramp = np.where(np.arange(count)[:, None, None, None] % 2, ramp, 1 - ramp)
    hue = random.uniform(0.5, 1, (count, 3, 1, 1))
    return np.broadcast_to(255 * ramp * hue, (count, 3, size, size)).astype(np.uint8)


@pytest.fixture(scope="session")
def pictures():
    return make_pictures(500)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, pictures):
    """The pictures as PNG files in a folder for each class."""
    place = tmp_path_factory.mktemp("data")
    for index, image in enumerate(pictures):
        name = place / ("down", "up")[index % 2] / f"{index:04d}.png"
        name.parent.mkdir(exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(name)
    return place


@pytest.fixture
def data(pictures):
    labels = torch.arange(len(pictures)) % 2
    return TrainingSet(torch.from_numpy(pictures), labels, "")


@pytest.fixture
def settings():
    """A small network that learns quickly."""
    return Settings(
        parametrization="edm",
        D=None,
        resolution=8,
        image_channels=3,
        label_dim=2,
        channels=8,
        channel_mult=(1, 1),
        blocks=1,
        attention=(),
        dropout=0.1,
        augment=0.12,
        images=3200,
        minutes=None,
        batch=32,
        lr=0.01,
        ema_images=500_000,
        seed=0,
        dtype="float32",
        data_images=500,
    )
