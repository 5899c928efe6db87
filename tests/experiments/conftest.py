"""A tiny model, detector and reference in a folder of their own."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))

from sweeps import tiny_files


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_files(folder)
    return folder


@pytest.fixture
def place(tiny, tmp_path, monkeypatch):
    """An empty folder with links to the tiny files."""
    for file in tiny.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)
