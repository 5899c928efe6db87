"""Slips of hand-written loops and edits behind a scheduler's back: right, or one error at the first wrong step."""

import json

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from scheduler_runs import FLOW_PLAN, PLAN, network, run, start
from tiny_pipelines import SD, generators

from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image import (
    FlowMatchRestartScheduler,
    RestartScheduler,
    guidance_preset,
    steps_preset,
)

MADE = [
    lambda: RestartScheduler(**SD, solver="euler"),
    lambda: RestartScheduler(**SD, restart=PLAN, solver="heun"),
    lambda: RestartScheduler(**SD, restart=PLAN, use_karras_sigmas=True),
    lambda: FlowMatchRestartScheduler(restart=FLOW_PLAN),
]


@pytest.fixture(params=MADE, ids=["plain", "heun", "karras", "flow"])
def scheduler(request):
    made = request.param()
    made.set_timesteps(30)
    return made


def loop(scheduler, x, change=lambda row, timestep: timestep, calls=1, first=0):
    for row, timestep in enumerate(scheduler.timesteps[first:], first):
        output = network(scheduler.scale_model_input(x, timestep), timestep)
        for _ in range(calls):
            after = scheduler.step(output, change(row, timestep), x, generator=generators([1, 2]))
        x = after.prev_sample
    return x


def begin(scheduler):
    return start(float(scheduler.sigmas[0]))


def test_a_second_image_without_set_timesteps_is_right(scheduler):
    first = loop(scheduler, begin(scheduler))
    assert torch.equal(loop(scheduler, begin(scheduler)), first)
    assert torch.equal(loop(scheduler, begin(scheduler), lambda _, timestep: timestep.item()), first)


def noised(scheduler, timesteps):
    data, noise = torch.zeros(2, 4, 8, 8), start()
    if isinstance(scheduler, FlowMatchRestartScheduler):
        return scheduler.scale_noise(data, timesteps, noise)
    return scheduler.add_noise(data, noise, timesteps)


@pytest.mark.parametrize("copy", [False, True])
def test_a_run_after_one_that_is_over_may_begin_elsewhere(scheduler, copy):
    """Loops that go over a picture again noise it to a row that only the timestep tells, without set_timesteps."""
    results = []
    for again in (False, True):
        scheduler.set_timesteps(30)
        if again:
            loop(scheduler, begin(scheduler))
        timestep = scheduler.timesteps[10:11]
        x = noised(scheduler, timestep.clone() if copy else timestep)
        results.append((x, loop(scheduler, x, first=10)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_a_run_after_one_that_is_over_begins_at_a_row(scheduler):
    loop(scheduler, begin(scheduler))
    with pytest.raises(InputError, match=r"1.5 is not one of the scheduler's timesteps"):
        scheduler.step(start(), 1.5, start())


def test_what_is_blended_in_after_the_last_step_is_at_its_level(scheduler):
    """As the old inpainting pipelines do it after each step, at the timestep of the step."""
    loop(scheduler, begin(scheduler))
    assert torch.equal(noised(scheduler, scheduler.timesteps[-1:].clone()), float(scheduler.sigmas[-1]) * start())


def test_training_noise_after_a_run_is_of_its_timesteps(scheduler):
    loop(scheduler, begin(scheduler))
    levels = scheduler.sigmas[[2, 5]]
    x = noised(scheduler, scheduler.timesteps[[2, 5]].clone())
    torch.testing.assert_close(x, levels.reshape(2, 1, 1, 1) * start())


@pytest.mark.parametrize("class_", [RestartScheduler, FlowMatchRestartScheduler])
@pytest.mark.parametrize("solver", ["heun", "dpm3", "dpmpp_2m", "unipc", "deis", "sa"])
def test_what_a_solver_remembers_is_not_written_to(solver, class_):
    """SkyReels writes each state into the one before, and networks (CUDA graphs) each output."""
    flow = class_ is FlowMatchRestartScheduler
    scheduler = class_(restart=FLOW_PLAN if flow else PLAN, solver=solver, restart_budget="extra")
    ends = []
    for in_place in (False, True):
        scheduler.set_timesteps(12)
        x = start(1.0 if flow else 157.0)
        output = torch.empty_like(x)
        for timestep in scheduler.timesteps:
            answer = network(scheduler.scale_model_input(x, timestep), timestep)
            given = output.copy_(answer) if in_place else answer
            after, *_ = scheduler.step(given, timestep, x, generator=generators([1, 2]), return_dict=False)
            x = x.copy_(after) if in_place else after
        ends.append(x)
    assert torch.equal(*ends)


def test_two_steps_an_iteration_are_refused(scheduler):
    for change in (lambda _, timestep: timestep, lambda _, timestep: timestep.item()):
        scheduler.set_timesteps(30)
        with pytest.raises(InputError, match=r"at row 1 .* of another row was given"):
            loop(scheduler, begin(scheduler), change, calls=2)


def test_a_skipped_row_is_refused(scheduler):
    x = begin(scheduler)
    first, _, third, *_ = scheduler.timesteps
    x = scheduler.step(network(scheduler.scale_model_input(x, first), first), first, x).prev_sample
    with pytest.raises(InputError, match="at row 1 "):
        scheduler.step(x, third, x)


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("restart", [None, [[4, 2, 0.1, 2.0]]])
def test_an_index_is_no_timestep(spacing, restart):
    scheduler = RestartScheduler(**SD, timestep_spacing=spacing, restart=restart)
    scheduler.set_timesteps(20)
    x = begin(scheduler)
    with pytest.raises(InputError, match="not an index"):
        scheduler.step(network(x, 0), 0, x)


def test_whole_timesteps_of_an_old_loop_are_taken():
    scheduler = RestartScheduler(**SD, restart=PLAN)
    scheduler.set_timesteps(30)
    exact = loop(scheduler, begin(scheduler))
    assert torch.equal(loop(scheduler, begin(scheduler), lambda _, timestep: int(timestep)), exact)


def test_a_network_whose_input_was_not_scaled_is_noticed():
    scheduler = RestartScheduler(**SD)
    scheduler.set_timesteps(20)
    x = begin(scheduler)
    with pytest.raises(InputError, match=r"without scheduler.scale_model_input .* Kandinsky"):
        scheduler.step(network(x, 999), scheduler.timesteps[0], x)


@pytest.mark.parametrize("slip", ["the first noise", "the sample of step"])
def test_a_sample_without_the_noise_of_its_level_is_noticed(slip):
    """DiT's pipeline makes both slips."""
    scheduler = RestartScheduler(**SD)
    scheduler.set_timesteps(20)
    x, timestep = start() if slip == "the first noise" else begin(scheduler), scheduler.timesteps[0]
    scaled = scheduler.scale_model_input(x, timestep)
    with pytest.raises(InputError, match=r"noise level 14.6, .* the size of .*init_noise_sigma.* not the scaled one"):
        scheduler.step(network(scaled, timestep), timestep, x if slip == "the first noise" else scaled)


def test_previews(scheduler):
    """x0 of each step, as diffusers' Euler has it; tuples are as long as those of diffusers' schedulers."""
    x, timestep = begin(scheduler), scheduler.timesteps[0]
    output = network(scheduler.scale_model_input(x, timestep), timestep)
    level = float(scheduler.sigmas[0])
    result = scheduler.step(output, timestep, x)
    torch.testing.assert_close(result.pred_original_sample, x - level * output)
    scheduler.set_timesteps(30)
    scheduler.scale_model_input(x, scheduler.timesteps[0])
    tuples = scheduler.step(output, scheduler.timesteps[0], x, return_dict=False)
    assert len(tuples) == (1 if isinstance(scheduler, FlowMatchRestartScheduler) else 2)
    assert torch.equal(tuples[0], result.prev_sample)


def test_a_learned_variance_is_left_out():
    scheduler = RestartScheduler(**SD)
    outputs = []
    for more in ([], [torch.ones(2, 4, 8, 8)]):
        scheduler.set_timesteps(5)
        x = begin(scheduler)
        scheduler.scale_model_input(x, scheduler.timesteps[0])
        outputs.append(scheduler.step(torch.cat([x, *more], dim=1), scheduler.timesteps[0], x).prev_sample)
    assert torch.equal(*outputs)


@pytest.mark.parametrize("name", ["sigmas", "timesteps"])
def test_edits_are_refused(scheduler, name):
    with pytest.raises(InputError, match=f"scheduler.{name} was edited"):
        setattr(scheduler, name, getattr(scheduler, name) * 0.5)
    with pytest.raises(InputError, match=f"scheduler.{name} was edited"):
        setattr(scheduler, name, getattr(scheduler, name)[:-1])
    getattr(scheduler, name)[2] *= 0.5
    with pytest.raises(InputError, match=f"scheduler.{name} was edited"):
        loop(scheduler, begin(scheduler))


@pytest.mark.parametrize("name", ["sigmas", "timesteps"])
@pytest.mark.parametrize("view", [lambda tensor: tensor.data, lambda tensor: tensor.numpy()], ids=["data", "numpy"])
def test_edits_that_torch_does_not_count_are_refused(scheduler, name, view):
    for _ in range(2):
        view(getattr(scheduler, name))[3] += 1
        with pytest.raises(InputError, match=f"scheduler.{name} was edited"):
            loop(scheduler, begin(scheduler))
        scheduler.set_timesteps(30)
        loop(scheduler, begin(scheduler))  # and then an edit between two runs


def test_moving_the_tensors_is_no_edit(scheduler):
    exact = loop(scheduler, begin(scheduler))
    scheduler.timesteps = scheduler.timesteps.to("cpu", torch.float64)
    scheduler.sigmas = scheduler.sigmas.clone()
    torch.testing.assert_close(loop(scheduler, begin(scheduler)), exact)


def test_a_last_level_that_is_set_to_the_one_before_makes_the_last_step_go_nowhere():
    """As Cosmos 2 does it."""
    results = []
    for scheduler in (
        RestartScheduler(**SD, use_karras_sigmas=True),
        EulerDiscreteScheduler(**SD, use_karras_sigmas=True),
    ):
        scheduler.set_timesteps(12)
        scheduler.sigmas[-1] = scheduler.sigmas[-2]
        results.append(loop(scheduler, begin(scheduler)))
    torch.testing.assert_close(*results, atol=1e-4, rtol=0)


def test_inference_mode(scheduler):
    exact = loop(scheduler, begin(scheduler))
    with torch.inference_mode():
        scheduler.set_timesteps(30)
        assert torch.equal(loop(scheduler, begin(scheduler)), exact)


def _tokens(scheduler, conditions):
    """The loop of LTX's pipeline with conditions: the output with its sign turned, and what is clean kept."""
    scheduler.set_timesteps(12)
    x, kept = start().flatten(2), torch.tensor([0.0, *conditions, 0.0])
    for t in scheduler.timesteps:
        levels = torch.min(t.expand(2, 4), (1 - kept) * 1000)
        output = network(x, levels[..., None])
        moved = scheduler.step(-output, t, x, per_token_timesteps=levels, return_dict=False)[0]
        x = torch.where((t / 1000 - 1e-6 < 1 - kept)[:, None], moved, x)
    return x


@pytest.mark.parametrize("conditions", [(0.0, 0.0), (1.0, 0.0), (0.55, 1.0)])
def test_levels_of_single_tokens_are_those_of_euler(conditions):
    ends = [
        _tokens(class_(shift=2.0), conditions)
        for class_ in (FlowMatchEulerDiscreteScheduler, FlowMatchRestartScheduler)
    ]
    torch.testing.assert_close(*ends, atol=1e-5, rtol=0)
    for settings in ({"solver": "heun"}, {"restart": FLOW_PLAN}):
        scheduler = FlowMatchRestartScheduler(**settings, restart_budget="extra")
        if any(conditions):
            with pytest.raises(InputError, match="per_token_timesteps has levels"):
                _tokens(scheduler, conditions)
        else:
            end = _tokens(scheduler, conditions)
            torch.testing.assert_close(end, run(scheduler, start().flatten(2), num_inference_steps=12)[-1])


def test_the_data_of_tokens_are_those_at_their_levels():
    scheduler = FlowMatchRestartScheduler()
    scheduler.set_timesteps(12)
    x, slope = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(0)).unbind()
    made = scheduler.step(-slope[None], 1000.0, x[None], per_token_timesteps=torch.tensor([[1000.0, 300.0]]))
    torch.testing.assert_close(made.pred_original_sample[0], x - torch.tensor([[1.0], [0.3]]) * slope)


@pytest.mark.parametrize("steps", [0, -3, 25.5, "25", True])
@pytest.mark.parametrize("class_", [RestartScheduler, FlowMatchRestartScheduler])
def test_a_number_of_steps_that_is_none(class_, steps):
    with pytest.raises(InputError, match="num_inference_steps"):
        class_().set_timesteps(steps)


def test_numbers_of_numpy_are_saved_and_truth_values_are_none():
    numbers = {"base_image_seq_len": np.int64(9), "euler_below": np.float32(0.5), "shift": np.float32(3)}
    settings = numbers | {"use_karras_sigmas": np.True_}
    saved = json.loads(FlowMatchRestartScheduler(**settings).to_json_string())
    assert {key: saved[key] for key in settings} == {key: value.item() for key, value in settings.items()}
    settings = {"steps_offset": np.int64(1), "beta_end": np.float32(0.5), "use_karras_sigmas": np.True_}
    saved = json.loads(RestartScheduler(**settings).to_json_string())
    assert {key: saved[key] for key in settings} == {key: value.item() for key, value in settings.items()}
    with pytest.raises(InputError, match="euler_below is True"):
        RestartScheduler(euler_below=True)
    for call in (lambda: guidance_preset("7.5"), lambda: steps_preset("25")):
        with pytest.raises(InputError):
            call()


@pytest.mark.parametrize("value", [torch.zeros(2, 4, 8, 8), torch.tensor(0.0), np.zeros(3), 0.3, True, "on"])
def test_settings_of_other_schedulers_steps_are_refused_unless_they_are_off(scheduler, value):
    x, timestep = begin(scheduler), scheduler.timesteps[0]
    with pytest.raises(InputError, match="the pipeline sets variance_noise of another scheduler's step"):
        scheduler.step(x, timestep, x, variance_noise=value)
    scheduler.scale_model_input(x, timestep)
    scheduler.step(x, timestep, x, variance_noise=None, eta=0.0, use_clipped_model_output=False, s_churn=np.float32(0))
