"""Guidance in a pipeline: an interval of levels, and a second network in place of the unconditional one."""

import json
from copy import deepcopy
from dataclasses import replace
from math import inf

import pytest
import torch
from tiny_folders import spread

from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image.drawing import Request, prepare
from restart_sampling.text_to_image.guiding import Guide, guiding, rows_on
from restart_sampling.text_to_image.pipeline import load_guide
from restart_sampling.text_to_image.samplers import Sampler

RESTART = "restart:6 [3,2,0.5,2.0]"
SAMPLERS = [("sd", each) for each in ("ddim:5", "heun:4", RESTART)] + [("sdxl", "dpmpp:4"), ("sd3", "euler:4")]

pytestmark = pytest.mark.usefixtures("one_thread")


def drawing(model, sampler, guidance=4.0, **more):
    request = Request(Sampler.parse(sampler), **{"guidance": guidance, "height": 16, "width": 16, **more})
    return prepare(model, request, ["a cat", "the sea"], batch=2)


def images(drawing):
    return torch.cat([batch.images for batch in drawing.draw([0, 1])]).int()


def evaluations(monkeypatch, network):
    """The images of each call of a network from now on."""
    sizes, forward = [], network.forward

    def counted(*arguments, **named):
        sizes.append(len(arguments[0] if arguments else named["hidden_states"]))
        return forward(*arguments, **named)

    monkeypatch.setattr(network, "forward", counted)
    return sizes


@pytest.fixture
def weak(model):
    """A guide for each kind of pipeline: the network with other weights."""

    def weak(kind):
        torch.manual_seed(7)
        network = type(model(kind).network).from_config(model(kind).network.config)
        return replace(model(kind), guide=Guide("weak", spread(network, 0.1), "of weak"))

    return weak


@pytest.mark.parametrize(("kind", "sampler"), SAMPLERS)
def test_an_interval_of_all_levels_is_plain_guidance(kind, sampler, model):
    plain, everywhere = (drawing(model(kind), sampler, interval=each) for each in (None, (0.0, inf)))
    assert everywhere.network_evaluations == plain.network_evaluations == 2 * plain.nfe
    assert torch.equal(images(everywhere), images(plain))


@pytest.mark.parametrize(("kind", "sampler"), SAMPLERS)
def test_outside_the_interval_the_network_is_evaluated_once_and_nothing_guides(kind, sampler, model, monkeypatch):
    scheduler = drawing(model(kind), sampler).scheduler
    alphas = scheduler.alphas_cumprod[scheduler.timesteps.long()] if sampler == "ddim:5" else None
    levels = (scheduler.sigmas if alphas is None else (1 / alphas - 1) ** 0.5).tolist()[: len(scheduler.timesteps)]
    low, middle, high = sorted(set(levels))[-3:]  # the first row is outside, and those from `low` on
    made = drawing(model(kind), sampler, interval=(low, (middle + high) / 2))
    on = [low < level < high for level in levels]
    assert 0 < sum(on) < len(on) - 1
    assert made.network_evaluations == made.nfe + sum(on)
    sizes = evaluations(monkeypatch, model(kind).network)
    seen = images(made)
    assert sizes == [4 if each else 2 for each in on]
    assert not torch.equal(seen, images(drawing(model(kind), sampler)))


def test_an_interval_that_hardly_guides_is_nearly_no_guidance(model):
    """Of the levels that a sampler goes through the lowest alone, with a scale of nearly 1."""
    made = drawing(model(), "ddim:5", guidance=1.001, interval=(0.0, 1.0))
    assert (images(made) - images(drawing(model(), "ddim:5", guidance=1.0))).abs().max() <= 1


@pytest.mark.parametrize(("kind", "sampler"), [SAMPLERS[0], SAMPLERS[2], SAMPLERS[4]])
def test_a_guide_answers_in_place_of_the_unconditional_network(kind, sampler, weak, model, monkeypatch):
    """D = D_guide + scale (D_net - D_guide), both with the prompt."""
    made = drawing(weak(kind), sampler)
    assert made.network_evaluations == 2 * made.nfe
    own, guide = (evaluations(monkeypatch, each) for each in made.model.evaluated)
    seen = images(made)
    assert own == guide == [2] * made.nfe
    assert not torch.equal(seen, images(drawing(model(kind), sampler)))
    same = replace(model(kind), guide=Guide("its copy", deepcopy(model(kind).network), ""))
    unguided = images(drawing(model(kind), sampler, guidance=1.0))
    assert (images(drawing(same, sampler, guidance=3.0)) - unguided).abs().max() <= 1


def test_a_guide_in_an_interval(weak):
    made = drawing(weak("sd"), "ddim:5", interval=(0.5, 5.0))
    assert made.nfe < made.network_evaluations < 2 * made.nfe
    assert images(made).shape == (2, 3, 16, 16)
    assert made.about["guidance_interval"] == [0.5, 5.0]
    assert made.about["guide_sha256"] == "of weak"


def test_without_either_the_settings_are_those_of_before(model):
    assert {"guidance_interval", "guide_sha256"}.isdisjoint(drawing(model(), "ddim:5").about)


def test_the_answers_of_a_row():
    """The formula, on a network that is known."""

    class Network(torch.nn.Module):
        def forward(self, x, scale, return_dict=True):
            return (x * scale.reshape(-1, 1),)

    network, guide = Network(), Network()
    x, scale = torch.tensor([[1.0], [2.0], [1.0], [2.0]]), torch.tensor([5.0, 6.0, 7.0, 8.0])
    with guiding(network, [True, False], None):
        (first,), (second,) = network(x, scale), network(x, scale=scale, return_dict=False)
    assert first.flatten().tolist() == [5.0, 12.0, 7.0, 16.0]
    assert second.flatten().tolist() == [7.0, 16.0, 7.0, 16.0]
    guide.forward = lambda x, scale, **_: (x + 100,)
    with guiding(network, [True, False], Guide("", guide, "")):
        (first,), (second,) = network(x, scale), network(x, scale)
    assert first.flatten().tolist() == [101.0, 102.0, 7.0, 16.0]
    assert second.flatten().tolist() == [7.0, 16.0, 7.0, 16.0]
    assert "forward" not in vars(network)


def test_rows_where_guidance_is_on():
    assert rows_on([3.0, 2.0, 1.0], (1.0, 2.0)) == [False, True, False]
    assert rows_on([3.0, 2.0], None) == [True, True]
    with pytest.raises(InputError, match="from 3 to 1 without a step there"):
        rows_on([3.0, 1.0], (1.5, 2.0))


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("sd", {"interval": (2.0, 2.0)}, "guidance interval is 2 to 2"),
        ("sd", {"interval": (-1.0, 2.0)}, "guidance interval is -1 to 2"),
        ("sd", {"interval": (20.0, 30.0)}, "without a step there"),
        ("sd", {"interval": (0.5, 2.0), "guidance": 1.0}, "none does at guidance 1"),
        ("flux", {"interval": (0.5, 0.9)}, "with and without its prompt in one batch"),
    ],
)
def test_what_cannot_guide_is_refused(kind, more, said, model):
    with pytest.raises(InputError) as error:
        drawing(model(kind), "euler:4" if kind == "flux" else "ddim:5", **more)
    assert said in str(error.value)


def test_a_pipeline_that_guides_in_another_way_is_refused(model, monkeypatch):
    step = "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion.StableDiffusionPipeline.guidance_rescale"
    monkeypatch.setattr(step, 0.7)  # the answers are rescaled
    with pytest.raises(InputError, match="something else of its network's answers"):
        drawing(model(), "ddim:5", interval=(0.5, 5.0))


def test_a_guide_and_a_negative_prompt_are_one_too_many(weak):
    with pytest.raises(InputError, match="weak guides in place"):
        drawing(weak("sd"), "ddim:5", negative_prompt="rain")


def test_a_guide_from_a_folder(model, folder, tmp_path):
    loaded = load_guide(str(folder()), model())
    assert (loaded.name, type(loaded.network)) == (str(folder()), type(model().network))
    for place, said in (
        ("./nowhere", "there is no such folder"),
        (str(tmp_path), "could not be loaded"),
        ("tiny-text-to-image", "it guides no other pipeline"),
    ):
        with pytest.raises(InputError, match=f"--guide {place}:? {said}"):
            load_guide(place, model())


def test_a_guide_was_trained_with_the_same_noise(model, folder, tmp_path):
    """A setting that an older file lacks is at the value that changes nothing."""
    for part in folder().iterdir():
        (tmp_path / part.name).symlink_to(part)
    (tmp_path / "scheduler").unlink()
    (tmp_path / "scheduler").mkdir()
    file = tmp_path / "scheduler" / "scheduler_config.json"
    config = json.loads((folder() / "scheduler" / "scheduler_config.json").read_text())
    changed = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "snr_shift_scale": 3.0}
    for key, value in changed.items():
        file.write_text(json.dumps({**config, key: value}))
        with pytest.raises(InputError, match=f"trained with {key} {value}, and"):
            load_guide(str(tmp_path), model())
    file.write_text(json.dumps({key: value for key, value in config.items() if key != "rescale_betas_zero_snr"}))
    assert load_guide(str(tmp_path), model()).sha256 == load_guide(str(folder()), model()).sha256


def test_from_the_command_line(folder, tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.csv").write_text("caption\na cat\nthe sea\n")
    command = ("text", "generate", "--model", folder(), "--prompts", "prompts.csv", "--scheduler", "ddim:5", "--json")
    code, stdout, stderr = run(*command, "--out", "out", "--guidance-interval", "0.5,5", "--guide", folder())
    assert code == 0, stderr
    assert json.loads(stdout)["network_evaluations"] < 10
    about = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert "0.5" in json.dumps(about)
    code, _, stderr = run(*command, "--out", "out")
    assert code == 2
    assert "guidance_interval" in stderr
    for text in ("5,0.5", "1", "a,b", "nan,3"):
        code, _, stderr = run(*command, "--out", "new", "--guidance-interval", text)
        assert code == 2
        assert "guidance" in stderr
        assert "0.3,5" in stderr
