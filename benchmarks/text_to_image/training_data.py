"""CIFAR-10's pictures with captions, on a device."""

# mypy: disable-error-code="no-untyped-call"

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from captions import measure, with_unknown_word, write
from torch import Tensor
from words import LENGTH, write_tokenizer

from restart_sampling.images.image_set import read_images

UNKNOWN = 0.05  # part of the captions with a word of random letters


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures and what they show.

    Attributes:
        images: uint8 [N, 3, 32, 32].
        attributes: class, brightness, contrast, colour of the middle and of the border, int64 [N, 5].
    """

    images: Tensor
    attributes: Tensor

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Captions:
    """Several captions of each picture.

    Attributes:
        texts: K of each picture.
        tokens: int64 [N, K, LENGTH].
        says: what they mention, int64 [N, K, 5]; see `Caption`.
    """

    texts: list[list[str]]
    tokens: Tensor
    says: Tensor


def read_pictures(source: Path, device: torch.device, count: int | None = None) -> Pictures:
    """Reads pictures and measures them.

    Args:
        source: a folder or a tar with a folder for each class.
        device: where they are to be.
        count: how many; None is all.
    """
    found = read_images(source, count=count)
    images = torch.from_numpy(np.concatenate(list(found))).to(device)
    assert found.labels is not None
    labels = torch.from_numpy(found.labels).to(device)
    measured = torch.cat([measure(part) for part in images.split(4096)])
    return Pictures(images, torch.cat([labels[:, None], measured], 1))


def write_captions(pictures: Pictures, folder: Path, each: int, seed: int) -> Captions:
    """Writes captions of all pictures, and their tokenizer.

    Args:
        pictures: what to describe.
        folder: where the tokenizer's files go.
        each: captions of a picture.
        seed: of the choice of words.
    """
    draw = random.Random(seed)
    tokenizer = write_tokenizer(folder)
    made = [[write(attributes, draw) for _ in range(each)] for attributes in pictures.attributes.tolist()]
    texts = [
        [with_unknown_word(one.text, draw) if draw.random() < UNKNOWN else one.text for one in few] for few in made
    ]
    distinct = list({text: None for few in texts for text in few})
    tokens = tokenizer(distinct, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="np")
    place = {text: number for number, text in enumerate(distinct)}
    rows = np.array([[place[text] for text in few] for few in texts])
    device = pictures.images.device
    says = torch.tensor([[one.says for one in few] for few in made], device=device)
    return Captions(texts, torch.from_numpy(tokens["input_ids"][rows]).long().to(device), says)
