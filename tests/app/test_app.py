"""What is behind the page: plans and their sliders, samples on the way, models with what was tuned for them."""

import gc
import importlib.util
import json
import math
import re
from itertools import pairwise

import numpy as np
import pytest
import torch

import restart_sampling as rs
from restart_sampling.app.choices import STARTS, load_choice
from restart_sampling.app.plans import MAX_NFE, SLIDERS, explain, moved, plot_plans, read_plan, sliders_of
from restart_sampling.app.samples import advance_together, asked_seeds, on_the_way, show
from restart_sampling.base.errors import InputError
from tiny_model import tiny_model_file

SEVERAL = "36 [4,1,19.35,40.79] [6,6,0.06,0.3] gamma=0.05 s_min=0.01 s_max=1 s_noise=1.003"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model_file(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def net(model):
    return rs.load_model(model)


def positions(**changes):
    return [{**dict(zip(SLIDERS, (18, "heun", 0, 1, 3, 0.0, 0.5), strict=True)), **changes}[name] for name in SLIDERS]


@pytest.mark.parametrize(
    ("text", "name", "value", "then"),
    [
        ("18", "steps", 20, "20"),
        ("18", "solver", "ab:order=2", "18 solver=ab:order=2"),
        ("18 s_noise=1.01", "churn", 30, "18 churn=30 s_noise=1.01"),
        ("18", "K", 2, "18 [3,2,1,3.2]"),
        ("18 [5,1,0.061,0.33]", "K", 4, "18 [5,4,0.061,0.33]"),
        ("18 [5,1,0.061,0.33]", "K", 0, "18"),
        ("18 [5,1,0.061,0.33]", "N_restart", 2, "18 [2,1,0.061,0.33]"),
        ("18 [5,1,0.061,0.33]", "t_min", -1, "18 [5,1,0.1,0.33]"),
        ("18 [5,1,0.061,0.33]", "t_max", 1.26, "18 [5,1,0.061,18]"),
        (SEVERAL, "steps", 37, SEVERAL.replace("36", "37")),
        (SEVERAL, "K", 2, SEVERAL.replace("[4,1,", "[4,2,")),
        (SEVERAL, "K", 0, SEVERAL.replace("[4,1,19.35,40.79] ", "")),
        ("cifar10-small-20", "steps", 9, "9 [5,1,1.09,3.2] solver=ab"),
    ],
)
def test_a_slider_changes_what_it_stands_for_and_nothing_else(text, name, value, then):
    assert moved(text, name, positions(**{name: value})) == then


@pytest.mark.parametrize("text", ["18", "22 churn=8", "18 [3,2,0.1,10] solver=dpmpp_2m", "4 grid=80/20/5/1/0", SEVERAL])
def test_sliders_follow_the_text(text):
    """Each slider, where the text has moved it to, stands for what is written there."""
    plan = rs.Plan.parse(text)
    found = dict(zip(SLIDERS, sliders_of(plan), strict=True))
    assert (found["steps"], found["solver"], found["churn"]) == (plan.steps, plan.solver, plan.churn)
    if plan.intervals:
        first = plan.intervals[0]
        assert (found["K"], found["N_restart"]) == (first.repeats, first.points)
        assert (10 ** found["t_min"], 10 ** found["t_max"]) == pytest.approx((first.t_min, first.t_max), rel=0.012)
    else:
        assert [found[name] for name in ("K", "N_restart", "t_min", "t_max")] == [0, None, None, None]


def test_sliders_stay_between_their_ends():
    found = dict(zip(SLIDERS, sliders_of(rs.Plan.parse("150 churn=90 [20,12,0.0001,300]")), strict=True))
    assert found.pop("solver") == "heun"
    assert found == {"steps": 100, "churn": 80, "K": 10, "N_restart": 10, "t_min": -2.5, "t_max": 1.9}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("steps", None, "steps is empty; give a number from 1 to 100"),
        ("churn", math.nan, "churn is nan; give a number from 0 to 80"),
        ("K", None, "K is empty"),
        ("N_restart", math.inf, "N_restart is inf; give a number from 2 to 10"),
        ("t_max", 1e9, "t_max is 1000000000.0; give a number from -2 to 1.9"),
        ("t_min", "low", "t_min is low; give a number"),
        ("solver", None, "solver '' does not exist"),
    ],
)
def test_a_slider_without_a_position_is_told(name, value, message):
    with pytest.raises(InputError, match=re.escape(message)):
        moved("18 [3,2,0.1,1]", name, positions(**{name: value}))
    if name != "K":  # whose slider says whether there are restarts
        assert moved("18 [3,2,0.1,1]", "K", positions(**{name: value})) == "18 [3,1,0.1,1]"


def test_empty_fields(net):
    assert list(asked_seeds(None, None, 4)) == [0]
    assert list(asked_seeds(7, 9.0, 4)) == [7, 8, 9, 10]
    assert "the field is empty; write the plan itself" in explain(None, net)


def test_a_slider_cannot_make_what_is_no_plan():
    with pytest.raises(InputError, match="0 <= t_min < t_max"):
        moved("18 [3,2,0.06,0.3]", "t_min", positions(t_min=1))
    with pytest.raises(InputError, match="the page reads no files; write the plan itself"):
        moved("/etc/plan.json", "steps", positions(steps=5))
    with pytest.raises(InputError, match="4 steps, but the plan has 5"):
        moved("4 grid=80/20/5/1/0", "steps", positions(steps=5))


def test_what_a_plan_will_do_is_said(net):
    said = explain("18 [3,2,0.06,0.30]", net)
    assert "<b>NFE 43</b> = 35 in the main grid (heun) + 8 in restarts" in said
    assert "restart    2 x from 0.05995 up to 0.3" in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("18 [3,2,0.3,0.1]", "give finite noise levels with 0 &lt;= t_min &lt; t_max"),
        ("<script>alert(1)</script>", "&lt;script&gt;"),
        ("/etc/plan.json", "the page reads no files"),
        ("251", f"takes 501 evaluations, and the page at most {MAX_NFE}"),
        ("", "a plan is a number of steps"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said_as_text(text, message, net):
    said = explain(text, net)
    assert message in said
    assert 'role="alert"' in said
    assert "<script" not in said


def test_the_picture_has_the_paths_of_what_are_plans(net):
    def panels(*texts):
        return len(re.findall(r'id="paths-axes_\d+"', plot_plans(texts, net)))

    assert (panels("18", "18 [3,2,0.06,0.30]"), panels("18", "no plan"), panels("x", "y")) == (2, 1, 0)


@pytest.mark.parametrize("plan", ["4", "3 [2,2,1,3] s_noise=1.1", "5 solver=sde_dpmpp_2m", "2 grid=80/5/1"])
def test_samples_are_those_of_generate(plan, net):
    classes = [0, 1, 3]
    *_, last = on_the_way(net, rs.Plan.parse(plan), [3, 1, 2], classes, noisy=False)
    [batch] = rs.generate(net, plan, [3, 1, 2], classes=classes)
    assert np.array_equal(last.images, batch.images.numpy())
    assert last.evaluations == last.nfe == read_plan(plan, net).path().nfe(*rs.Plan.parse(plan).solvers)


def test_estimates_and_states_on_the_way(net):
    plan, seeds = rs.Plan.parse("3 [2,1,1,3]"), range(64)
    estimates, states = (list(on_the_way(net, plan, seeds, [0] * 64, noisy)) for noisy in (False, True))
    assert [each.level for each in states] == list(net_levels(net, plan))[1:]
    assert all(low.evaluations <= high.evaluations for low, high in pairwise(states))
    step = next(rs.steps(net, plan, seeds, (3, 8, 8), class_labels=net.one_hot(torch.zeros(64, dtype=int))))
    scaled = step.state / (0.25 + step.level**2) ** 0.5 / 2  # a state of images of std 0.5 has theirs, at any level
    for shown, values in ((estimates, step.x0), (states, scaled)):
        assert np.array_equal(shown[0].images, (values * 127.5 + 128).clip(0, 255).to(torch.uint8).numpy())


def net_levels(net, plan):
    return plan.path(net.sigma_min, net.sigma_max).levels


def test_samplers_go_side_by_side(net):
    plans = [rs.Plan.parse(text) for text in ("10", "4")]
    seen = list(advance_together([on_the_way(net, plan, [0], [0], noisy=False) for plan in plans]))
    behind = [abs(a.evaluations - b.evaluations) for a, b in seen[1:] if b is not None and b.evaluations < b.nfe]
    assert max(behind) <= 2  # a step of Heun's
    assert [each.evaluations for each in seen[-1]] == [19, 7]
    assert len(seen) == 14


def test_images_are_shown_with_how_far_they_are(net):
    first, *_, last = on_the_way(net, rs.Plan.parse("4"), range(5), [0] * 5, noisy=True)
    assert "plan &lt;A&gt;: 2 of 7 evaluations, sigma 9.72" in show("plan <A>", first)
    assert "7 of 7 evaluations, done" in show("plan A", last)
    assert 'src="data:image/png;base64,iVBOR' in show("plan A", last)


def test_an_image_that_is_not_finite_is_told(net, monkeypatch):
    monkeypatch.setattr(type(net), "forward", lambda self, x, *_, **__: x * float("nan"))
    with pytest.raises(InputError, match="not finite with plan '2'"):
        list(on_the_way(net, rs.Plan.parse("2"), [0], [0], noisy=False))


def test_what_was_tuned_is_shown_with_its_model(model, net, tmp_path):
    def tuned(name, identity):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "run.json").write_text(
            json.dumps({"format": "restart-sampling-tune/1", "model_sha256": identity, "model": name})
        )
        for nfe, scale in ((20, {"guidance": 1.0}), (10, {}), (30, {"guidance": 1.7})):
            (folder / f"plan-{nfe}.json").write_text(json.dumps({"plan": str(nfe // 2), "nfe": nfe, **scale}))
        (folder / "map.json").write_text(json.dumps({"base": "18", "cells": [], "of": name}))
        return folder

    folders = [tuned("mine", net.identity), tuned("other", "0" * 64)]
    choice = load_choice(str(model), folders, torch.device("cpu"))
    assert choice.plans == {"tuned, NFE 10 (mine)": "5", "tuned, NFE 20 (mine)": "10", **STARTS}
    assert choice.map["of"] == "mine"
    assert choice.classes == ("0", "1", "2", "3")
    assert load_choice(str(model), [], torch.device("cpu")).map is None
    with pytest.raises(InputError):
        load_choice(str(model), [tmp_path], torch.device("cpu"))


def test_the_first_plans_cost_the_same(net):
    assert {read_plan(text, net).path().nfe(*rs.Plan.parse(text).solvers) for text in STARTS.values()} == {35}


def test_without_gradio_the_extra_is_named(run, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "restart_sampling.base.errors.find_spec", lambda name: None if name == "gradio" else found(name)
    )
    code, _, err = run("app")
    assert code == 2
    assert "this needs gradio, which is not installed" in err
    assert "restart-sampling[app]" in err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")  # Gradio's
def test_the_page_draws(model):
    """With gradio alone, which the development environment does not have."""
    pytest.importorskip("gradio")
    from restart_sampling.app.page import _draw, make_page
    from restart_sampling.app.text_tab import _draw as draw_prompt
    from restart_sampling.text_to_image.pipeline import load_pipeline

    make_page([str(model)], pipelines=["tiny-text-to-image"])
    pipeline = load_pipeline("tiny-text-to-image", torch.device("cpu"), torch.float32)
    asked = (3.0, 7, 1, "ddim:2", "restart:9 [2,1,0.5,2]")
    *_, (status, *shown) = draw_prompt(pipeline, "a red ship", *asked)
    assert "seeds 7 to 7" in status
    assert ["done" in each for each in shown] == [True, True]
    *_, (status, *_) = draw_prompt(pipeline, "", *asked)
    assert "there is no prompt" in status
    choice = load_choice(str(model), [], torch.device("cpu"))
    *_, (status, *shown) = _draw(choice, -1, 0, 5, "estimates", "4", "3 [2,1,1,3]")
    assert "seeds 0 to 4" in status
    assert ["done" in each for each in shown] == [True, True]
    *_, (status, *_) = _draw(choice, -1, 0, 5, "estimates", "4", "x")
    assert "wrong" in status
    gc.collect()  # here, where its warnings are ignored
