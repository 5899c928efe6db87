"""The page's part for pipelines: what samplers cost, and the images of two of them from the same seeds."""

import re

import numpy as np
import pytest

from restart_sampling.app import prompts
from restart_sampling.app.prompts import describe, draw, prepare_sampler, starts
from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image.drawing import Request, prepare
from restart_sampling.text_to_image.samplers import Sampler

pytestmark = pytest.mark.usefixtures("one_thread")


def panels(paths):
    return len(re.findall(r'id="paths-axes_\d+"', paths))


def test_what_samplers_cost_and_what_is_wrong_with_them_is_said(model):
    first, second, paths = describe(model(), ["ddim:4", "restart:6 [3,2,0.5,2.0]"], 2.0)
    assert first == "<p><b>NFE 4</b>, 8 evaluations of the network with guidance</p>"
    assert "<b>NFE 14</b>, 28 evaluations" in second
    assert panels(paths) == 2
    first, second, paths = describe(model(), ["<b>", "ddim:4"], 1.0)
    assert 'role="alert"' in first
    assert "there is no sampler &#39;&lt;b&gt;&#39;" in first
    assert second == "<p><b>NFE 4</b></p>"
    assert panels(paths) == 1
    assert "the page at most 500" in describe(model(), ["ddim:501", "x"], 1.0)[0]


@pytest.mark.parametrize("kind", ["sd", "sd3"])
def test_the_samplers_that_are_offered_suit_the_pipeline(kind, model):
    for text in starts(model(kind)):
        assert prepare_sampler(model(kind), text, 5.0, "").nfe > 0


def test_images_are_those_of_text_generate_a_few_of_each_sampler_in_turn(model, monkeypatch):
    shown, told = {}, []
    monkeypatch.setattr(prompts, "picture", lambda name, images, caption: shown.update({name: images}) or caption)
    texts = ["ddim:2", "restart:3 [2,1,0.5,2.0]"]
    yielded = list(draw(model(), texts, "a cat", 2.0, range(3, 9), told.append))
    assert yielded == [
        ["ddim:2, NFE 2: 4 of 6 images", ""],
        ["ddim:2, NFE 2: 4 of 6 images", "restart:3 [2,1,0.5,2], NFE 5: 4 of 6 images"],
        ["ddim:2, NFE 2: done", "restart:3 [2,1,0.5,2], NFE 5: 4 of 6 images"],
        ["ddim:2, NFE 2: done", "restart:3 [2,1,0.5,2], NFE 5: done"],
    ]
    assert sum(told) == pytest.approx(12)
    for name, text in zip(("Sampler A", "Sampler B"), texts, strict=True):
        drawing = prepare(model(), Request(Sampler.parse(text), 2.0), "a cat", 16)
        [batch] = drawing.draw(range(3, 9))
        assert np.abs(shown[name].astype(int) - batch.images.numpy()).max() <= 1


def test_without_a_prompt_nothing_is_drawn(model):
    with pytest.raises(InputError, match="there is no prompt"):
        next(draw(model(), ["ddim:2", "ddim:3"], " ", 2.0, range(1)))
