"""The page's part for pipelines: what samplers cost, and the images of two of them from the same seeds."""

import re
from dataclasses import replace
from threading import active_count

import numpy as np
import pytest
import torch

from restart_sampling.app import prompts, text_samples
from restart_sampling.app.prompts import describe, draw, prepare_sampler, starts
from restart_sampling.app.text_samples import on_the_way
from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image.drawing import Request, prepare
from restart_sampling.text_to_image.guiding import counted_images
from restart_sampling.text_to_image.samplers import Sampler

pytestmark = pytest.mark.usefixtures("one_thread")


def panels(paths):
    return len(re.findall(r'id="paths-axes_\d+"', paths))


def test_what_samplers_cost_and_what_is_wrong_with_them_is_said(model):
    first, second, paths = describe(model(), ["ddim:4", "restart:6 [3,2,0.5,2.0]"], 2.0)
    assert first == "<p><b>NFE 4</b>, 8 evaluations of the network with guidance</p>"
    assert "<b>NFE 14</b>, 28 evaluations" in second
    assert panels(paths) == 2
    first, second, paths = describe(model(), ["<b>", "ddim:4 clip_sample_range=3"], 1.0)
    assert 'role="alert"' in first
    assert "there is no sampler &#39;&lt;b&gt;&#39;" in first
    assert second.startswith("<p><b>NFE 4</b></p><p>the sampler &#39;ddim:4 clip_sample_range=3&#39; draws the same")
    assert panels(paths) == 1
    first, second, _ = describe(model(), ["ddim:501", " /etc/sampler.json"], 1.0)
    assert "the page at most 500" in first
    assert "the page reads no files; write the sampler itself" in second
    first, second, _ = describe(model(), [None, "ddim:4"], None)  # of empty fields
    assert "the field is empty; write the sampler itself" in first
    assert "guidance scale = None; give a number" in second


@pytest.mark.parametrize("kind", ["sd", "sd3"])
def test_the_samplers_that_are_offered_suit_the_pipeline(kind, model):
    for text in starts(model(kind)):
        assert prepare_sampler(model(kind), text, 5.0, "").nfe > 0


TEXTS = ["ddim:3", "restart:3 [2,1,0.5,2.0]"]


@pytest.fixture
def at_each_step(monkeypatch):
    monkeypatch.setattr(text_samples, "BETWEEN", 0.0)
    monkeypatch.setattr(text_samples, "_SHARE", 0.0)


@pytest.mark.usefixtures("at_each_step")
def test_images_are_those_of_text_generate_a_few_of_each_sampler_in_turn(model, monkeypatch):
    shown = {}
    monkeypatch.setattr(prompts, "picture", lambda name, images, caption: shown.update({name: images}) or caption)
    yielded = [tuple(each) for each in draw(model(), TEXTS, "a cat", 2.0, range(3, 9))]
    a, b = "ddim:3, NFE 3: ", "restart:3 [2,1,0.5,2], NFE 5: "
    steps_a, steps_b = ([f"{n} of {nfe} evaluations" for n in range(1, nfe)] for nfe in (3, 5))
    half = "4 of 6 images"
    assert yielded == [
        *((a + far, "") for far in [*steps_a, half]),
        *((a + half, b + far) for far in [*steps_b, half]),
        *((a + far, b + half) for far in [*(f"{half} and {far}" for far in steps_a), "done"]),
        *((a + "done", b + far) for far in [*(f"{half} and {far}" for far in steps_b), "done"]),
    ]
    for name, text in zip(("Sampler A", "Sampler B"), TEXTS, strict=True):
        drawing = prepare(model(), Request(Sampler.parse(text), 2.0), "a cat", 4)
        drawn = torch.cat([batch.images for batch in drawing.draw(range(3, 9))])
        assert np.array_equal(shown[name], drawn.numpy())


@pytest.mark.usefixtures("at_each_step")
@pytest.mark.parametrize(("kind", "text"), [("sd", "ddim:3"), ("sd", "restart:3 [2,1,0.5,2]"), ("sd3", "euler:3")])
def test_on_the_way_are_the_estimates_where_the_scheduler_makes_them_and_else_the_states(kind, text, model):
    drawing = prepare_sampler(model(kind), text, 2.0, "a cat")
    seen, step = [], drawing.scheduler.step
    drawing.scheduler.step = lambda *tensors, **named: seen.append(step(*tensors, **named)) or seen[-1]
    *on, _ = on_the_way(drawing, range(2))
    assert [number for number, _ in on] == [*range(1, drawing.nfe)]
    pipe = drawing.model.pipe
    for (_, pictures), made in zip(on, seen, strict=False):
        latents = made[1 if kind == "sd" else 0] / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
        [decoded] = pipe.vae.decode(latents, return_dict=False)
        expected = pipe.image_processor.postprocess(decoded.detach(), output_type="np").transpose(0, 3, 1, 2) * 255
        assert np.abs(expected - pictures).max() <= 1


def test_what_is_on_the_way_is_shown_now_and_then_but_the_images_always(model, monkeypatch):
    monkeypatch.setattr(text_samples, "BETWEEN", 1e9)
    drawing = prepare_sampler(model(), "ddim:4", 2.0, "a cat")
    assert [number for number, _ in on_the_way(drawing, range(2))] == [1, 4]


@pytest.mark.usefixtures("at_each_step")
def test_no_step_is_taken_after_a_stop_and_the_pipeline_draws_again(model):
    pipeline, before = replace(model()), active_count()  # which has not been asked what a sampler costs
    running = draw(pipeline, TEXTS, "a cat", 2.0, range(2))
    with counted_images(pipeline.network) as count:
        next(running)
        next(running)
        assert count() == 2 * 2 * 2 + 2 * 2  # two steps of two images, and a first row of two samplers, with guidance
        running.close()
        assert count() == 12
    assert active_count() == before
    *_, last = draw(pipeline, TEXTS, "a cat", 2.0, range(2))
    assert [each.count("done") for each in last] == [1, 1]


@pytest.mark.usefixtures("at_each_step")
def test_what_goes_wrong_on_the_way_is_told(model):
    drawing = prepare_sampler(model(), "ddim:3", 2.0, "a cat")
    step = drawing.scheduler.step
    drawing.scheduler.step = lambda *a, **k: tuple(x * float("nan") for x in step(*a, **k))
    with pytest.raises(InputError, match="is not finite with sampler 'ddim:3'"):
        list(on_the_way(drawing, range(1)))


def test_without_a_prompt_nothing_is_drawn(model):
    with pytest.raises(InputError, match="there is no prompt"):
        next(draw(model(), ["ddim:2", "ddim:3"], " ", 2.0, range(1)))
