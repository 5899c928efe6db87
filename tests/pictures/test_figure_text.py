"""The figure of `text compare` from made-up results: every line is where the numbers say."""

import pytest

from arguments import instead
from restart_sampling.base.errors import InputError
from restart_sampling.comparison.comparable import read_text_rows
from restart_sampling.comparison.published_text import published_text
from restart_sampling.pictures.kinds import plot
from restart_sampling.pictures.style import WIDTH
from sweeps import result, results_file

FAMILIES = {"ddim": "ODE", "heun": "ODE", "dpmpp": "ODE", "ddpm": "SDE", "restart": "Restart"}
SCORES = ("clip", "aesthetic")


def text_result(sampler, guidance, distance, clip, beauty, nfe=50, **more):
    line = result("18", distance)
    run = {"model_sha256": "ab", "prompts": "5000, sha256 cd", "seed": 0}
    return {
        **line,
        "run": {**run, "sampler": sampler, "guidance": guidance, "scheduler": {}},
        "name": f"{sampler} at {guidance:g}",
        "family": FAMILIES[sampler.partition(":")[0]],
        "sampler": sampler,
        "guidance": guidance,
        "plan": None,
        "nfe": nfe,
        "clip": {"model": "clip", "identity": "clip sha256 00", "scale": 1, "clamp": None},
        "clip_score": clip,
        "clip_score_error": 0.001,
        "aesthetic_score": beauty,
        "aesthetic_score_error": 0.01,
        **more,
    }


def made_up(**more):
    """Two samplers at three scales, not in order, and one of each other kind."""
    return [
        text_result("ddim:50", 5.0, 16.0, 0.315, 5.3, **more),
        text_result("ddim:50", 2.0, 17.0, 0.29, 5.1, **more),
        text_result("ddim:50", 3.0, 14.0, 0.305, 5.2, **more),
        text_result("restart:30", 2.0, 13.0, 0.3, 5.15, 62, **more),
        text_result("restart:30", 3.0, 14.5, 0.31, 5.25, 64, **more),
        text_result("restart:30", 5.0, 15.5, 0.318, 5.33, 64, **more),
        text_result("ddim:100", 2.0, 16.5, 0.292, 5.12, 100, **more),
        text_result("heun:26", 2.0, 18.0, 0.286, 5.13, 51, **more),
        text_result("dpmpp:25", 2.0, 16.9, 0.288, 5.11, 25, **more),
        text_result("ddpm:100", 2.0, 13.5, 0.301, 5.2, 100, **more),
    ]


@pytest.fixture
def results(tmp_path):
    return read_text_rows(results_file(*made_up(), name=tmp_path / "results.jsonl"))


def line(axes, label):
    (found,) = [each for each in axes.lines if str(each.get_label()).startswith(label)]
    return found, [(float(x), float(y)) for x, y in zip(*found.get_data(), strict=True)]


def test_a_line_a_sampler_with_a_point_a_scale(results):
    clip, beauty = plot("text", results).axes
    assert (clip.get_xlabel(), beauty.get_xlabel()) == ("CLIP score (clip)", "aesthetic score")
    assert clip.get_ylabel() == beauty.get_ylabel() == "Fréchet distance\n(made-up)"
    assert line(clip, "ddim:50 ")[1] == [(0.29, 17.0), (0.305, 14.0), (0.315, 16.0)]
    assert line(beauty, "ddim:50 ")[1] == [(5.1, 17.0), (5.2, 14.0), (5.3, 16.0)]
    assert line(clip, "restart:30 (NFE 62-64)")[1] == [(0.3, 13.0), (0.31, 14.5), (0.318, 15.5)]
    assert line(clip, "heun:26 (NFE 51)")[1] == [(0.286, 18.0)]


@pytest.mark.parametrize("name", ["clip_score_error", "frechet_distance_error"])
def test_what_is_below_its_least_is_refused(name, tmp_path):
    lines = results_file(*made_up(), text_result("ddpm:50", 2.0, 15.0, 0.3, 5.1, **{name: -1}), name=tmp_path / "r")
    with pytest.raises(InputError, match=f"ddpm:50 at 2' have {name} -1, which is no number from 0 to 1e\\+30"):
        plot("text", read_text_rows(lines))


def test_samplers_differ_in_marker_and_schedulers_in_colour(results):
    axes = plot("text", results).axes[0]
    lines = {str(each.get_label()).partition(" ")[0]: each for each in axes.lines if "NFE" in str(each.get_label())}
    assert len({each.get_marker() for each in lines.values()}) == 6
    colours = {sampler: each.get_color() for sampler, each in lines.items()}
    assert colours["ddim:50"] == colours["ddim:100"]
    assert len(set(colours.values())) == 5


def test_a_scale_is_written_once_at_its_highest_point(results):
    axes = plot("text", results, rows=["ddim:50", "restart:30"]).axes[0]
    assert [(each.get_text(), each.xy) for each in axes.texts] == [
        ("2", (0.29, 17.0)),
        ("3", (0.31, 14.5)),
        ("5", (0.315, 16.0)),
    ]


def test_rows_are_chosen_by_sampler_or_by_name(results):
    axes = plot("text", results, rows=["restart:30", "ddim:50 at 3"]).axes[0]
    assert len(line(axes, "restart:30")[1]) == 3
    assert line(axes, "ddim:50")[1] == [(0.305, 14.0)]


def test_one_score_is_one_panel(tmp_path):
    rows = [{key: value for key, value in each.items() if "aesthetic" not in key} for each in made_up()]
    (axes,) = plot("text", read_text_rows(results_file(*rows, name=tmp_path / "results.jsonl"))).axes
    assert axes.get_xlabel() == "CLIP score (clip)"


@pytest.mark.parametrize("detector", ["inception", "dinov2-hf"])
def test_the_published_curves_share_the_panels_where_the_detector_is_the_same(detector, tmp_path):
    file = results_file(*made_up(detector_name=detector), name=tmp_path / "results.jsonl")
    panels = plot("text", read_text_rows(file), "stable-diffusion").axes
    assert len(panels) == (2 if detector == "inception" else 4)
    for axes, score in zip(panels[-2:], SCORES, strict=True):
        for printed in {row.printed for row in published_text()}:
            own = [row for row in published_text() if row.printed == printed]
            theirs, points = line(axes, f"paper: {printed}")
            assert points == [(getattr(row, score), row.fid) for row in own]
            assert theirs.is_dashed()
    ours, theirs = line(panels[0], "ddim:50 ")[0], line(panels[-2], "paper: DDIM 50")[0]
    assert (ours.get_color(), ours.get_marker()) == (theirs.get_color(), theirs.get_marker())


def test_files_one_column_wide(results, tmp_path, run):
    file = results_file(*made_up(), name=tmp_path / "results.jsonl")
    code, _, err = run("figure", file, "--kind", "text", "--paper", "stable-diffusion", "--out", tmp_path / "fig")
    assert code == 0, err
    assert (tmp_path / "fig.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "fig.png").read_bytes().startswith(b"\x89PNG")
    assert plot("text", results).get_figwidth() == WIDTH


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        (
            [result("18", 7)],
            (),
            "has no row of a text-to-image sampler; make some with 'restart-sampling text compare'",
        ),
        (made_up(), ("--row", "ddim:51"), "--row 'ddim:51': there is no row of that name; nearest: "),
        (made_up(), ("--paper", "cifar10-vp"), "--paper cifar10-vp is for --kind nfe, and this is text; leave it out"),
        (made_up(), ("--kind", "nfe", "--paper", "stable-diffusion"), "is for --kind text, and this is nfe"),
        (made_up(), ("--kind", "nfe"), "has no row of a sampler"),
        ([*made_up(), *made_up(detector="another")], (), "a row with different detector"),
        ([*made_up(), text_result("ddpm:50", 2.0, 15.0, 0.3, 5.1, 1.5)], (), "have nfe 1.5, which is no whole number"),
        ([*made_up(), text_result("ddpm:50", 2.0, 15.0, 0.3, 5.1, 0)], (), "have nfe 0, which is no whole number"),
        (
            [{key: value for key, value in each.items() if "score" not in key} for each in made_up()],
            (),
            "the rows have no CLIP or aesthetic score",
        ),
    ],
)
def test_bad_input(tmp_path, run, rows, more, said):
    file = results_file(*rows, name=tmp_path / "results.jsonl")
    code, _, err = run(*instead(("figure", file, "--kind", "text", "--out", tmp_path / "x.png"), *more))
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("settings", ["", " use_karras_sigmas=true"])
def test_long_names_stay_within_the_figure(settings, tmp_path):
    rows = [*made_up(), text_result(f"dpmpp:20{settings}", 2.0, 16.9, 0.288, 5.11, 20)]
    figure = plot("text", read_text_rows(results_file(*rows, name=tmp_path / "results.jsonl")), "stable-diffusion")
    figure.draw_without_rendering()
    (legend,), whole = figure.legends, figure.bbox
    shown = legend.get_window_extent()
    assert whole.x0 <= shown.x0
    assert shown.x1 <= whole.x1
    assert len(legend.get_texts()) == 7 + 7
