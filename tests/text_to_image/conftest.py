"""Tiny pipelines, in folders and loaded."""

import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The folder of a tiny pipeline of a kind."""
    from tiny_folders import FOLDERS

    from restart_sampling.text_to_image.pipeline import quiet

    made = {}

    def folder(kind="sd"):
        if kind not in made:
            with quiet():  # also in a test that looks at what is printed
                made[kind] = FOLDERS[kind](tmp_path_factory.mktemp(kind))
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def model(folder):
    """The same, loaded."""
    from restart_sampling.text_to_image.pipeline import load_pipeline

    loaded = {}

    def model(kind="sd"):
        if kind not in loaded:
            loaded[kind] = load_pipeline(str(folder(kind)), torch.device("cpu"), torch.float32)
        return loaded[kind]

    return model


@pytest.fixture(scope="session")
def read_before():
    """Pipelines as they were read, by folder and dtype."""
    return {}


@pytest.fixture
def read_once(folder, read_before, monkeypatch):
    """The tiny Stable Diffusion is read from its folder once; each command that loads it gets a copy."""
    from restart_sampling.text_to_image import pipeline

    read, known = pipeline._read, folder().resolve()

    def copied(name, dtype):
        if Path(name).resolve() != known:
            return read(name, dtype)
        if dtype not in read_before:
            read_before[dtype] = read(name, dtype)
        return deepcopy(read_before[dtype])

    monkeypatch.setattr(pipeline, "_read", copied)
