"""Readers of files and texts that were changed by chance; `python tests/fuzz.py` feeds them more."""

import pytest

import fuzz

NAMES = (
    *("pickle", "safetensors", "npz", "sums", "idx", "cifar", "zip", "tar", "image", "labels"),
    *("plan", "plans", "seeds", "results", "manifest", "record", "prompts"),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_a_refusal(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs = 100 if name == "results" else 2000
    assert fuzz.fuzz([name], inputs) == {name: (inputs, 0)}, list(tmp_path.iterdir())
