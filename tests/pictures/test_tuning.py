"""The page of a run of tune, and the map of a model."""

import json

import pytest

from restart_sampling.base.errors import InputError
from restart_sampling.pictures.restart_map import plot_map, plot_maps
from restart_sampling.pictures.tune_report import make_tune_report
from restart_sampling.pictures.tuning import plot_confirmed, plot_trials
from restart_sampling.sampling.plan_file import PLAN_FORMAT
from restart_sampling.tuning.bench import Measured
from restart_sampling.tuning.objective import Key
from restart_sampling.tuning.score import Score

USUAL, FOUND = "18", "16 [3,2,0.3,1.1]"
OF_A_FLOW = "5 [2,1,0.2,0.4] [2,1,0.6,0.9]"
"""Its restarts would begin at one level on the sigmas of a VE model."""


def test_the_map_tells_gains_apart_beside_harm_that_is_a_hundred_times_larger():
    cells = [
        {"t_min": 0.06, "t_max": 19.0, "gain": -4.892, "error": 0.078},
        {"t_min": 0.06, "t_max": 0.3, "gain": 0.011, "error": 0.014},
        {"t_min": 0.3, "t_max": 19.0, "gain": 0.048, "error": 0.012},
    ]
    axes, bar = plot_map({"base": "18", "cells": cells}).axes
    (shown,) = axes.images
    assert shown.norm.vmax == -shown.norm.vmin == pytest.approx(0.06)
    texts = {text.get_text(): text for text in axes.texts}
    assert set(texts) == {"-489", "± 7.8", "+1.1", "± 1.4", "+4.8", "± 1.2"}
    assert [texts[text].get_fontweight() for text in ("-489", "+1.1", "+4.8")] == ["bold", "normal", "bold"]
    assert texts["-489"].get_color() == "white"
    assert bar.get_xlabel().endswith("(numbers: in hundredths)")  # a file of before 0.2.0 names no detector


def test_plans_of_the_polish_are_named_so_also_where_no_trial_went_on():
    def measured(stage, plan, seeds, value):
        return Key(plan, range(*seeds)), Measured(stage, 10, {"tiny": Score((value,))}, "", 1.0)

    usual, trial, polished = measured("usual", "9", (0, 20), 2.0), measured("search", "10", (0, 20), 3.0), "10 rho=6"
    results = dict([usual, trial, measured("polish", polished, (0, 60), 1.0)])
    (axes,) = plot_trials(results, 10).axes
    dots = {dots.get_label(): dots.get_offsets().tolist() for dots in axes.collections}
    assert dots == {"first seeds": [[1, 3]], "both, polished plans": [[2, 1]]}
    results |= dict([measured("search", "10", (20, 60), 2.5)])
    (axes,) = plot_trials(results, 10).axes
    dots = {dots.get_label(): dots.get_offsets().tolist() for dots in axes.collections}
    assert dots["second seeds, good plans"] == [[1, 2.5]]


def test_trials_are_those_of_the_search_of_their_nfe():
    def measured(search, plan, value):
        return Key(plan, range(20)), Measured("search", 10, {"tiny": Score((value,))}, "", 1.0, search)

    results = dict([measured(10, "10", 3.0), measured(11, "10 rho=6", 2.0)])  # of 11 evaluations, or of one less
    for nfe, shown in ((10, [[1, 3]]), (11, [[1, 2]])):
        (axes,) = plot_trials(results, nfe).axes
        assert axes.collections[0].get_offsets().tolist() == shown


def test_maps_of_several_models_have_one_scale():
    drift = {"drift": [{"level": level, "value": 0.1, "floor": 0.01} for level in (19.0, 0.06)]}
    drift["passes"] = [{"t_min": 0.06, "t_max": 19.0, "value": 0.05}]
    known = {"base": "18", "detector": "of/tiny.pt", **drift}
    maps = {
        title: {**known, "cells": [{"t_min": 0.06, "t_max": 19.0, "gain": gain, "error": 0.01}]}
        for title, gain in (("one", -0.5), ("other", 0.03))
    }
    *gains, drift_of_one, _, bar = plot_maps(maps).axes
    assert [axes.get_title() for axes in gains] == ["one", "other"]
    assert [axes.images[0].norm.vmax for axes in gains] == [pytest.approx(0.04)] * 2
    assert bar.get_xlabel().startswith("what one restart takes off the Fréchet distance of plan 18 ")
    assert bar.get_xlabel().endswith("\n(tiny)")
    assert drift_of_one.get_ylabel() == "Fréchet distance to true data\n(tiny)"
    with pytest.raises(InputError, match="the maps are of different detectors"):
        plot_maps({**maps, "third": {**maps["one"], "detector": "other.pt"}})
    del maps["other"]["drift"]
    with pytest.raises(InputError, match="the map of other has no drift; make it with --data"):
        plot_maps(maps)


def confirmed(value):
    return {"values": [value] * 3, "without": [[value + 0.001 * group for group in range(10)]] * 3}


def test_the_paths_of_the_page_are_those_on_the_models_own_levels():
    (axes,) = plot_confirmed({"scores": {OF_A_FLOW: {"a": confirmed(0.2)}}}, [0.0, 1.0]).axes
    assert max(axes.lines[0].get_ydata()) == 1.0
    (axes,) = plot_confirmed({"scores": {USUAL: {"a": confirmed(0.2)}}}, [None, None]).axes  # of earlier versions
    assert max(axes.lines[0].get_ydata()) == 80.0


def test_the_page_says_what_was_chosen_and_has_every_detector_of_every_plan(tmp_path):
    scores = {
        USUAL: {"a": confirmed(0.25), "b": confirmed(0.5)},
        FOUND: {"a": confirmed(0.2), "b": confirmed(0.45)},
    }
    evidence = {"verdict": "told `so`", "usual": USUAL, "better": True, "scores": scores}
    evidence |= {"gain": {"a": {"relative": -0.2}, "b": {"relative": -0.1}}}
    evidence["cost"] = {"importances": {}, "evaluations": 1_234_567, "seconds": 61.7, "trials": 0, "polished": 7}
    plan = {"format": PLAN_FORMAT, "nfe": 19, "plan": FOUND, "evidence": evidence, "device": "1 x cpu"}
    (tmp_path / "plan-19.json").write_text(json.dumps(plan))
    reference = {"path": "ref.npz", "sha256": "ab", "images": 3000, "source": None}
    run = {"format": "restart-sampling-tune/1", "model": "m", "class": None, "model_sha256": None}
    run |= {"detectors": {"a": {"detector": "clip", "reference": reference}}, "shape": [3, 8, 8]}
    run |= {"settings": {"images": 500, "restarts": True, "solvers": ["heun", "euler"]}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    count, page = make_tune_report(tmp_path)
    assert count == 1
    assert "Restart (heun). Better than the best usual plan, which is ODE (heun): -20.0% by a, -10.0% by b." in page
    assert "1,234,567 evaluations, 62 seconds" in page
    assert "<dt>class</dt><dd>drawn for each seed</dd>" in page
    assert "<dt>model sha256</dt><dd>none</dd>" in page
    said = "a (detector clip; reference (path ref.npz; sha256 ab; images 3000; source none))"
    assert f"<dt>detectors</dt><dd>{said}</dd>" in page
    assert "<dt>shape</dt><dd>3, 8, 8</dd>" in page
    assert page.index("<dt>images</dt><dd>500</dd>") < page.index("<dt>restarts</dt><dd>yes</dd>")
    assert "<dt>solvers</dt><dd>heun, euler</dd>" in page
    assert "0 plans searched, 7 polished." in page
    assert page.count("-0.05 ± 0") == 2
    line = {"plan": "18", "seeds": [0, 20], "blocks": 1, "groups": 0, "confirm": False, "stage": "search", "nfe": 18}
    line |= {"scores": {"a": {"values": [0.3], "without": []}}, "error": "", "seconds": 1.0}
    for search, shown in ((18, False), (19, True)):  # 18 evaluations are also one less than 19
        (tmp_path / "measured.jsonl").write_text(json.dumps({**line, "search": search}) + "\n")
        assert ("Plans of search and polish" in make_tune_report(tmp_path)[1]) == shown
    of_a_flow = json.dumps({**plan, "levels": [0.0, 1.0]}).replace(FOUND, OF_A_FLOW)
    (tmp_path / "plan-19.json").write_text(of_a_flow)
    assert f"<code>{OF_A_FLOW}</code>" in make_tune_report(tmp_path)[1]
    for verdict in ({}, {"verdict": 3}):
        damaged = {key: value for key, value in evidence.items() if key != "verdict"} | verdict
        (tmp_path / "plan-19.json").write_text(json.dumps({**plan, "evidence": damaged}))
        with pytest.raises(InputError, match="holds damaged files of tune"):
            make_tune_report(tmp_path)
    for wrong in ({"nfe": True}, {"guidance": True}):
        (tmp_path / "plan-19.json").write_text(json.dumps({**plan, **wrong}))
        with pytest.raises(InputError, match="holds damaged files of tune"):
            make_tune_report(tmp_path)
    (tmp_path / "run.json").write_text("[" * 5000 + "]" * 5000)
    with pytest.raises(InputError, match=r"run\.json is no run of tune"):
        make_tune_report(tmp_path)
