"""Figures from made-up results: every line is where the numbers say."""

import os
import subprocess
import sys

import numpy as np
import pytest

from arguments import instead
from restart_sampling.base.errors import InputError
from restart_sampling.cli.figure import figure
from restart_sampling.comparison.comparable import read_sweep
from restart_sampling.comparison.published import CHECKPOINTS, published
from restart_sampling.pictures.kinds import KINDS, plot
from restart_sampling.pictures.nfe import places_of
from restart_sampling.pictures.noise_paths import best_of_families
from restart_sampling.pictures.points import (
    Point,
    best_at_each,
    by_length,
    by_position,
    by_repeats,
    curves,
    pareto_front,
    points_of,
)
from restart_sampling.pictures.style import WIDTH, log_scale, stacked, style, styles, ticks_at
from restart_sampling.sampling.plan import Plan
from sweeps import made_up, result, results_file

SDE, ODE, RESTART = "SDE (heun, churn)", "ODE (heun)", "Restart (heun)"


@pytest.fixture
def results(tmp_path):
    return read_sweep(results_file(*made_up(), name=tmp_path / "results.jsonl"))


@pytest.mark.parametrize("nfe", [0, -1, 1.5])
def test_a_count_of_evaluations_that_is_none_is_refused(nfe):
    with pytest.raises(InputError, match=f"have nfe {nfe}, which is no whole number from 1 on"):
        points_of({"row": result("9", 9.0) | {"nfe": nfe}})


def line(axes, label):
    (found,) = [each for each in axes.lines if each.get_label() == label]
    return [(float(x), float(y)) for x, y in zip(*found.get_data(), strict=True)]


def near(points):
    return [(pytest.approx(x, rel=0.15), y) for x, y in points]


def test_one_line_a_family_through_its_best_at_each_nfe(results):
    (axes,) = plot("nfe", results).axes
    assert axes.get_ylabel() == "Fréchet distance\n(made-up)"
    assert axes.get_xlabel() == "NFE (evaluations; equal ones side by side)"
    assert line(axes, ODE) == near([(17, 9.0), (35, 7.0), (127, 6.5)])
    assert line(axes, SDE) == near([(35, 8.0), (255, 4.0)])
    assert line(axes, RESTART) == near([(39, 6.0), (43, 5.6), (51, 5.2), (67, 5.4)])


@pytest.mark.parametrize("logarithmic", [False, True])
def test_points_of_one_nfe_stand_side_by_side_and_no_further_than_their_neighbours(logarithmic):
    plan = Plan.parse("18")
    points = [
        Point(f"{nfe} {number}", "", "ODE" if number % 2 else "SDE", plan, nfe, number, 0.1)
        for nfe, count in ((20, 1), (40, 5), (41, 3), (80, 2))
        for number in range(count)
    ]
    places = places_of(points, 4, logarithmic=logarithmic)
    assert places["20 0"] == pytest.approx(20)
    at = {nfe: [place for key, place in places.items() if key.startswith(f"{nfe} ")] for nfe in (20, 40, 41, 80)}
    assert all(len(set(each)) == len(each) for each in at.values())
    assert max(at[20]) < min(at[40]) < 40 < max(at[40]) < min(at[41]) < max(at[41]) < min(at[80]) < 80 < max(at[80])
    assert max(places["40 0"], places["40 2"], places["40 4"]) < min(places["40 1"], places["40 3"])  # by family


def test_the_numbers_of_an_axis_are_where_the_data_are(results):
    (axes,) = plot("nfe", results).axes
    numbers = set(axes.get_xticks())
    assert {17, 43, 255} <= numbers <= {each["nfe"] for each in results.values()}
    assert list(plot("K", results).axes[0].get_xticks()) == [0, 1, 2, 4, 8]


def test_the_pareto_front_is_a_staircase_of_points_that_none_beats(results):
    (axes,) = plot("nfe", results).axes
    assert line(axes, "Pareto front") == [(17, 9.0), (35, 7.0), (39, 6.0), (43, 5.6), (51, 5.2), (255, 4.0), (255, 4.0)]


def test_the_front_by_its_definition():
    random = np.random.default_rng(0)
    plan = Plan.parse("18")
    points = [
        Point(str(i), "", "", plan, int(n), float(d), 0.1) for i, (n, d) in enumerate(random.integers(1, 30, (200, 2)))
    ]

    def beaten(point):
        return any(
            (other.nfe <= point.nfe and other.distance < point.distance)
            or (other.nfe < point.nfe and other.distance <= point.distance)
            for other in points
        )

    front = {(point.nfe, point.distance) for point in pareto_front(points)}
    assert front == {(point.nfe, point.distance) for point in points if not beaten(point)}
    assert len(best_at_each(points)) == len({point.nfe for point in points})


def test_every_point_has_a_bar_of_one_standard_error_to_each_side(results):
    (axes,) = plot("nfe", results).axes
    bars = [segment for bar in axes.collections for segment in bar.get_segments()]
    assert sorted((low[1], high[1]) for low, high in bars) == [
        (pytest.approx(each["frechet_distance"] - 0.1), pytest.approx(each["frechet_distance"] + 0.1))
        for each in sorted(results.values(), key=lambda each: each["frechet_distance"])
    ]


def test_every_point_has_a_marker_that_leads_to_its_row(results):
    (axes,) = plot("nfe", results).axes
    markers = {each.get_gid(): each for each in axes.lines if each.get_gid()}
    assert markers.keys() == {f"point-{key}" for key in results}
    for key, found in results.items():
        marker = markers[f"point-{key}"]
        assert marker.get_xdata()[0] == pytest.approx(found["nfe"], rel=0.15)
        assert marker.get_ydata()[0] == found["frechet_distance"]
        assert marker.get_url() == f"#row-{key}"


def test_distance_against_repeats_with_the_ode_as_none(results):
    (axes,) = plot("K", results).axes
    assert line(axes, "18 [3,K,1.09,3.2]") == [(0, 7.0), (1, 6.0), (2, 5.6), (4, 5.2), (8, 5.4)]


def test_distance_against_place_and_length(results):
    place, length = plot("interval", results).axes
    points = line(place, "18 [3,2,t_min,t_min+2.11]")
    assert [y for _, y in points] == [6.9, 6.6, 5.6, 6.2]
    snapped = [0.0599, 0.2964, 1.0882, 5.3151]  # of the 18 levels
    assert [x for x, _ in points] == pytest.approx(snapped, rel=1e-3)
    points = line(length, "18 [3,2,1.09,t_max]")
    assert [y for _, y in points] == [5.9, 5.6, 6.4]
    assert [x for x, _ in points] == pytest.approx([2.09 - snapped[2], 3.2 - snapped[2], 9.09 - snapped[2]], rel=1e-3)
    assert length.get_xscale() == "log"
    assert {y for _, y in line(length, "18, without it")} == {7.0}


def test_a_colour_is_the_same_family_in_all_figures(results):
    colours = {}
    for kind in KINDS:
        for axes in plot(kind, results).axes:
            for marker in axes.lines:
                if marker.get_gid():
                    family = results[marker.get_gid().removeprefix("point-")]["family"]
                    colours.setdefault(family, set()).add(marker.get_color())
    for axes, family in zip(plot("paths", results).axes, (ODE, SDE, RESTART), strict=True):
        colours[family].add(axes.lines[0].get_color())
    assert [len(each) for each in colours.values()] == [1, 1, 1]


def test_plans_that_differ_in_more_are_on_no_curve(tmp_path):
    other = [result("18 [3,1,1.09,3.2]", 6), result("18 [4,2,1.09,3.2]", 5), result("20 [3,4,1.09,3.2]", 5)]
    points = points_of(read_sweep(results_file(*other, name=tmp_path / "results.jsonl")))
    for read in (by_repeats, by_position, by_length):
        assert curves(points, read, zero=True) == []


def test_settings_of_restarts_do_not_part_the_ode_from_its_curve(tmp_path):
    churn = "gamma=0.05 s_min=0.01 s_max=1 s_noise=1.003"
    for ode in ("18", "18 sigma_max=200"):  # which the model lowers to 80
        rows = [result(ode, 7), *(result(f"18 [3,{K},0.06,0.3] {churn}", 7 - K) for K in (1, 2))]
        points = points_of(read_sweep(results_file(*rows, name=tmp_path / "results.jsonl")))
        (curve,) = curves(points, by_repeats, zero=True)
        assert [number for number, _ in curve.points] == [0, 1, 2]


def test_paths_are_those_of_the_best_of_each_family(results):
    panels = plot("paths", results).axes
    assert [axes.get_title(loc="left") for axes in panels] == [f"{ODE}: 6.5", f"{SDE}: 4", f"{RESTART}: 5.2"]
    plan = Plan.parse("18 [3,4,1.09,3.2]")
    schedule = plan.path(0.002, 80).schedule(*plan.solvers)
    assert line(panels[2], str(plan)) == [(spent, level) for spent, level in schedule if level > 0]


def test_paths_of_many_families_are_the_best_of_each_kind():
    plan = Plan.parse("18")
    points = [
        Point(f"{kind}{number}", "", f"{kind} ({number})", plan, 35, (number + 1) % 3, 0.1)
        for kind in ("ODE", "SDE", "Restart")
        for number in range(3)
    ]
    assert [each.key for each in best_of_families(points)] == ["ODE2", "SDE2", "Restart2"]
    assert best_of_families(points[:6]) == points[:6]


def test_chosen_rows(results, tmp_path, run):
    panels = plot("paths", results, rows=["18", "9"]).axes
    assert [text.get_text() for axes in panels for text in axes.texts] == ["18", "9"]
    (axes,) = plot("nfe", results, rows=[SDE, "18"]).axes
    shown = {each.get_gid().removeprefix("point-") for each in axes.lines if each.get_gid()}
    assert shown == {key for key, each in results.items() if each["name"] == "18" or each["family"] == SDE}
    file = results_file(*made_up(), name=tmp_path / "results.jsonl")
    code, _, err = run("figure", file, "--out", tmp_path / "x.png", "--row", "81")
    assert code == 2
    assert "--row '81': there is no row of that name" in err
    code, _, err = run("figure", file, "--out", tmp_path / "x.png", "--row", "ODE (heunn)")
    assert code == 2
    assert f"nearest: {ODE}, " in err


def test_rows_whose_plans_make_no_path_are_used_where_none_is_needed(tmp_path, run):
    """Both restarts would begin at one level of this grid; the row says no model that has others."""
    odd = [result("5", 9 - K, name=f"odd {K}") for K in (1, 3)]
    for K, each in zip((1, 3), odd, strict=True):
        each["plan"] = each["run"]["plan"] = f"5 [2,{K},0.2,0.4] [2,1,0.6,0.9]"
    file = results_file(*made_up(), *odd, name=tmp_path / "results.jsonl")
    found = read_sweep(file)
    (axes,) = plot("K", found).axes
    assert line(axes, "5 [2,K,0.2,0.4] [2,1,0.6,0.9]") == [(1, 8), (3, 6)]
    assert len(line(axes, "18 [3,K,1.09,3.2]")) == 5
    assert not any(each.get_label().startswith("5") for axes in plot("interval", found).axes for each in axes.lines)
    for kind, said in (("K", False), ("nfe", False), ("interval", True), ("paths", True)):
        code, _, err = run("figure", file, "--kind", kind, "--out", tmp_path / "x.png")
        assert code == 0, err
        assert ("left out, for on the levels of their rows these plans make no path: 'odd 1', 'odd 3'" in err) == said
    code, _, err = run("figure", file, "--kind", "paths", "--row", "odd 1", "--out", tmp_path / "x.png")
    assert (code, err.count("these plans make no path: 'odd 1', and there is no other")) == (2, 1)


def test_paths_share_their_axes(results):
    panels = plot("paths", results).axes
    assert {axes.get_xlim() for axes in panels} == {(0, 255)}
    assert len({axes.get_ylim() for axes in panels}) == 1


def test_labels_beside_a_linear_axis_are_not_cut_off():
    with style():  # with matplotlib's own ticks the layout swings between two numbers of them at this height
        figure, (axes,) = stacked(1, 2.2)
        axes.plot([3080, 3200, 3277], distances := [0.0253, 0.0103, 0.02])
        log_scale(axes, "y", distances)
        axes.set_xlabel("x")
        axes.set_ylabel("y")
        figure.draw_without_rendering()
        assert axes.get_yscale() == "linear"
        assert axes.yaxis.label.get_window_extent().x0 >= 0


def test_numbers_of_evaluations_have_all_their_digits():
    with style():
        figure, (axes,) = stacked(1, 2.2)
        axes.plot(numbers := [0.125, 18, 127, 1023], numbers)
        axes.set_xscale("log")
        ticks_at(axes, numbers)
        figure.draw_without_rendering()
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0.125", "18", "127", "1023"]


@pytest.mark.parametrize("setting", CHECKPOINTS)
def test_published_curves(results, setting):
    ours, theirs = plot("nfe", results, setting).axes
    assert theirs.get_ylabel() == "published FID (Inception)"
    for sampler in {each.sampler for each in published(setting)}:
        values = sorted((each.nfe, each.fid) for each in published(setting) if each.sampler == sampler)
        assert line(theirs, f"paper: {sampler}") == values
    assert line(ours, ODE) == near([(17, 9.0), (35, 7.0), (127, 6.5)])


def test_published_curves_share_the_axes_where_the_detector_is_the_same(tmp_path):
    rows = [{**each, "detector_name": "inception"} for each in made_up()]
    results = read_sweep(results_file(*rows, name=tmp_path / "results.jsonl"))
    (axes,) = plot("nfe", results, "cifar10-vp").axes
    ours = next(each for each in axes.lines if each.get_label() == ODE)
    theirs = next(each for each in axes.lines if each.get_label() == "paper: Heun")
    assert ours.get_color() == theirs.get_color()
    assert theirs.is_dashed()


def test_the_command_line_offers_what_there_is():
    options = {option.name: option.type for option in figure.params}
    assert list(options["kind"].choices) == [*KINDS, "text"]
    assert list(options["paper"].choices) == [*CHECKPOINTS, "stable-diffusion"]


def test_families_differ_in_colour_and_marker():
    looks = styles([f"{kind} ({solver})" for kind in ("ODE", "SDE", "Restart") for solver in "abc"])
    assert len(set(looks.values())) == len({look.marker for look in looks.values()}) == 9
    assert len({look.colour for look in looks.values()}) == 9
    many = styles([f"{kind} ({solver})" for kind in ("ODE", "SDE", "Restart", "x") for solver in range(12)])
    assert len({look.colour for look in many.values()}) == 48


@pytest.mark.parametrize("kind", KINDS)
def test_files_one_column_wide(kind, tmp_path, run):
    file = results_file(*made_up(), name=tmp_path / "results.jsonl")
    code, _, err = run("figure", file, "--kind", kind, "--out", tmp_path / "fig")
    assert code == 0, err
    assert (tmp_path / "fig.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "fig.png").read_bytes().startswith(b"\x89PNG")
    assert plot(kind, read_sweep(file)).get_figwidth() == WIDTH
    for name in ("a.svg", "b.svg"):
        assert run("figure", file, "--kind", kind, "--out", tmp_path / name)[0] == 0
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


ODD = r"$x^_{ \frac \$ ^"


@pytest.mark.parametrize("kind", KINDS)
def test_signs_of_mathematics_in_names_are_text(kind, tmp_path, run):
    rows = [{**each, "name": f"{each['name']} {ODD}", "family": f"{each['family']} {ODD}"} for each in made_up()]
    file = results_file(*rows, name=tmp_path / "results.jsonl")
    for form in ("pdf", "svg", "png"):
        code, _, err = run("figure", file, "--kind", kind, "--out", tmp_path / f"fig.{form}")
        assert code == 0, err
    assert ODD in (tmp_path / "fig.svg").read_text() or kind in ("K", "interval")


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "webagg"])
def test_figures_are_made_whatever_the_environment_says_of_a_screen(backend, tmp_path):
    file = results_file(*made_up(), name=tmp_path / "results.jsonl")
    code = (
        "import os, sys; from restart_sampling.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(os.environ['MPLBACKEND'], 'matplotlib.pyplot' in sys.modules)"
    )
    words = [sys.executable, "-c", code, "figure", str(file), "--out", str(tmp_path / "x.png")]
    environment = {**os.environ, "MPLBACKEND": backend}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert done.stdout.split() == [backend, "False"]


def test_evaluate_s_results_are_plotted_too(tmp_path):
    rows = [
        {key: value for key, value in each.items() if key not in ("name", "family", "sigma_min", "sigma_max")}
        for each in made_up()
    ]
    (axes,) = plot("nfe", read_sweep(results_file(*rows, name=tmp_path / "results.jsonl"))).axes
    assert line(axes, ODE) == near([(17, 9.0), (35, 7.0), (127, 6.5)])


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        ([result("18", 7)], ("--kind", "K"), "no two rows differ in K alone"),
        ([result("18", 7)], ("--kind", "interval"), "no two rows differ in t_min alone"),
        ([result("18", 7)], ("--out", "x.gif"), "the suffix can be .pdf, .svg, .png"),
        ([result("18", 7)], ("--kind", "K", "--paper", "cifar10-vp"), "--paper cifar10-vp is for --kind nfe"),
        ([], (), "no row of a sampler"),
        ([result("18", 7), result("19", 7, detector="other")], (), "a row with different detector"),
        ([result("18", 7), {**result("19", 7), "schema": "x"}], (), "line 2: its schema is not"),
    ],
)
def test_bad_input(tmp_path, run, rows, more, said):
    file = results_file(*rows, name=tmp_path / "results.jsonl")
    code, _, err = run(*instead(("figure", file, "--out", tmp_path / "x.png"), *more))
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1
