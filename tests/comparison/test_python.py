"""evaluate, sweep and report from Python: any net, the values of the commands, and refusals before any work."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import restart_sampling as rs
from restart_sampling.comparison.evaluate import plan_rows
from restart_sampling.comparison.named_plans import read_rows
from restart_sampling.generation.net_drawing import NetDrawing

MEASURE = {"reference": "ref.npz", "detector": "tiny.pt", "trust_detector": True}


def gaussian(identity=None):
    """A net of images without a resolution of its own."""
    return rs.from_edm(lambda x, s: x / (1 + 4 * s.reshape(-1, 1, 1, 1) ** 2), 0.002, 80.0, identity=identity)


def test_evaluate_gives_the_values_of_the_command(place, run):
    code, out, err = run(
        *("evaluate", "--model", "tiny.safetensors", "--plan", "2", "--plan", "3 churn=1", "--seeds", "0-23"),
        *("--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector", "--class", "1", "--json"),
    )
    assert code == 0, err
    commands = json.loads(out)["results"]
    values = rs.evaluate(rs.load_model("tiny.safetensors"), ["2", "3 churn=1"], seeds=range(24), classes=1, **MEASURE)
    for ours, command in zip(values, commands, strict=True):
        assert ours["run"] == command["run"]
        assert ours["pixels_sha256"] == command["pixels_sha256"]
        assert ours["frechet_distance"] == command["frechet_distance"]
    assert len(Path("results.jsonl").read_text().splitlines()) == 2


def test_one_plan_of_an_own_net(place):
    (one,) = rs.evaluate(gaussian(), "3", seeds=range(24), shape=(3, 8, 8), **MEASURE)
    (several,) = rs.evaluate(
        gaussian(), [rs.Plan.parse("3")], seeds=range(24), shape=(3, 8, 8), batch_size=5, blocks=2, **MEASURE
    )
    assert (one["plan"], one["nfe"], one["nfe_counted"], one["drawn"]) == ("3", 5, 5, 24)
    assert one["pixels_sha256"] == several["pixels_sha256"]
    assert len(several["frechet_distance_blocks"]) == 2
    assert not list(Path().glob("*.jsonl*"))


def test_a_sweep_goes_on_and_becomes_a_page(place):
    asked = {"out": "sweep", "images": 12, "shape": (3, 8, 8), **MEASURE}
    (first,) = rs.sweep(gaussian("mine"), ["2"], **asked)
    before = Path("sweep/results.jsonl").read_text()
    again, second = rs.sweep(gaussian("mine"), ["2", "3 [2,1,0.5,3]"], **asked)
    assert Path("sweep/results.jsonl").read_text().startswith(before)
    assert len(Path("sweep/results.jsonl").read_text().splitlines()) == 2
    assert again["frechet_distance"] == first["frechet_distance"] != second["frechet_distance"]
    assert [name.name for name in Path("sweep/samples").iterdir()] != []
    assert rs.report("sweep", "sweep.html") == 2
    assert "3 [2,1,0.5,3]" in Path("sweep.html").read_text()
    with pytest.raises(rs.InputError, match="different model"):
        rs.sweep(gaussian("another"), ["2"], **asked)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"results": "r.jsonl"}, "has no identity; give it one"),
        ({"plans": "2 [3,1,0.5,99]"}, "t_max is above sigma_max"),
        ({"plans": ["2", "3 [3,1,0.5,99]"]}, r"row '3 \[3,1,0.5,99\]': .*t_max is above sigma_max"),
        ({"plans": ["2", "2"]}, "are alike"),
        ({"seeds": range(12)}, "12 images in 1 block are too few for the error of a distance"),
        ({"shape": None}, r"give \(channels, height, width\)"),
        ({"shape": (2, 8, 8)}, "have 1 or 3 channels, and those of this net have 2"),
        ({"plans": []}, "there are no plans"),
        ({"plans": 18}, "the plan is 18; give a Plan, or its text"),
        ({"blocks": 0}, "there are 0 blocks; give at least 1"),
        ({"classes": 1}, "the model is unconditional"),
        ({"classes": [1, 2]}, "2 classes and 24 seeds were given"),
        ({"reference": "none.npz"}, "none.npz cannot be read"),
    ],
)
def test_what_does_not_fit_is_said_before_any_work(asked, said, place, monkeypatch):
    monkeypatch.setattr("restart_sampling.generation.net_drawing.follow", lambda *_: pytest.fail("drawn"))
    given = {"plans": "2", "seeds": range(24), "shape": (3, 8, 8), **MEASURE, **asked}
    with pytest.raises(rs.InputError, match=said):
        rs.evaluate(gaussian(), given.pop("plans"), **given)


def test_unknown_arguments_are_errors(place):
    with pytest.raises(TypeError, match="guidence"):
        rs.evaluate(gaussian(), "2", seeds=range(24), shape=(3, 8, 8), guidence=2.0, **MEASURE)


def test_a_row_that_fails_is_named_after_the_others(place):
    def broken(x, sigma):
        return x * (float("nan") if sigma.max() > 50 else 0.5)

    net = rs.from_edm(broken, 0.002, 80.0, identity="broken")
    with pytest.raises(rs.InputError, match=r"^row '2' failed: the image of seed 0 is not finite"):
        rs.evaluate(net, ["2", "2 sigma_max=40"], seeds=range(24), shape=(3, 8, 8), results="r.jsonl", **MEASURE)
    (line,) = map(json.loads, Path("r.jsonl").read_text().splitlines())
    assert line["plan"] == "2 sigma_max=40"


def test_a_model_that_comes_with_the_package_has_a_plan_and_others_ask_for_one():
    model = rs.load_model("cifar10-small")
    plans = (None, "cifar10-small-tuned-20")
    default, given = (next(iter(rs.generate(model, plan, seeds=[7], classes=3))) for plan in plans)
    assert torch.equal(default.images, given.images)
    with pytest.raises(rs.InputError, match="the plan is missing"):
        rs.generate(gaussian(), seeds=[0], shape=(3, 8, 8))
    with pytest.raises(rs.InputError, match="the seeds are missing"):
        rs.generate(model, "2")


@pytest.mark.parametrize(("make", "limits"), [(rs.from_flow, ()), (rs.from_edm, (0.002, 80.0))])
def test_the_nfe_of_a_row_is_that_on_its_model(make, limits, tmp_path):
    net = make(lambda x, t: x, *limits)
    plan = "8 [2,1,0.3,0.6] [2,1,0.6,0.9] rho=1" if net.process == rs.FLOW else "3"
    path = rs.Plan.parse(plan).path(net.sigma_min, net.sigma_max)
    nfe = path.nfe(*rs.Plan.parse(plan).solvers)
    if net.process == rs.FLOW:
        with pytest.raises(rs.InputError):
            rs.Plan.parse(plan).path()  # on levels of sigma

    def rows(stated):
        (tmp_path / "a.csv").write_text(f'plan,nfe\n"{plan}",{stated}\n')
        draw = partial(NetDrawing, net, shape=(3, 8, 8))
        return plan_rows(read_rows(str(tmp_path / "a.csv")), draw, range(2), "0-1", "own")

    assert rows(nfe)[0].about["nfe"] == nfe
    with pytest.raises(rs.InputError, match=f"nfe is {nfe + 1}, but the plan '.*' takes {nfe}; correct one of them"):
        rows(nfe + 1)


def test_a_flow_net_is_drawn_as_the_sampler_says():
    """Data of one value: the velocity is known, and so are the images, whatever the noise."""
    net = rs.from_flow(lambda x, t: (x - 0.5) / t.reshape(-1, 1, 1, 1).clamp_min(1e-6))
    plan = "8 [3,2,0.3,0.6] sigma_min=0.01 sigma_max=1"
    (batch,) = rs.generate(net, plan, range(3), shape=(1, 4, 4))
    assert batch.images.shape == (3, 1, 4, 4)
    x = rs.sample(net, plan, range(3), (1, 4, 4))
    assert torch.equal(batch.images, (x * 127.5 + 128).clip(0, 255).to(torch.uint8))
    assert (batch.images.int() - (0.5 * 127.5 + 128)).abs().max() <= 1
    with pytest.raises(rs.InputError, match="nor for flows"):
        rs.generate(net, plan, range(3), shape=(1, 4, 4), noise="edm")


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (rs.from_edm(lambda x, s: x, 0.002, 40.0, identity="mine"), (3, 8, 8)),
        (rs.from_edm(lambda x, s: x, 0.01, 80.0, identity="mine"), (3, 8, 8)),
        (rs.from_flow(lambda x, t: x, identity="mine"), (3, 8, 8)),
        (rs.from_edm(lambda x, s: x, 0.002, 80.0, identity="mine"), (3, 16, 16)),
    ],
)
def test_levels_process_and_shape_tell_own_nets_apart(net, shape):
    """Such as a run that is resumed with another range of levels."""
    base = NetDrawing(gaussian("mine"), "2 sigma_min=0.1 sigma_max=1", shape=(3, 8, 8)).about
    other = NetDrawing(net, "2 sigma_min=0.1 sigma_max=1", shape=shape).about
    keys = ("process", "levels", "shape")
    assert [base[key] for key in keys] != [other[key] for key in keys]
    assert json.loads(json.dumps(other, allow_nan=False)) == other


def test_checkpoints_say_what_they_did_unless_a_shape_is_given(place):
    model = rs.load_model("tiny.safetensors")
    about = NetDrawing(model, "2").about
    assert set(about) == {"model_sha256", "D", "plan", "class", "guidance", "noise", "arithmetic"}
    assert NetDrawing(model, "2", shape=(3, 8, 8)).about == about
    assert NetDrawing(model, "2", shape=(3, 16, 16)).about["shape"] == [3, 16, 16]


def test_wrapped_checkpoints_draw_their_classes(place):
    """As the checkpoint does, where nothing is out of range: in all the ways to guide and to wrap."""
    model = rs.load_model("tiny.safetensors")
    wide = rs.clipped(model, -100, 100)
    for asked in ({}, {"classes": 3}, {"classes": [1, 2, 0]}, {"guidance": 2.0}):
        (plain,) = rs.generate(model, "3", range(3), **asked)
        for net in (wide, rs.clipped(wide, -99, 99)):
            (same,) = rs.generate(net, "3", range(3), **asked)
            assert torch.equal(same.labels, plain.labels)
            assert torch.equal(same.images, plain.images)
    none = torch.zeros(1, model.label_dim)
    (guided,) = rs.generate(rs.guided(model, 2.0, unconditional={"class_labels": none}), "3", range(3))
    assert torch.equal(guided.labels, plain.labels)
    assert torch.equal(guided.images, plain.images)
    bound = {"class_labels": model.one_hot(torch.tensor([2]))}
    (of_one,) = rs.generate(
        rs.guided(model, 2.0, conditional=bound, unconditional={"class_labels": none}), "3", range(3)
    )
    assert of_one.labels is None
    assert torch.equal(of_one.images, next(rs.generate(model, "3", range(3), classes=2, guidance=2.0)).images)
    half = NetDrawing(rs.clipped(rs.fast(rs.load_model("tiny.safetensors"), torch.bfloat16)), "3").about
    assert half["arithmetic"] == "bfloat16"
    small = rs.load_model("cifar10-small")
    assert NetDrawing(rs.thresholded(small)).plan == NetDrawing(small).plan


@pytest.mark.parametrize("shape", ["388", np.array([3, 8]), (0, 8, 8), (-1, 2), (2.0,), (3.0, 8.0, 8.0), 2, (), (0,)])
def test_what_is_no_shape_of_images_is_one_sentence(shape):
    with pytest.raises(rs.InputError, match=r"^the shape of the images is .*; give \(channels, height, width\)"):
        rs.generate(gaussian(), "2", [0], shape=shape)


@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
def test_seeds_and_classes_may_be_arrays_and_tensors(make, place):
    model = rs.load_model("tiny.safetensors")
    asked = {"plan": "2", "seeds": list(range(24)), "classes": [seed % 3 for seed in range(24)]}
    given = {**asked, "seeds": make(asked["seeds"]), "classes": make(asked["classes"])}
    (expected,), (batch,) = rs.generate(model, **asked), rs.generate(model, **given)
    assert batch.seeds == expected.seeds
    assert torch.equal(batch.labels, expected.labels)
    assert torch.equal(batch.images, expected.images)
    for each in (asked, given):
        rs.evaluate(model, each.pop("plan"), results=f"{place}/r.jsonl", **each, **MEASURE)
    assert len(Path(f"{place}/r.jsonl").read_text().splitlines()) == 1  # the same line: it was not drawn again
