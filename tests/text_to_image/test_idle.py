"""Settings of samplers that do nothing are named."""

from dataclasses import replace

import pytest

from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image import idle
from restart_sampling.text_to_image.drawing import Request, prepare
from restart_sampling.text_to_image.idle import idle_notes, idle_settings
from restart_sampling.text_to_image.samplers import MadeFor, Sampler

pytestmark = pytest.mark.usefixtures("one_thread")


def drawing(model, text, guidance=5.0):
    return prepare(model, Request(Sampler.parse(text), guidance, height=16, width=16))


@pytest.mark.parametrize(
    ("kind", "text", "settings"),
    [
        ("sd", "ddim:5", []),
        ("sd", "ddim:5 clip_sample=true clip_sample_range=2.0", []),
        ("sd", "ddim:5 clip_sample_range=2.0", ["clip_sample_range=2.0"]),
        ("sd", "ddim:5 thresholding=true sample_max_value=2.0", []),
        ("sd", "ddim:5 sample_max_value=2.0", ["sample_max_value=2.0"]),
        ("sd", "ddim:5 timestep_spacing=trailing steps_offset=0", ["steps_offset=0"]),
        ("sd", "ddpm:5 variance_type=fixed_large", []),
        ("sd", "ddpm:5 variance_type=fixed_small", ["variance_type=fixed_small"]),
        ("sd", "heun:3 use_karras_sigmas=true", []),
        ("sd", "dpmpp:5 solver_order=3", []),
        ("sd", "dpmpp:5 solver_order=2 euler_at_final=true", ["solver_order=2", "euler_at_final=true"]),
        ("sd", "restart:6 [3,2,0.5,2] restart_solver=euler restart_grid=even", []),
        ("sd", "restart:6 [3,2,0.5,2] euler_below=0.1", ["euler_below=0.1"]),
        ("sd", "restart:6 restart=null solver=deis restart_solver=ab", ["restart_solver=ab"]),
        ("sd", "restart:6 restart=null restart_grid=even euler_below=0.3", ["restart_grid=even", "euler_below=0.3"]),
        ("sd", "restart:6 restart=null sigma_max=9", ["sigma_max=9"]),
        ("sd", "restart:6 restart=null use_karras_sigmas=true sigma_max=9", []),
        ("sd", "restart:6 restart=null prediction_type=v_prediction timestep_type=continuous", []),
        ("sd3", "euler:4 shift=5.0", []),
        ("sd3", "euler:4 restart_solver=heun use_karras_sigmas=true", ["restart_solver=heun"]),
        ("flux", "euler:4 max_shift=9.0 shift=5.0", ["shift=5.0"]),  # whose shift is of the size of the images
    ],
)
def test_a_setting_without_which_the_images_are_the_same(kind, text, settings, model):
    assert idle_settings(drawing(model(kind), text)) == settings


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "ddpm:5 clip_sample=true variance_type=learned",
            "fails in a step of DDPMScheduler (TypeError: unsupported operand",
        ),
        ("ddim:5 clip_sample=true beta_end=2.5", "ends at values that are not finite"),
    ],
)
def test_what_its_scheduler_fails_with_is_said_before_anything_is_drawn(text, said, model):
    with pytest.raises(InputError) as error:
        idle_settings(drawing(model(), text))
    assert str(error.value).startswith(f"sampler '{text}' {said}")
    assert str(error.value).endswith(f"; leave out {text.split()[-1]}")


def test_a_network_may_give_its_scheduler_a_variance(model, monkeypatch):
    """As DeepFloyd's do: of twice as many channels as go in."""
    asked = drawing(model(), "ddpm:5 variance_type=learned_range clip_sample=true")
    with pytest.raises(InputError, match=r"leave out variance_type=learned_range"):
        idle_settings(asked)
    monkeypatch.setitem(vars(asked.model.network)["_internal_dict"], "out_channels", 8)
    assert idle_settings(asked) == []


def test_other_failures_are_not_hidden(model, monkeypatch):
    asked = drawing(model(), "ddim:5 clip_sample=true")

    def fails_without(model, request):
        return prepare(model, request) if request.sampler.settings else model.no_such_name

    monkeypatch.setattr(idle, "prepare", fails_without)
    with pytest.raises(AttributeError, match="no_such_name"):
        idle_settings(asked)


def test_a_note_names_what_is_idle_at_every_guidance_scale(model, caplog):
    """At guidance 2 the restarts end at level 1, where no step ends below 0.3."""
    never, once = "restart:30 euler_below=0.045", "restart:30 euler_below=0.3"
    drawings = [drawing(model(), text, scale) for text in (never, once) for scale in (2.0, 5.0, 2.0)]
    assert idle_notes(drawings) == [f"the sampler '{never}' draws the same without euler_below=0.045"]
    assert idle_notes(drawings[-1:]) == [f"the sampler '{once}' draws the same without euler_below=0.3"]
    request = drawings[-1].request
    found = replace(request.sampler, made_for=MadeFor(drawings[-1].model.identity, 2.0))
    assert idle_notes([replace(drawings[-1], request=replace(request, sampler=found))]) == []


def test_a_sampler_of_which_nothing_is_idle_is_not_looked_at_again(model, monkeypatch):
    drawings, looked_at = [drawing(model(), "ddim:5 clip_sample=true", scale) for scale in (2.0, 5.0, 7.0)], []
    monkeypatch.setattr(idle, "idle_settings", lambda each: looked_at.append(each) or [])
    assert (idle_notes(drawings), len(looked_at)) == ([], 1)


def test_levels_are_not_told_that_nobody_has_asked_for(model, caplog):
    asked = drawing(model(), "restart:6 [3,2,0.7371,2] restart_grid=even use_karras_sigmas=true")
    caplog.clear()
    assert idle_settings(asked) == []
    assert not caplog.records
