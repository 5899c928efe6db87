"""Images of prompts: all noise of an image is its own, and what it costs is what was said."""

from copy import copy
from dataclasses import replace
from functools import wraps
from itertools import pairwise

import diffusers
import pytest
import torch

from restart_sampling.base.errors import InputError
from restart_sampling.generation import pace as pace_module
from restart_sampling.generation.pace import Pace
from restart_sampling.text_to_image import drawing as drawing_module
from restart_sampling.text_to_image import pipeline as pipeline_module
from restart_sampling.text_to_image.drawing import Request, prepare
from restart_sampling.text_to_image.guiding import counted_images
from restart_sampling.text_to_image.pipeline import load_pipeline, networks_of
from restart_sampling.text_to_image.samplers import Sampler

PROMPTS = ["a cat", "two dogs, running", "the sea"]
NUMBERS = [4, 0, 7]
NOISE = ("ddim:5", "ddpm:5", "heun:3", "dpmpp:5", "restart:6 [3,2,0.5,2.0]")
FLOW = ("euler:4", "heun:3", "restart:4 [3,2,0.3,0.6]")
CASES = [(kind, sampler) for kind in ("sd", "sdxl") for sampler in NOISE] + [
    (kind, sampler) for kind in ("sd3", "flux") for sampler in FLOW
]
EVALUATIONS = {"ddim:5": 5, "ddpm:5": 5, "heun:3": 5, "dpmpp:5": 5, NOISE[-1]: 6 + 8, "euler:4": 4, FLOW[-1]: 4 + 8}

pytestmark = pytest.mark.usefixtures("one_thread")


def asked(sampler, **more):
    return Request(Sampler.parse(sampler), **{"guidance": 4.0, "height": 16, "width": 16, **more})


def images(drawing, prompts=PROMPTS, numbers=NUMBERS, batch_size=3):
    own = {"prompts": dict(zip(numbers, prompts, strict=True)), "batch": batch_size, "pace": Pace(batch_size)}
    batches = list(replace(drawing, **own).draw(numbers))
    assert [number for batch in batches for number in batch.seeds] == list(numbers)
    return torch.cat([batch.images for batch in batches])


def difference(one, other):
    return (one.int() - other.int()).abs().max().item()


@pytest.mark.parametrize("kind", ["sd", "sdxl", "sd3", "flux"])
def test_networks_are_evaluated_once_for_samplers_that_ask_them_the_same(kind, model, monkeypatch):
    pipe = replace(model(kind))  # which has not been asked
    called, samplers = [], FLOW if kind in ("sd3", "flux") else NOISE
    for name, network in networks_of(pipe.pipe).items():

        def forward(*arguments, evaluate=network.forward, name=name, **named):
            called.append(name)
            return evaluate(*arguments, **named)

        monkeypatch.setattr(network, "forward", wraps(network.forward)(forward))
    expected = [prepare(replace(model(kind)), asked(each)) for each in samplers]
    alone = len(called)
    called.clear()
    drawings = [prepare(pipe, asked(each)) for each in (*samplers, *samplers)]
    network = "unet" if kind in ("sd", "sdxl") else "transformer"
    # Timesteps are int64 or float32, and the network is asked with both.
    assert called.count(network) == (2 if network == "unet" else 1)
    assert len(called) < alone / 2
    costs = [(each.nfe, each.network_evaluations) for each in drawings]
    assert costs == 2 * [(each.nfe, each.network_evaluations) for each in expected]
    called.clear()
    half = prepare(pipe, asked(samplers[0], guidance=1.0))
    assert half.network_evaluations in (half.nfe, drawings[0].network_evaluations)  # FLUX never guides
    assert called.count(network) == (kind != "flux")


@pytest.mark.parametrize(("kind", "sampler"), CASES)
def test_an_image_depends_on_its_number_and_prompt_alone(kind, sampler, model):
    """Batches of 1, 2 and 3, in two orders, one call after another; the prompts of a batch differ."""
    drawing = prepare(model(kind), asked(sampler))
    whole = images(drawing)
    assert (whole.dtype, tuple(whole.shape)) == (torch.uint8, (3, 3, 16, 16))
    for size in (1, 2):
        assert difference(images(drawing, batch_size=size), whole) <= 1
    backwards = images(drawing, PROMPTS[::-1], NUMBERS[::-1], batch_size=2)
    assert difference(backwards.flip(0), whole) <= 1
    other_prompt = images(drawing, ["rain", *PROMPTS[1:]])
    assert difference(other_prompt[0], whole[0]) > 1
    assert difference(other_prompt[1:], whole[1:]) <= 1
    other_number = images(drawing, numbers=[5, *NUMBERS[1:]])
    assert difference(other_number[0], whole[0]) > 20


def test_the_first_batch_shows_how_many_images_are_drawn_at_a_time(model, monkeypatch):
    """Blocks and images stay what they were, and the next drawing of the pipeline begins with what pays."""
    monkeypatch.setattr(Pace, "finds_more", lambda pace, device: pace.automatic and not pace.measured)
    monkeypatch.setattr(pace_module, "_allocated", lambda device: 0)
    monkeypatch.setattr(Pace, "_learn", lambda pace, before, device: setattr(pace, "at_once", 4))
    monkeypatch.setattr(pipeline_module, "TEXT_BLOCK", 2)
    monkeypatch.setattr(drawing_module, "TEXT_BLOCK", 2)
    call, sizes = drawing_module._call, []
    monkeypatch.setattr(drawing_module, "_call", lambda *given: sizes.append(len(given[-1])) or call(*given))
    pipe = replace(model("sd"))
    found = list(prepare(pipe, asked("ddim:2"), "a cat").draw(range(7)))
    assert [batch.seeds for batch in found] == [(0, 1), (2, 3), (4, 5), (6,)]
    assert sizes == [1, 2, 4, 1]  # the first finds out what an image costs
    list(prepare(pipe, asked("ddim:3"), "a cat").draw(range(5)))
    assert sizes[4:] == [1, 4, 1]
    pixels = torch.cat([batch.images for batch in found])
    assert difference(pixels, images(prepare(pipe, asked("ddim:2"), "a cat"), ["a cat"] * 7, range(7), 7)) <= 1


@pytest.mark.parametrize("sampler", ["heun:3", "restart:6 [3,2,0.1,2.0]"])
def test_progress_is_told_of_each_evaluation_under_guidance(sampler, model):
    drawing, told = prepare(model("sd"), asked(sampler), "rain", 2), []
    batches = drawing.draw(range(3), told.append)
    next(batches)
    assert told == pytest.approx([2 / drawing.nfe] * drawing.nfe)
    next(batches)
    assert sum(told) == pytest.approx(3)


@pytest.mark.parametrize(("kind", "sampler"), CASES)
def test_images_are_those_of_the_pipeline_with_one_generator(kind, sampler, model):
    drawing = prepare(model(kind), asked(sampler, seed=10))
    pipe = model(kind).pipe
    pipe.scheduler = drawing.scheduler
    generator = torch.Generator().manual_seed(14)
    drawing.scheduler.generator = generator
    expected = pipe(
        PROMPTS[0],
        num_inference_steps=drawing.request.sampler.steps,
        guidance_scale=4.0,
        generator=generator,
        height=16,
        width=16,
        output_type="pt",
    ).images
    assert difference(images(drawing)[:1], (expected * 255).round()) <= 1


@pytest.mark.parametrize(("kind", "sampler"), CASES)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_evaluations_are_the_calls_that_the_pipeline_makes(kind, sampler, guidance, model, monkeypatch):
    drawing = prepare(model(kind), asked(sampler, guidance=guidance))
    network, scheduler = model(kind).network, type(drawing.scheduler)
    batches, steps = [], []
    forward, step = type(network).forward, scheduler.step

    def counted_forward(self, *given, **named):
        batches.append(len(given[0] if given else named["hidden_states"]))
        return forward(self, *given, **named)

    def counted_step(self, *given, **named):
        steps.append(None)
        return step(self, *given, **named)

    counted_step.__wrapped__ = step  # pipelines look at its arguments
    monkeypatch.setattr(type(network), "forward", counted_forward)
    monkeypatch.setattr(scheduler, "step", counted_step)
    images(drawing)
    assert len(steps) == drawing.nfe == EVALUATIONS.get(sampler, 5)
    assert sum(batches) == 3 * drawing.network_evaluations
    twice = guidance > 1 and kind != "flux"
    assert drawing.network_evaluations == drawing.nfe * (2 if twice else 1)


@pytest.mark.parametrize("sampler", ["ddpm:5", NOISE[-1]])
def test_no_noise_is_drawn_from_the_global_generator(sampler, model):
    drawing = prepare(model(), asked(sampler))
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        results.append(images(drawing))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*results)


def test_noise_without_a_seed_is_refused(model, monkeypatch):
    step = diffusers.DDPMScheduler.step

    def unseeded(self, model_output, timestep, sample, generator=None, return_dict=True):
        return step(self, model_output, timestep, sample, None, return_dict)

    monkeypatch.setattr(diffusers.DDPMScheduler, "step", unseeded)
    drawing = prepare(model(), asked("ddpm:5"))
    with pytest.raises(InputError, match="StableDiffusionPipeline with sampler 'ddpm:5' draws noise without a seed"):
        images(drawing)


def test_a_setting_that_fails_in_a_step_is_told(model):
    drawing = prepare(model(), asked("ddpm:2 variance_type=learned"))
    with pytest.raises(InputError, match="with sampler 'ddpm:2 variance_type=learned': TypeError: unsupported operand"):
        images(drawing)


def test_evaluations_that_were_not_announced_are_refused(model, monkeypatch):
    drawing = prepare(model(), asked("ddim:5"))
    twice = type(model().network).forward

    def forward(self, *given, **named):
        if not named.pop("again", False):
            self(*given, again=True, **named)
        return twice(self, *given, **named)

    monkeypatch.setattr(type(model().network), "forward", forward)
    with pytest.raises(InputError, match="took 60 network evaluations for 3 images, and 10 for each were expected"):
        images(drawing)


def test_an_image_that_is_not_finite_is_named(model, monkeypatch):
    decode = model().pipe.vae.decode

    def broken(latents, *given, **named):
        (images,) = decode(latents, *given, **named)
        images[1] = float("nan")
        return (images,)

    drawing = prepare(model(), asked("ddim:5"))
    monkeypatch.setattr(model().pipe.vae, "decode", broken)
    with pytest.raises(InputError, match=r"image 0 \('two dogs, running'\) is not finite with sampler 'ddim:5'"):
        images(drawing)


def test_a_negative_prompt(model):
    plain = images(prepare(model(), asked("ddim:5")))
    assert difference(images(prepare(model(), asked("ddim:5", negative_prompt="blue"))), plain) > 0
    for kind, guidance in (("sd", 1.0), ("flux", 4.0)):
        sampler = "ddim:5" if kind == "sd" else "euler:4"
        with pytest.raises(InputError, match="a negative prompt does nothing without classifier-free guidance"):
            prepare(model(kind), asked(sampler, negative_prompt="blue", guidance=guidance))


def test_the_size_is_the_pipelines_or_what_was_asked(model):
    assert images(prepare(model(), Request(Sampler.parse("ddim:2")))).shape[2:] == (16, 16)
    assert images(prepare(model(), asked("ddim:2", height=24, width=32))).shape[2:] == (24, 32)
    with pytest.raises(InputError, match="makes images of 16x16, where 18x16 were asked for"):
        images(prepare(model("flux"), asked("euler:2", height=18, width=16)))


@pytest.mark.parametrize(
    ("kind", "sampler", "more", "said"),
    [
        ("sd", "ddim:5", {"height": 15}, "sampler 'ddim:5' with StableDiffusionPipeline: ValueError: `height`"),
        ("sd", "ddim:5", {"height": None}, "height and width go together"),
        ("sd", "ddim:5", {"guidance": float("nan")}, "guidance is nan"),
        ("sd", "restart:9 [10,2,0.1,2] restart_budget=inside", {}, "use more steps"),
        ("sd", "restart:9 [3,2,0.1,200]", {}, "t_max"),
        ("sd", "euler:5", {}, "is not for models that predict noise"),
        ("sd3", "restart:9 [3,2,0.3,1.5]", {}, "t_max is above"),
        ("flux", "restart", {}, "no restarts are published for flow models"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_drawn(kind, sampler, more, said, model):
    with pytest.raises(InputError) as error:
        prepare(model(kind), asked(sampler, **more))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_sampler_that_a_pipeline_cannot_feed_is_refused_before_the_network_is_evaluated(model):
    """Kandinsky's never scale the input of their network."""
    pipe = copy(model().pipe)
    pipe.__class__ = type("KandinskyV22CombinedPipeline", (type(pipe),), {})
    kandinsky = replace(model(), pipe=pipe)
    with counted_images(model().network) as count:
        for sampler in ("heun:3", "restart"):
            with pytest.raises(InputError, match="KandinskyV22CombinedPipeline never scales the input of its network"):
                prepare(kandinsky, asked(sampler))
        assert count() == 0
    pipe.decoder_pipe = copy(model().pipe)
    pipe.decoder_pipe.scheduler = pipe.scheduler
    drawing = prepare(kandinsky, asked("ddim:5"))
    assert drawing.nfe == 5
    assert pipe.decoder_pipe.scheduler is pipe.scheduler is drawing.scheduler


def test_the_papers_restarts_in_another_model_are_noted(model):
    assert "StableDiffusionXLPipeline is of another model" in prepare(model("sdxl"), asked("restart")).note
    assert prepare(model("sdxl"), asked(NOISE[-1])).note is None
    assert prepare(model(), asked("restart")).note is None


def test_the_path_of_levels(model):
    scheduler = diffusers.DDIMScheduler.from_config(model().scheduler_config)
    scheduler.set_timesteps(50)
    alphas = scheduler.alphas_cumprod[scheduler.timesteps]
    path = prepare(model(), asked("ddim:50")).path
    assert [row for row, _ in path] == list(range(50))
    assert [level for _, level in path] == pytest.approx(((1 - alphas) / alphas).sqrt().tolist())
    heun = prepare(model(), asked("heun:26")).path
    assert [row for row, _ in heun] == [*range(0, 51, 2), 51]
    assert all(then < now for (_, now), (_, then) in pairwise(heun))
    restart = prepare(model(), asked("restart", guidance=8.0))
    levels = [level for _, level in restart.path]
    assert [round(now, 3) for now, then in pairwise(levels) if then > now] == [0.041, 0.041]
    assert (restart.path[0][0], restart.path[-1][0], restart.nfe) == (0, 64, 64)


def test_bfloat16(folder):
    half = load_pipeline(str(folder()), torch.device("cpu"), torch.bfloat16)
    drawing = prepare(half, asked(NOISE[-1]))
    assert half.dtype == drawing.about["arithmetic"] == "bfloat16"
    assert images(drawing).float().std() > 10


def test_settings_that_are_arrays_are_lists_in_what_is_said_of_the_images(model):
    pipeline = model()
    betas = torch.linspace(0.001, 0.02, pipeline.scheduler_config["num_train_timesteps"]).numpy()
    given = replace(pipeline, scheduler_config={**pipeline.scheduler_config, "trained_betas": betas})
    assert prepare(given, asked("restart")).about["scheduler"]["trained_betas"] == betas.tolist()
