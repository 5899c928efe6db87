"""The plan grammar, the presets and what a plan says of itself."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import restart_sampling as rs
from restart_sampling.sampling.levels import GRIDS
from restart_sampling.sampling.process import KnownLevels
from restart_sampling.sampling.solvers.by_name import SOLVERS

PUBLISHED = Path(__file__).parents[1] / "golden" / "plans.csv"

solver_texts = st.one_of(
    st.sampled_from(sorted(SOLVERS)),
    st.floats(0, 1).map(lambda eta: f"ddim:eta={eta}"),
    st.sampled_from(["sa:tau=0.5:high=50", "unipc:p=2"]),
)
own_levels = st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=9, unique=True).map(
    lambda levels: sorted(levels)[::-1]
)


@st.composite
def grids(draw):
    """Number of steps and grid."""
    levels = draw(own_levels)
    return draw(
        st.one_of(
            st.tuples(st.integers(1, 1000), st.sampled_from(sorted(GRIDS))),
            st.just((len(levels), "/".join(map(str, [*levels, 0])))),
        )
    )


plans = st.builds(
    lambda grid, *rest, **settings: rs.Plan(grid[0], *rest, grid=grid[1], **settings),
    grids(),
    st.lists(
        st.builds(
            lambda points, repeats, low, more: rs.RestartInterval(points, repeats, low, low + more),
            st.integers(2, 20),
            st.integers(1, 50),
            st.floats(0, 100),
            st.floats(1e-3, 100),
        ),
        max_size=4,
    ).map(tuple),
    churn=st.floats(0, 100),
    gamma=st.floats(0, 1),
    s_min=st.floats(0, 1),
    s_max=st.one_of(st.floats(1, 100), st.just(math.inf)),
    s_noise=st.floats(0, 2),
    solver=solver_texts,
    restart_solver=st.one_of(st.none(), solver_texts),
    rho=st.floats(0.1, 10),
    sigma_min=st.floats(1e-6, 1),
    sigma_max=st.floats(2, 1e6),
)


@given(plans)
def test_a_plan_reads_back_as_it_prints(plan):
    assert rs.Plan.parse(str(plan)) == plan


def test_only_what_is_not_the_default_is_printed():
    assert str(rs.Plan(18)) == "18"
    text = "18 [3,2,0.06,0.3] [4,1,1.09,1.92] gamma=0.05 s_min=0.01 s_max=1 s_noise=1.003"
    assert str(rs.Plan.parse(f"{text} solver=heun rho=7 sigma_min=0.002 sigma_max=80 churn=0")) == text


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('18 {"0": [3, 2, 0.06, 0.30]}', "18 [3,2,0.06,0.30]"),
        ('36 {"0": [4, 1, 19.35, 40.79], "1": [4, 1, 1.09, 1.92]}', "36 [4,1,19.35,40.79] [4,1,1.09,1.92]"),
        ('{"0": [3, 2, 0.06, 0.30]}', "18 [3,2,0.06,0.30]"),
        ("[3,2,0.06,0.30],[3,1,0.30,0.59]", "18 [3,2,0.06,0.30] [3,1,0.30,0.59]"),
        (" 20   [3, 2, .06, 3e-1],  churn=1 ", "20 [3,2,0.06,0.3] churn=1"),
        ("cifar10-vp-43 s_noise=1.003 steps=20", "20 [3,2,0.06,0.3] s_noise=1.003"),
    ],
)
def test_other_forms_are_read_too(text, same):
    assert rs.Plan.parse(text) == rs.Plan.parse(same)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no number of steps"),
        ("churn=3", "no number of steps"),
        ("0", "0 steps"),
        ("-3", "-3 steps"),
        ("18.5", "not a whole number"),
        ("18 [3,2,0.06", "cannot read"),
        ("18 20", "cannot read '20'"),
        ("18 [3,2,0.06]", "has 3 entries"),
        ('18 {"0": [3, 2, 0.06, 0.30], "0": [4, 1, 1.09, 1.92]}', r"has the key '0' twice\); number its intervals: {"),
        ("18 [3,2,0.06,x]", "must be numbers"),
        ("18 [3.5,2,0.06,0.3]", "N_restart is '3.5'"),
        ("18 [3,2,nan,0.3]", "t_min < t_max"),
        ("18 [3,2,0.5,0.3]", "t_min < t_max"),
        ("18 [1,2,0.1,0.3]", "N_restart = 1"),
        ("18 [3,0,0.1,0.3]", "K = 0"),
        ('18 {"0": 3}', "must hold lists"),
        ("18 {0}", "as JSON"),
        ('18 {"0": ' + "[" * 100 + "]" * 100 + "}", "as JSON"),
        (f'18 {{"0": [3,2,0.06,{"9" * 5000}]}}', "as JSON"),
        ("cifar10-vp-43 s_noise=1 s_noise=1.01", "it has s_noise twice; give it once"),
        ("18 churn=20 s_min=1 churn=30", "it has churn twice; give it once"),
        ("18 steps=20", "it has the number of steps twice; give it once"),
        ("18 solver=unipc:p=2:p=3", "solver unipc has p twice; give it once"),
        ("18 colour=3", "unknown key 'colour'.*allowed: steps, churn"),
        ("18 churn=many", "'churn=many' is not a number"),
        ("18 churn=nan", "churn is nan"),
        ("18 s_noise=-1", "s_noise is -1"),
        ("18 rho=0", "rho is 0"),
        ("18 sigma_min=3 sigma_max=2", "sigma_max is 2"),
        ("18 s_min=3 s_max=2", "s_max is 2"),
        ("18 solver=magic", "solver 'magic' does not exist; available: euler, heun"),
        ("18 restart_solver=magic", "solver 'magic' does not exist"),
        ("18 solver=", "solver '' does not exist"),
        ("18 solver=ddim:eta=2", "eta=2 is out of range"),
        ("18 solver=ddim:colour=2", "ddim has no setting 'colour=2'; its settings: eta"),
        ("18 solver=heun:order=2", "its settings: none"),
        ("18 solver=ddim:eta=x", "'eta=x' is not a number"),
        ("18 solver=ddim:eta", "'eta' is not a number"),
        ("18 solver=ab:order=5", "order=5 does not exist; give order from 1 to 4"),
        ("18 solver=unipc:p=4", "unipc:p=4 does not exist; give p from 1 to 3"),
        ("18 solver=sa:low=2", "low <= high"),
        ("18 grid=magic", "grid=magic is no grid; give one of karras, exponential, logsnr, time, or"),
        ("3 grid=1/2/0", "grid=1/2/0 is no grid"),
        ("2 grid=1e200/1/0", "grid=1e200/1/0 is no grid"),
        ("18 grid=time sigma_max=1e200", r"sigma_max is 1e\+200; give a number from 1e-100 to 1e\+100"),
        ("18 sigma_min=1e-300", r"sigma_min is 1e-300; give a number from"),
        ("18 solver=sa:tau=1e200", "sa needs a finite tau, 0 or above and at most 1000"),
        ("18 grid=80/1/0", "has 2 steps, but the plan has 18; write 2 grid=80/1/0"),
        ("cifar10-vp-44", "no preset 'cifar10-vp-44'; nearest: cifar10-vp-43"),
    ],
)
def test_bad_plans_are_one_sentence(text, message):
    with pytest.raises(rs.InputError, match=message) as error:
        rs.Plan.parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_an_editor_may_have_marked_the_encoding_of_a_plan_file(encoding, tmp_path):
    file = tmp_path / "plan.json"
    file.write_text('{"format": "restart-sampling-plan/1", "plan": "18", "model_sha256": null}', encoding)
    assert str(rs.Plan.parse(str(file))) == "18"


def test_numbers_and_intervals_of_other_types_are_pythons_own():
    plan = rs.Plan(np.int64(18), [(3, np.int32(2), np.float64(0.06), 0.3), [4, 1, 1, 2]], s_noise=np.float64(1.003))
    assert str(plan) == "18 [3,2,0.06,0.3] [4,1,1,2] s_noise=1.003"
    assert rs.Plan.parse(str(plan)) == plan
    assert hash(plan) == hash(rs.Plan.parse(str(plan)))
    assert {type(plan.steps), type(plan.intervals[0].repeats)} == {int}
    assert {type(plan.s_noise), type(plan.intervals[1].t_min), type(rs.Plan(18, churn=3).churn)} == {float}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rs.Plan(18.5), "steps = 18.5; give a whole number"),
        (lambda: rs.Plan(True), "steps = True; give a whole number"),
        (lambda: rs.Plan("18"), "steps = '18'; give a whole number"),
        (lambda: rs.Plan(18, s_noise="1"), "s_noise = '1'; give a number"),
        (lambda: rs.Plan(18, churn=True), "churn = True; give a number"),
        (lambda: rs.Plan(18, churn=np.True_), "churn = np.True_; give a number"),
        (lambda: rs.Plan(18, rho=np.ones(2)), r"rho = array.*; give a number"),
        (lambda: rs.Plan(18, (3, 2, 0.06, 0.3)), r"intervals = \(3, 2, 0.06, 0.3\); give a list"),
        (lambda: rs.Plan(18, ((3, 2, 0.06),)), r"intervals = .*; give a list with \[N_restart, K, t_min, t_max\]"),
        (lambda: rs.Plan(18, rs.RestartInterval(3, 2, 0.06, 0.3)), "intervals = .*; give a list"),
        (lambda: rs.Plan(18, ((3, True, 0.06, 0.3),)), r"restart interval \[3,True,0.06,0.3\]: K = True; give a whole"),
        (lambda: rs.RestartInterval(3, 2, "0.06", 0.3), "t_min = '0.06'; give a number"),
        (lambda: rs.Plan(18, solver=rs.Heun()), r"solver = Heun\(\); give its name, such as 'heun'"),
        (lambda: rs.Plan(18, restart_solver=rs.Heun()), r"restart_solver = Heun\(\); give its name"),
    ],
)
def test_a_plan_made_of_other_things_is_refused_in_one_sentence(make, message):
    with pytest.raises(rs.InputError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_intervals_and_settings_come_over_a_preset():
    plan, over = rs.Plan.parse("imagenet64-edm-39"), rs.Plan.parse("imagenet64-edm-39 [3,1,5,9] s_noise=1.25 churn=2")
    assert plan.s_noise not in (1, 1.25)
    assert over.set("s_noise=1.003", "churn=0") == rs.Plan.parse(str(plan).replace("] gamma", "] [3,1,5,9] gamma"))
    assert (over.s_noise, over.churn, over.preset) == (1.25, 2, "imagenet64-edm-39")


def test_set_changes_settings_over_a_plan():
    plan = rs.Plan.parse("18 [3,2,0.06,0.30]").set("churn=3", "churn=4", "solver=euler")
    assert str(plan) == "18 [3,2,0.06,0.3] churn=4 solver=euler"
    with pytest.raises(rs.InputError, match="unknown key 'intervals'"):
        plan.set("intervals=3")


@pytest.mark.parametrize("name", sorted(rs.PRESETS))
def test_presets_have_the_nfe_they_claim(name):
    preset, plan = rs.PRESETS[name], rs.Plan.parse(name)
    assert plan.path(sigma_min=0.002, sigma_max=80.0).nfe(*plan.solvers) == preset.nfe


def test_presets_are_the_published_plans():
    with PUBLISHED.open() as file:
        rows = list(csv.DictReader(file))
    ours = {name for name in rs.PRESETS if "-small-" in name or "-sde-" in name}
    assert set(rs.PRESETS) - ours == {row["name"] for row in rows}
    for row in rows:
        preset = rs.PRESETS[row["name"]]
        assert (preset.checkpoint, preset.nfe, preset.fid) == (
            row["checkpoint"],
            int(row["nfe"]),
            float(row["fid_paper"]),
        )
        settings = " ".join(
            f"{key}={row[key]}" for key in ("s_noise", "gamma", "s_min", "s_max", "solver", "sigma_min", "sigma_max")
        )
        assert rs.Plan.parse(preset.plan) == rs.Plan.parse(f"{row['steps']} {row['intervals']} {settings}")


@pytest.mark.parametrize(
    ("prefix", "fids"),
    [
        ("cifar10-vp-sde", {1023: 2.35, 511: 2.37, 255: 2.4, 127: 2.58, 63: 2.88, 35: 3.45}),
        ("imagenet64-edm-sde", {1023: 1.4, 511: 1.45, 255: 1.5, 127: 1.75, 63: 2.24, 35: 2.97}),
    ],
)
def test_presets_of_edms_stochastic_sampler_are_the_papers_rows(prefix, fids):
    """Restart sampling (arXiv 2306.14878), tables 3 and 5, "Improved SDE"."""
    presets = {preset.nfe: preset.fid for name, preset in rs.PRESETS.items() if name.startswith(f"{prefix}-")}
    assert presets == fids
    assert all(rs.Plan.parse(f"{prefix}-{nfe}").churn in (30, 40) for nfe in fids)


@pytest.mark.parametrize("nfe", [18, 21, 24, 27])
def test_dpm_solver_3_presets_spend_as_the_original_script(nfe):
    """Three a step, two in the last but one of the main grid, three a restart step, one to level 0."""
    plan = rs.Plan.parse(f"cifar10-vp-dpm3-{nfe}")
    solver, _ = plan.solvers
    spent = [solver.evaluations(move) for move in plan.path().moves if not move.rises]
    assert spent == [3] * (plan.steps - 2) + [2] + [3, 3] + [1]
    ode = rs.ode_path(plan.levels())
    assert [solver.evaluations(move) for move in ode.moves] == [3] * (plan.steps - 2) + [2, 1]


def test_a_grid_rules_the_restarts_too():
    plan = rs.Plan.parse("6 [3,1,0.1,0.9] grid=exponential sigma_min=0.1 sigma_max=10")
    path = plan.path()
    assert path.levels[:6] == rs.log_grid(6, 10.0, 0.1)
    assert path.levels[6:9] == pytest.approx((0.9, 0.3, 0.1))
    assert rs.Plan.parse("6 grid=logsnr").levels() == rs.Plan.parse("6 grid=exponential").levels()


def test_a_grid_of_ones_own_is_used_as_it_is():
    plan = rs.Plan.parse("4 [3,1,1,9] grid=80/20/5/1/0 rho=1")
    assert plan.levels() == (80.0, 20.0, 5.0, 1.0, 0.0)
    assert plan.path().levels == (80.0, 20.0, 5.0, 1.0, 9.0, 5.0, 1.0, 0.0)
    assert plan.levels(sigma_min=1.0, sigma_max=80.0) == plan.levels()
    with pytest.raises(rs.InputError, match=r"level 80 of grid=80/20/5/1/0 is not one of the model's; .* to 50"):
        plan.levels(sigma_max=50.0)
    with pytest.raises(rs.InputError, match="level 1 of"):
        plan.levels(sigma_min=2.0)


def test_the_main_grid_stays_within_the_model():
    plan = rs.Plan.parse("18 [3,2,0.06,0.30]")
    assert plan.path(sigma_min=0.02, sigma_max=50.0).levels[0] == 50.0
    assert plan.levels(sigma_min=0.02)[-2] == 0.02
    assert plan.path() == plan.path(sigma_min=0.002, sigma_max=80.0)
    with pytest.raises(rs.InputError, match="above sigma_max"):
        plan.path(sigma_max=0.25)


def test_explain_tells_what_will_happen():
    text = rs.Plan.parse("18 [3,2,0.06,0.30] s_noise=1.003").explain()
    assert "t_min 0.06 to 0.05995" in text
    assert "noise of std 0.2939" in text
    assert "1.003 times" in text
    assert "noise      in 3 falls" in rs.Plan.parse("4 solver=ddim:eta=0.5").explain()
    known = rs.Plan.parse("4 [2,1,1,3]").explain(0.01, 80, lambda level: float(f"{level:.1g}"))  # 0.8003 becomes 0.8
    snapped, jumped = (line for line in known.splitlines() if line.startswith(("snap", "restart")))
    assert snapped.split(" to ")[1] == jumped.split("from ")[1].split(" up")[0]
    assert "NFE        43 = 35 in the main grid (heun) + 8 in restarts" in text


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        ("18 gamma=0.1", ["gamma=0.1"]),
        ("18 restart_solver=euler", ["restart_solver=euler"]),
        ("18 [3,2,0.06,0.3] restart_solver=heun", ["restart_solver=heun"]),
        ("18 s_noise=1.003", ["s_noise=1.003"]),
        ("18 s_min=0.01 s_max=1", ["s_min=0.01", "s_max=1"]),
        ("18 churn=3 s_min=1e3", ["churn=3"]),
        ("18 rho=5 grid=time", ["rho=5"]),
        ("18 sigma_max=60 grid=exponential rho=5", ["rho=5"]),
        ("3 grid=80/5/1/0 rho=5 sigma_min=0.1", ["rho=5", "sigma_min=0.1"]),
        ("3 [3,1,1,9] grid=80/5/1/0 rho=5", []),
        ("18 churn=3 s_min=0.01 s_max=90 s_noise=1.003", []),
        ("18 [3,2,0.06,0.3] gamma=0.05 s_min=0.01 s_max=1 s_noise=1.003", []),
        ("18 solver=ddpm s_noise=1.003", []),
        ("18 solver=sa:low=200:high=300 s_noise=1.003", ["s_noise=1.003"]),
        *((name, []) for name in rs.PRESETS),
    ],
)
def test_a_setting_without_which_the_samples_are_the_same_is_said_to_be_idle(text, idle):
    plan = rs.Plan.parse(text)
    assert plan.idle() == idle
    assert [line.split()[1] for line in plan.explain().splitlines() if line.startswith("idle")] == [
        f"{each}:" for each in idle
    ]


def test_a_setting_is_idle_where_the_model_has_its_way():
    plan = rs.Plan.parse("18 sigma_max=100")
    assert plan.idle() == plan.idle(KnownLevels(0.002, 90.0)) == []
    assert plan.idle(KnownLevels(0.002, 80.0)) == ["sigma_max=100"]
    whole = KnownLevels(round_level=lambda level: float(round(level)))
    assert rs.Plan.parse("9 churn=1").idle(whole) == []
    assert rs.Plan.parse("9 churn=1e-3").idle(whole) == ["churn=0.001"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("18 [3,1,0.06,0.3] [3,1,0.6,1.9]", "18 [3,1,0.6,1.9] [3,1,0.06,0.3]"),
        ("18 [3,1,0.06,0.3]", "18 [3,1,0.0601,0.3]"),
        ("18 grid=logsnr", "18 grid=exponential"),
        ("18 solver=ddpm", "18 solver=ddim:eta=1"),
        ("18 gamma=0.1 s_noise=2", "18"),
    ],
)
def test_plans_of_one_effect_draw_the_same(one, other):
    net = rs.GaussianMixture(torch.tensor([[1.0, 0.5], [-1.0, 0.2]], dtype=torch.float64), 0.1)
    one, other = rs.Plan.parse(one), rs.Plan.parse(other)
    assert one != other
    assert one.effect() == other.effect() != rs.Plan.parse("17").effect()
    assert torch.equal(*(rs.sample(net, each, range(3), (2,)) for each in (one, other)))


def test_churn_beyond_all_numbers_is_refused():
    with pytest.raises(rs.InputError, match=r"churn raises level 0.3 to 3e\+307, above 1e\+100; lower gamma = 1e\+308"):
        rs.Plan.parse("18 [3,2,0.06,0.30] gamma=1e308").path()


def test_churn_above_a_flows_highest_level_is_refused_where_it_is_explained():
    plan = rs.Plan.parse("5 churn=10")
    with pytest.raises(rs.InputError, match=r"highest of the process FLOW is 1; .* churn \(s_max\)"):
        plan.explain(0.0, 1.0, process=rs.FLOW)
    assert "churn" in plan.set("s_max=0.7").explain(0.0, 1.0, process=rs.FLOW)
