"""The schedulers alone: their rows, diffusers' schedulers where there is no restart, and the library's `sample`."""

import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from tiny_pipelines import SD, generators

import restart_sampling as rs
from restart_sampling import text_to_image
from restart_sampling.errors import InputError
from restart_sampling.text_to_image import (
    FlowMatchRestartScheduler,
    RestartScheduler,
    guidance_preset,
    steps_preset,
)

PLAN = [[4, 2, 0.1, 2.0], [3, 1, 3.0, 6.0]]
FLOW_PLAN = [[4, 2, 0.2, 0.6], [3, 1, 0.7, 0.9]]


def network(x, timestep):
    """Any smooth function will do."""
    return torch.tanh(x * (1 + torch.as_tensor(timestep) / 1000))


def run(scheduler, x, begin=0, generator=None, **steps):
    """What a pipeline does: the states at each row, and the last one."""
    scheduler.set_timesteps(**steps)
    scheduler.set_begin_index(begin)
    states = []
    for timestep in scheduler.timesteps[begin:]:
        states.append(x)
        scaled = scheduler.scale_model_input(x, timestep) if hasattr(scheduler, "scale_model_input") else x
        more = {} if generator is None else {"generator": generator}
        x = scheduler.step(network(scaled, timestep), timestep, x, **more).prev_sample
    return [*states, x]


def start(scale=1.0, images=2):
    return scale * torch.randn(images, 4, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    "spacing",
    [
        {},
        {"timestep_spacing": "trailing"},
        {"timestep_spacing": "leading", "steps_offset": 1},
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
        {"use_beta_sigmas": True},
        {"interpolation_type": "log_linear"},
    ],
)
@pytest.mark.parametrize(("solver", "diffusers"), [("heun", HeunDiscreteScheduler), ("euler", EulerDiscreteScheduler)])
def test_without_restart_it_is_diffusers_own_scheduler(solver, diffusers, spacing, prediction):
    if solver == "heun" and "interpolation_type" in spacing:
        pytest.skip("HeunDiscreteScheduler has no interpolation_type")
    config = {**SD, **spacing, "prediction_type": prediction}
    theirs, ours = diffusers(**config), RestartScheduler(**config, solver=solver)
    expected, result = run(theirs, start(14), num_inference_steps=12), run(ours, start(14), num_inference_steps=12)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    assert ours.order == theirs.order
    assert float(ours.init_noise_sigma) == pytest.approx(float(theirs.init_noise_sigma))
    torch.testing.assert_close(result[-1], expected[-1], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("solver", "diffusers"),
    [("heun", FlowMatchHeunDiscreteScheduler), ("euler", FlowMatchEulerDiscreteScheduler)],
)
def test_without_restart_the_flow_scheduler_is_diffusers_own(solver, diffusers):
    ours = FlowMatchRestartScheduler(shift=3.0, solver=solver)
    expected = run(diffusers(shift=3.0), start(), num_inference_steps=12)
    torch.testing.assert_close(run(ours, start(), num_inference_steps=12)[-1], expected[-1], atol=1e-4, rtol=0)


SOLVERS = [
    ("heun", None),
    ("euler", "heun"),
    ("heun", "euler"),
    ("midpoint", None),
    ("dpm2", "dpm3"),
    ("ddim:eta=0.5", "heun"),
]


@pytest.mark.parametrize(("solver", "restart_solver"), SOLVERS)
@pytest.mark.parametrize("process", [rs.VE, rs.FLOW], ids=lambda process: process.name)
def test_with_restarts_it_is_the_librarys_own_sample(process, solver, restart_solver):
    class_, plan = {"VE": (RestartScheduler, PLAN), "FLOW": (FlowMatchRestartScheduler, FLOW_PLAN)}[process.name]
    schedule = SD if process is rs.VE else {"shift": 3.0}
    settings = {"solver": solver, "restart_solver": restart_solver, "restart_budget": "extra"}
    scheduler = class_(**schedule, restart=plan, **settings)
    plain = class_(**schedule, solver="euler")
    plain.set_timesteps(12)
    levels = plain.sigmas.tolist()
    times = {}

    def denoise(x, sigma):
        level = sigma[0].item()
        output = network(x / (level**2 + 1) ** 0.5, times[level]) if process is rs.VE else network(x, times[level])
        return x - level * output

    x = start(process.std(levels[0]))
    states = run(scheduler, x, generator=generators([3, 4]), num_inference_steps=12)
    path = rs.restart_path(levels, [rs.RestartInterval(*each) for each in plan])
    main, restart = rs.make_solver(solver), rs.make_solver(restart_solver or solver)
    assert scheduler.path == path
    assert len(scheduler.timesteps) == path.nfe(main, restart) == path.nfe(*scheduler.solvers)
    times.update(zip([call.level for call in scheduler._calls], scheduler.timesteps.tolist(), strict=True))
    noise = generators([3, 4])

    def perturb(x, low, high):
        keep, std = process.rise(low, high)
        return keep * x + std * torch.cat([torch.randn(1, 4, 8, 8, generator=each) for each in noise])

    expected = rs.sample(denoise, x, path, main, restart, process, perturb)
    torch.testing.assert_close(states[-1], expected, atol=1e-4, rtol=0)


def test_timesteps_of_restart_levels_are_interpolated_as_in_diffusers():
    scheduler = RestartScheduler(**SD, restart=[[4, 1, 0.1, 2.0]])
    scheduler.set_timesteps(20)
    levels, times = scheduler.sigmas[:-1].numpy(), scheduler.timesteps.numpy()
    training = np.log(((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt().numpy())
    np.testing.assert_allclose(np.interp(times, np.arange(1000), training), np.log(levels), atol=2e-3)


@pytest.mark.parametrize("solver", ["heun", "euler", "midpoint", "dpm3"])
@pytest.mark.parametrize("restart", [[], [[4, 2, 0.1, 2.0]], [[4, 1, 0.1, 2.0]]])
@pytest.mark.parametrize("restart_solver", ["heun", "euler"])
@pytest.mark.parametrize("steps", [25, 40])
@pytest.mark.parametrize("budget", [None, "inside", "extra"])
def test_the_bar_of_a_pipeline_ends_at_the_number_of_steps(solver, restart, restart_solver, steps, budget):
    scheduler = RestartScheduler(
        **SD, restart=restart, solver=solver, restart_solver=restart_solver, restart_budget=budget
    )
    scheduler.set_timesteps(steps)
    assert _ticks(scheduler, steps) == steps
    rows = len(scheduler.timesteps)
    one = {"heun": 2, "euler": 1, "midpoint": 2, "dpm3": 3}[solver]
    assert rows <= one * steps or budget == "extra"
    if budget != "inside":
        scheduler.set_timesteps(sigmas=[14.0, 8.0, 4.0, 2.5, 1.0, 0.5, 0.1, 0.0])
        assert scheduler.num_inference_steps == len(scheduler.timesteps) == _ticks(scheduler, len(scheduler.timesteps))


def _ticks(scheduler, steps):
    """The rule that every pipeline has."""
    rows = len(scheduler.timesteps)
    warmup = rows - steps * scheduler.order
    return sum(i == rows - 1 or (i + 1 > warmup and (i + 1) % scheduler.order == 0) for i in range(rows))


def test_own_sigmas_inside_the_budget_are_spread_anew():
    sigmas = [*np.geomspace(14, 0.03, 30).tolist(), 0.0]
    scheduler = RestartScheduler(**SD, restart=[[4, 1, 0.1, 2.0]], restart_budget="inside")
    scheduler.set_timesteps(sigmas=sigmas)
    assert len(scheduler.timesteps) == 59
    assert scheduler.sigmas[0] == 14
    assert (scheduler.order, scheduler.num_inference_steps) == (1, 59)


def begin_with_noise(scheduler, row):
    """What image-to-image pipelines do: the level that the data are brought to, and those of the rows from there on."""
    scheduler.set_begin_index(row)
    data = torch.zeros(1, 4, 8, 8)
    noised = scheduler.add_noise(data, torch.ones_like(data), scheduler.timesteps[row][None])
    return noised.max().item(), scheduler.sigmas[row:]


@pytest.mark.parametrize("budget", ["inside", "extra"])
@pytest.mark.parametrize("solver", ["heun", "euler", "midpoint", "dpm3"])
@pytest.mark.parametrize("strength", [0.9, 0.5, 0.4])
def test_a_later_start_never_rises_above_its_level(strength, solver, budget):
    steps = 50
    scheduler = RestartScheduler(**SD, restart=[[4, 2, 0.1, 2.0]], solver=solver, restart_budget=budget)
    plain = RestartScheduler(**SD, solver="euler")
    scheduler.set_timesteps(steps)
    plain.set_timesteps(steps)
    first = steps - int(steps * strength)
    held = scheduler.timesteps[first * scheduler.order :]
    level, levels = begin_with_noise(scheduler, first * scheduler.order)
    assert level == levels[0] == levels.max() == plain.sigmas[first]
    assert (levels.diff() > 0).any()
    assert torch.equal(held, scheduler.timesteps[first * scheduler.order :])
    assert held[0] == plain.timesteps[first]
    assert len(levels) == len(held) + 1


def test_a_call_that_is_left_over_changes_nothing():
    """Heun's extra restarts leave an even number of calls, of which a path to 0 needs an odd one."""
    scheduler = RestartScheduler(**SD, restart=[[4, 2, 0.1, 2.0]], restart_budget="extra")
    scheduler.set_timesteps(50)
    row = 25 if (len(scheduler.timesteps) - 25) % 2 == 0 else 26
    _, levels = begin_with_noise(scheduler, row)
    x = start(float(levels[0]))
    assert levels[0] == levels[1]
    assert torch.equal(scheduler.step(torch.ones_like(x), scheduler.timesteps[row], x).prev_sample, x)
    assert not torch.equal(scheduler.step(torch.ones_like(x), scheduler.timesteps[row + 1], x).prev_sample, x)


@pytest.mark.parametrize("strength", [0.3, 0.45, 0.5, 0.6, 0.75, 0.8, 0.9])
@pytest.mark.parametrize("steps", [20, 28, 50])
@pytest.mark.parametrize("class_", [RestartScheduler, FlowMatchRestartScheduler])
def test_a_pipeline_that_counts_rows_begins_where_it_would_without_restarts(class_, steps, strength):
    """FLUX passes its own levels; the strength that it rounds to a row is found again."""
    flow = class_ is FlowMatchRestartScheduler
    sigmas = np.linspace(1, 1 / steps, steps) if flow else np.array([*np.geomspace(14, 0.03, steps), 0])
    scheduler, plain = class_(restart=[[4, 1, 0.1, 0.2]], solver="euler"), class_(solver="euler")
    starts = []
    for each in (scheduler, plain):
        each.set_timesteps(sigmas=sigmas)
        rows = len(each.timesteps)
        row = int(rows - rows * strength) if flow else rows - int(rows * strength)
        each.set_begin_index(row)
        data = torch.zeros(1, 4, 8, 8)
        order = (each.timesteps[row][None], torch.ones_like(data))
        (each.scale_noise if flow else each.add_noise)(data, *(order if flow else order[::-1]))
        starts.append(each.sigmas[row].item())
    assert starts[0] == starts[1]


def test_a_start_below_all_restarts_has_none():
    scheduler = RestartScheduler(**SD, restart=[[4, 2, 1.0, 2.0]])
    scheduler.set_timesteps(50)
    _, levels = begin_with_noise(scheduler, 2 * 40)
    assert (levels.diff() <= 0).all()


def test_a_restart_that_would_begin_at_the_start_is_left_out():
    scheduler = RestartScheduler(**SD, restart=[[4, 2, 2.0, 3.0]], solver="euler", restart_budget="extra")
    scheduler.set_timesteps(50)
    row = int((scheduler.sigmas[:30] - 2.0).abs().argmin())
    _, levels = begin_with_noise(scheduler, row)
    assert (levels.diff() <= 0).all()


def test_restarts_that_do_not_fit_into_what_strength_leaves_are_refused():
    scheduler = RestartScheduler(**SD, restart=[[10, 2, 0.1, 2.0]])
    scheduler.set_timesteps(50)
    with pytest.raises(InputError, match=r"take 37 evaluations .* 19 in all"):
        begin_with_noise(scheduler, 2 * 40)


def test_a_strength_of_nothing_is_refused():
    scheduler = RestartScheduler(**SD, restart=[[4, 2, 0.1, 2.0]], solver="euler", restart_budget="extra")
    scheduler.set_timesteps(20)
    with pytest.raises(InputError, match="strength leaves no step"):
        begin_with_noise(scheduler, 20)


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("solver", ["heun", "euler"])
def test_a_sample_that_was_not_noised_here_cannot_enter_within_or_before_a_restart(solver, within):
    scheduler = RestartScheduler(**SD, restart=[[10, 2, 0.1, 2.0]], solver=solver)
    scheduler.set_timesteps(50)
    row = next(row for row, call in enumerate(scheduler._calls) if (call.restart if within else call.level < 2.0))
    scheduler.set_begin_index(row)
    with pytest.raises(InputError, match="wholly above or wholly below"):
        scheduler.scale_model_input(start(), scheduler.timesteps[row])


def test_a_sample_cannot_enter_in_the_middle_of_a_step():
    scheduler = RestartScheduler(**SD, solver="midpoint")
    scheduler.set_timesteps(12)
    scheduler.set_begin_index(5)
    with pytest.raises(InputError, match="in the middle of a step"):
        scheduler.scale_model_input(start(), scheduler.timesteps[5])


def test_a_row_in_the_middle_of_a_heun_step_leaves_the_sample():
    scheduler = RestartScheduler(**SD)
    x = start(3)
    states = run(scheduler, x, begin=5, num_inference_steps=12)
    assert torch.equal(states[1], x)
    assert torch.equal(states[-1], run(scheduler, x, begin=6, num_inference_steps=12)[-1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("class_", [RestartScheduler, FlowMatchRestartScheduler])
def test_half_precision(class_, dtype):
    flow = class_ is FlowMatchRestartScheduler
    scheduler = class_(restart=FLOW_PLAN if flow else PLAN)
    x = start(1.0 if flow else 14.0)
    exact = run(scheduler, x, generator=generators([1, 2]), num_inference_steps=25)[-1]
    result = run(scheduler, x.to(dtype), generator=generators([1, 2]), num_inference_steps=25)[-1]
    assert result.dtype == dtype
    assert (result.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_the_attribute_generator_serves_where_step_is_given_none():
    scheduler = FlowMatchRestartScheduler(restart=FLOW_PLAN)
    runs = []
    for seeds in ([1, 2], [1, 2], [2]):
        scheduler.generator = generators(seeds)
        runs.append(run(scheduler, start()[-len(seeds) :], num_inference_steps=25)[-1])
    assert torch.equal(runs[0], runs[1])
    torch.testing.assert_close(runs[2][0], runs[0][1], atol=1e-6, rtol=0)
    assert not torch.allclose(
        run(scheduler, start(), generator=generators([5, 6]), num_inference_steps=25)[-1], runs[0]
    )


@pytest.mark.parametrize("passed", [False, True])
def test_a_list_of_generators_of_another_length_is_refused_at_the_first_step(passed):
    scheduler = RestartScheduler(**SD, restart=PLAN)
    scheduler.set_timesteps(25)
    scheduler.generator = None if passed else generators([1, 2, 3])
    with pytest.raises(InputError, match="3 generators for 2 images"):
        scheduler.step(start(), scheduler.timesteps[0], start(), generators([1, 2, 3]) if passed else None)


def test_a_copy_goes_on_by_itself():
    """In the middle of a step, with the state of its generators."""
    first = FlowMatchRestartScheduler(restart=FLOW_PLAN)
    first.generator = generators([1, 2])
    first.set_timesteps(25)
    x = start()
    for timestep in first.timesteps[:12]:
        x = first.step(network(x, timestep), timestep, x).prev_sample
    second = deepcopy(first)
    ends = []
    for scheduler in (first, second):
        state = x
        for timestep in scheduler.timesteps[12:]:
            state = scheduler.step(network(state, timestep), timestep, state).prev_sample
        ends.append(state)
    assert torch.equal(*ends)


# The authors' pipeline: main timesteps, and for each restart the one where it begins and round(linspace(t_max, t_min)),
# halves to even.
MAIN = [33 * i + 1 for i in reversed(range(30))]
PRESETS = {
    2: (62, {793: [934, 899, 864, 828, 793], 364: [914, 776, 639, 502, 364]}),
    3: (64, {1: [673, 598, 524, 449, 374, 300, 225, 150, 76, 1]}),
    5: (64, {1: [562, 500, 437, 375, 313, 250, 188, 126, 63, 1]}),
    8: (64, {1: [562, 500, 437, 375, 313, 250, 188, 126, 63, 1]}),
}


@pytest.mark.parametrize("guidance", PRESETS)
def test_guidance_presets_have_the_originals_timesteps(guidance):
    scheduler = RestartScheduler.from_config(DDIMScheduler(**SD).config, **guidance_preset(guidance))
    scheduler.set_timesteps(30)
    evaluations, restarts = PRESETS[guidance]
    expected = []
    for time in MAIN:
        for _ in range(2 if time in restarts else 0):
            high, *inner, low = restarts[time]  # Heun's correction is where a step ends, but not at timestep 1
            expected += [high, *(t for t in inner for _ in range(2)), *([low] if low > 1 else [])]
        expected.append(time)
    assert len(scheduler.timesteps) == evaluations
    assert scheduler.timesteps.tolist() == expected
    assert float(scheduler.sigmas[-1]) == pytest.approx(0.0292, abs=5e-5)  # timestep 0
    assert _ticks(scheduler, 30) == 30


@pytest.mark.parametrize(("guidance", "nearest"), [(1, 2), (2.5, 2), (4.5, 5), (6.5, 5), (7.5, 8), (100, 8)])
def test_other_guidance_takes_the_nearest(guidance, nearest):
    assert guidance_preset(guidance) == guidance_preset(nearest)


@pytest.mark.parametrize("steps", [19, 20, 35, 36, 50])
def test_a1111s_rule_by_steps(steps):
    scheduler = RestartScheduler(**SD, **steps_preset(steps))
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == 2 * steps - 1
    jumps = int((torch.tensor([call.level for call in scheduler._calls]).diff() > 0).sum())
    assert jumps == (0 if steps < 20 else 1 if steps < 36 else 2)


SENTENCES = [
    (RestartScheduler, {"restart": [[4, 2, 0.1]]}, r"the entry \[4, 2, 0.1\]; give lists"),
    (RestartScheduler, {"restart": [4, 2, 0.1, 2.0]}, "the entry 4; give lists"),
    (RestartScheduler, {"restart": [[1, 2, 0.1, 2.0]]}, "give at least 2"),
    (RestartScheduler, {"solver": "unipc"}, "remembers the steps before"),
    (RestartScheduler, {"solver": "rk9"}, "does not exist"),
    (RestartScheduler, {"restart_budget": "half"}, "restart_budget is 'half'"),
    (RestartScheduler, {"restart_grid": "cosine"}, "restart_grid is 'cosine'"),
    (RestartScheduler, {"prediction_type": "flow_prediction"}, "FlowMatchRestartScheduler"),
    (RestartScheduler, {"beta_schedule": "exp"}, "beta_schedule is 'exp'; RestartScheduler knows linear,"),
    (FlowMatchRestartScheduler, {"invert_sigmas": True}, "Mochi"),
    (FlowMatchRestartScheduler, {"stochastic_sampling": True}, "set it to false"),
]


@pytest.mark.parametrize(("class_", "settings", "sentence"), SENTENCES)
def test_bad_settings_are_refused_when_the_scheduler_is_made(class_, settings, sentence):
    with pytest.raises(InputError, match=sentence):
        class_(**settings)


def test_configs_of_other_kinds_of_models_are_refused():
    with pytest.raises(InputError, match="no noise schedule of betas"):
        RestartScheduler.from_config(FlowMatchEulerDiscreteScheduler().config)
    with pytest.raises(InputError, match="not of a flow model"):
        FlowMatchRestartScheduler.from_config(DDIMScheduler().config)
    with pytest.raises(InputError, match="flow_prediction"):
        RestartScheduler.from_config(UniPCMultistepScheduler(prediction_type="flow_prediction").config)


@pytest.mark.parametrize(
    ("restart", "steps", "sentence"),
    [
        ([[4, 2, 0.1, 200.0]], 30, "t_max is above"),
        ([[10, 2, 0.1, 2.0]], 15, "take 37 evaluations"),
        ([[2, 1, 0.5, 0.6]], 6, "snaps to"),
    ],
)
def test_plans_that_do_not_fit_are_refused(restart, steps, sentence):
    with pytest.raises(InputError, match=sentence):
        RestartScheduler(**SD, restart=restart).set_timesteps(steps)


def test_own_timesteps_may_be_any_sequence():
    rows = []
    for timesteps in ([900, 500, 100], np.array([900, 500, 100]), torch.tensor([900.0, 500.0, 100.0])):
        scheduler = RestartScheduler(**SD)
        scheduler.set_timesteps(timesteps=timesteps)
        rows.append(scheduler.timesteps.tolist())
    assert rows == [[900, 500, 500, 100, 100]] * 3


def test_steps_and_own_levels_at_once_are_refused_as_in_diffusers():
    with pytest.raises(ValueError, match="Can only pass one"):
        RestartScheduler(**SD).set_timesteps(10, sigmas=[10.0, 1.0, 0.0])


def test_an_unknown_timestep_is_refused():
    scheduler = RestartScheduler(**SD)
    scheduler.set_timesteps(10)
    with pytest.raises(InputError, match=r"3\.5 is not one of"):
        scheduler.step(start(), 3.5, start())


def test_the_plan_survives_another_scheduler():
    first = RestartScheduler(**SD, restart=PLAN)
    last = RestartScheduler.from_config(EulerDiscreteScheduler.from_config(first.config).config)
    assert last.config.restart == PLAN


IMPORTS = [
    "import restart_sampling.text_to_image as t; t.steps_preset(30); assert 'torch' not in sys.modules",
    "import restart_sampling as rs; rs.guidance_preset(3.0); assert 'torch' not in sys.modules",
    "import restart_sampling as rs; from restart_sampling import *; assert 'diffusers' not in sys.modules",
    "import restart_sampling as rs; assert rs.text_to_image.RestartScheduler is rs.RestartScheduler",
    "import restart_sampling as rs; assert rs.FlowMatchRestartScheduler.__module__ == 'restart_sampling.text_to_image'",
]


@pytest.mark.parametrize("code", IMPORTS)
def test_names_are_loaded_when_they_are_used(code):
    subprocess.run([sys.executable, "-c", f"import sys; {code}"], check=True)


def test_a_missing_diffusers_names_the_extra(monkeypatch):
    monkeypatch.delitem(vars(text_to_image), "RestartScheduler")
    monkeypatch.setattr("restart_sampling.errors.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"restart-sampling\[diffusers\]"):
        _ = text_to_image.RestartScheduler
