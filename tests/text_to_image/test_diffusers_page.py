"""The examples of docs/diffusers.md run in a pipeline, one after another."""

import re
from pathlib import Path
from textwrap import dedent

import numpy as np
from diffusers import StableDiffusionPipeline
from tiny_pipelines import quiet

PAGE = (Path(__file__).parents[2] / "docs" / "diffusers.md").read_text()


def test_examples_run(folder, tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)
    pipe = quiet(StableDiffusionPipeline.from_pretrained(folder("sd"), safety_checker=None))
    names = {"pipe": pipe}
    images = []
    for _, example in re.findall(r"^( *)```python\n(.*?)^\1```", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(dedent(example), "diffusers.md", "exec"), names)
        images.append(names["images"][0])
    assert len(images) == 3
    assert np.std(images[0]) > 0
    assert np.any(np.asarray(images[0]) != np.asarray(images[1]))  # another plan
    assert 0 < names["end"] < 1
    assert (tmp_path / "scheduler" / "scheduler_config.json").exists()
