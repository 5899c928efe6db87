"""The plan grammar, the presets and what a plan says of itself."""

import csv
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import restart_sampling as rs
from restart_sampling.sampling.solvers import SOLVERS

SHARED = Path(os.environ.get("RESTART_SAMPLING_SHARED", "../shared"))

plans = st.builds(
    rs.Plan,
    st.integers(1, 1000),
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
    solver=st.sampled_from(sorted(SOLVERS)),
    restart_solver=st.one_of(st.none(), st.sampled_from(sorted(SOLVERS))),
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
        ("18 [3,2,0.06,x]", "must be numbers"),
        ("18 [3.5,2,0.06,0.3]", "N_restart is '3.5'"),
        ("18 [3,2,nan,0.3]", "t_min < t_max"),
        ("18 [3,2,0.5,0.3]", "t_min < t_max"),
        ("18 [1,2,0.1,0.3]", "N_restart = 1"),
        ("18 [3,0,0.1,0.3]", "K = 0"),
        ('18 {"0": 3}', "must hold lists"),
        ("18 {0}", "as JSON"),
        ("18 colour=3", "unknown key 'colour'.*allowed: steps, churn"),
        ("18 churn=many", "'churn=many' is not a number"),
        ("18 churn=nan", "churn is nan"),
        ("18 s_noise=-1", "s_noise is -1"),
        ("18 rho=0", "rho is 0"),
        ("18 sigma_min=3 sigma_max=2", "sigma_max is 2"),
        ("18 s_min=3 s_max=2", "s_max is 2"),
        ("18 solver=magic", "needs solver magic.*available: euler, heun"),
        ("18 restart_solver=magic", "needs solver magic"),
        ("cifar10-vp-44", "no preset 'cifar10-vp-44'; nearest: cifar10-vp-43"),
    ],
)
def test_bad_plans_are_one_sentence(text, message):
    with pytest.raises(rs.InputError, match=message) as error:
        rs.Plan.parse(text)
    assert "\n" not in str(error.value)


def test_set_changes_settings_over_a_plan():
    plan = rs.Plan.parse("18 [3,2,0.06,0.30]").set("churn=3", "churn=4", "solver=euler")
    assert str(plan) == "18 [3,2,0.06,0.3] churn=4 solver=euler"
    with pytest.raises(rs.InputError, match="unknown key 'intervals'"):
        plan.set("intervals=3")


@pytest.mark.parametrize("name", sorted(rs.PRESETS))
def test_presets_have_the_nfe_they_claim(name):
    preset = rs.PRESETS[name]
    if "dpm3" in preset.plan and "dpm3" not in SOLVERS:
        with pytest.raises(rs.InputError, match="needs solver dpm3"):
            rs.Plan.parse(name)
        return
    plan = rs.Plan.parse(name)
    assert plan.path(sigma_min=0.002, sigma_max=80.0).nfe(*plan.solvers) == preset.nfe


@pytest.mark.skipif(not SHARED.is_dir(), reason="the table of published plans is not here")
def test_presets_are_the_published_plans():
    with (SHARED / "reference" / "plans.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rs.PRESETS) == {row["name"] for row in rows} | {"cifar10-small-43"}
    for row in rows:
        preset = rs.PRESETS[row["name"]]
        assert (preset.checkpoint, preset.nfe, preset.fid) == (
            row["checkpoint"],
            int(row["nfe"]),
            float(row["fid_paper"]),
        )
        # The solver may not exist yet: compare the rest.
        text = preset.plan.replace(" solver=dpm3", "")
        assert (text != preset.plan) == (row["solver"] == "dpm3")
        settings = " ".join(
            f"{key}={row[key]}" for key in ("s_noise", "gamma", "s_min", "s_max", "sigma_min", "sigma_max")
        )
        assert rs.Plan.parse(text) == rs.Plan.parse(f"{row['steps']} {row['intervals']} {settings}")


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
    assert "NFE        43 = 35 in the main grid (heun) + 8 in restarts" in text
