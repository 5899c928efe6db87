"""`restart-sampling tune`, and the plans that it writes, as other commands take them."""

import json
import sys
from base64 import b64encode
from dataclasses import replace
from math import inf
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import restart_sampling as rs
from arguments import instead
from copies import TORCHRUN, start
from restart_sampling.base.errors import InputError
from restart_sampling.base.ranks import Ranks
from restart_sampling.cli.tune_options import SearchOptions
from restart_sampling.evaluation.detectors import load_detector
from restart_sampling.evaluation.measure import make_reference
from restart_sampling.evaluation.reference import save_reference
from restart_sampling.generation.net_drawing import NetDrawing
from restart_sampling.images.image_set import read_images
from restart_sampling.models.user_file import load_net_file
from restart_sampling.sampling.plan import Plan
from restart_sampling.tuning import distance, space
from restart_sampling.tuning.restart_map import BASE, Marginals, map_levels, map_restarts
from restart_sampling.tuning.settings import Settings
from restart_sampling.tuning.stages import strip_name
from tiny import detector_file, image_folder, pictures

TUNE = (
    *("tune", "--model", "tiny.safetensors", "--reference", "ref.npz", "--detector", "tiny.pt", "--nfe", "4"),
    *("--trust-detector", "--from-scratch"),
    *("--images", "20", "--race-images", "80", "--confirm-images", "20", "--trials", "8", "--no-rises", "--out", "run"),
)
GRID = ("tune", "--model", "tiny.safetensors", "--without-reference", "--nfe", "5", "--out", "run")


def test_a_run_and_its_plan_in_every_command(place, run, monkeypatch):
    half = make_reference(iter([(range(30), torch.from_numpy(pictures(30, 1)), None)]), 30, *measured_with())
    save_reference(half, Path("half.npz"))
    more = ("--confirm-detector", "tiny.pt", "--confirm-reference", "half.npz")
    logged = stand_in_for_wandb(monkeypatch)
    left = Path(f"run/.plan-4.json.{'0a' * 8}.partial")
    left.parent.mkdir()
    left.touch()
    code, out, err = run(*TUNE, *more, "--minutes", "inf", "--log", "wandb", "--json")
    assert code == 0, err
    assert not left.exists()
    best = [each["best/nfe-4"] for each in logged if "best/nfe-4" in each]
    assert best == sorted(best, reverse=True)
    assert best
    assert {name for each in logged for name in each} >= {"plans", "usual/nfe-4", "search/nfe-4"}
    content = json.loads(out)["plans"]["4"]
    assert json.loads(Path("run/plan-4.json").read_text()) == content
    settings = json.loads(Path("run/run.json").read_text())["settings"]
    assert (settings["known"], settings["rises"]) == (False, False)
    assert list(content["detectors"]) == ["tiny.pt", "tiny.pt on half.npz"]
    scores = content["evidence"]["scores"][content["plan"]]
    assert [len(score["values"]) for score in scores.values()] == [3, 3]
    assert content["evidence"]["cost"]["evaluations"] > 0
    assert "confirmation" in err
    assert content["evidence"]["verdict"] in err
    assert content["guidance"] == 1
    code, _, err = run(*TUNE, *more)
    assert code == 0
    assert "run/plan-4.json is there already" in err

    for option, value in (("--guidance", "2"), ("--class", "1"), ("--noise", "edm"), ("--dtype", "float16")):
        code, _, err = run(*TUNE, *more, option, value)
        name = "arithmetic" if option == "--dtype" else option[2:]
        assert (code, f"run holds another run, with {name} " in err) == (2, True)
    code, _, err = run(*TUNE, *more, "--solvers", "heun, euler")
    assert (code, "with settings" in err, '"solvers": ["euler", "heun"]' in err) == (2, True, True)
    code, _, err = run(*(word for word in TUNE if word != "--no-rises"), *more, "--no-restarts")
    assert (code, '"restarts": false' in err) == (2, True)
    before = Path("run/run.json").read_text()
    drawn = ("D", "class", "guidance", "noise", "arithmetic")
    Path("run/run.json").write_text(json.dumps({k: v for k, v in json.loads(before).items() if k not in drawn}))
    code, _, err = run(*TUNE, *more, "--guidance", "2")  # an earlier run does not say that it had none
    assert (code, "with guidance 1.0, not 2" in err) == (2, True)
    assert run(*TUNE, *more)[0] == 0
    assert Path("run/run.json").read_text() == before

    plan = content["plan"]
    draw = ("generate", "--model", "tiny.safetensors", "--seeds", "0-1", "--plan")
    assert run(*draw, "run/plan-4.json", "--out", "a")[0] == 0
    assert run(*draw, plan, "--out", "b")[0] == 0
    for name in ("000000/000000.png", "000000/000001.png"):
        assert (Path("a") / name).read_bytes() == (Path("b") / name).read_bytes()
    code, out, _ = run("plan", "run/plan-4.json", "--model", "tiny.safetensors", "--json")
    assert (code, json.loads(out)["plan"]) == (0, plan)
    measure = (
        "--model",
        "tiny.safetensors",
        "--reference",
        "ref.npz",
        "--detector",
        "tiny.pt",
        "--trust-detector",
        "--json",
    )
    code, out, err = run("evaluate", *measure, "--plan", "run/plan-4.json", "--seeds", "0-19")
    assert code == 0, err
    assert json.loads(out)["plan"] == plan
    code, out, err = run(
        "sweep", *measure, "--plans", "run/plan-4.json", "--images", "20", "--blocks", "1", "--out", "s"
    )
    assert code == 0, err
    assert json.loads(out)["results"][0]["plan"] == plan


def stand_in_for_wandb(monkeypatch):
    logged = []
    watched = SimpleNamespace(log=logged.append, define_metric=lambda *_, **__: None, finish=lambda exit_code: None)
    module = SimpleNamespace(init=lambda **_: watched, Image=None, __spec__=object())
    monkeypatch.setitem(sys.modules, "wandb", module)
    return logged


def measured_with():
    return load_detector("tiny.pt", trust=True), Ranks(0, 1, torch.device("cpu"))


def test_a_plan_of_another_model(place, run):
    written = {"format": "restart-sampling-plan/1", "plan": "2", "model_sha256": "ab" * 32}
    Path("plan-4.json").write_text(json.dumps(written))
    draw = ("generate", "--model", "tiny.safetensors", "--seeds", "0", "--plan", "plan-4.json", "--out", "other")
    code, _, err = run(*draw)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "was found for another model" in err
    assert "--any-model" in err
    assert not Path("other").exists()
    code, _, err = run("plan", "plan-4.json", "--model", "tiny.safetensors")
    assert (code, len(err.splitlines())) == (2, 1)
    assert run("plan", "plan-4.json", "--model", "tiny.safetensors", "--any-model")[0] == 0
    assert run("plan", "plan-4.json")[0] == 0
    assert run(*draw, "--any-model")[0] == 0


def plan_file(**other):
    identity = rs.load_model("tiny.safetensors").identity
    written = {"format": "restart-sampling-plan/1", "plan": "2", "model_sha256": identity, **other}
    Path("plan-4.json").write_text(json.dumps(written))
    return "plan-4.json"


def test_a_plan_that_was_found_at_another_guidance_scale(place, run):
    file, net = plan_file(guidance=2.0), rs.load_model("tiny.safetensors")
    note = "the plan '2' was found at guidance 2, and this is 1"
    draw = ("generate", "--model", "tiny.safetensors", "--seeds", "0-1", "--out", "a", "--dry-run", "--plan", file)
    measures = ("--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector", "any", "--dry-run")
    measure = ("evaluate", "--model", "tiny.safetensors", *measures, "--seeds", "0-19", "--plan", file, "--plan", "3")
    many = ("sweep", "--model", "tiny.safetensors", *measures, "--images", "20", "--plans", file, "--out", "s")
    push = ("model", "push", "tiny.safetensors", "r", "--license", "mit", "--seeds", "0", "--plan", file)
    for command in (draw, measure, many, push):
        code, _, err = run(*command)
        assert (code, err.splitlines().count(f"note: {note}")) == (0, 1), err
    for command in (draw, measure, many):
        code, _, err = run(*command, "--guidance", "2")
        assert (code, "was found at" in err) == (0, False), err
    with pytest.warns(UserWarning, match=note):
        rs.generate(net, file, [0])
    with pytest.warns(UserWarning, match=note):
        rs.sample(net, file, [0], (3, 8, 8))
    with pytest.warns(UserWarning, match=note):
        rs.evaluate(net, file, reference="ref.npz", detector="tiny.pt", trust_detector=True, seeds=range(20))
    plan_file()  # of an earlier version: not known
    code, _, err = run(*draw)
    assert (code, "note" in err) == (0, False), err
    rs.generate(net, file, [0], guidance=3.0)


def test_the_guidance_scale_is_searched_too(place, run, monkeypatch):
    def nearer(moments, reference, blocks, groups, metrics):  # the more, the more it is guided
        found = score(moments, reference, blocks, groups, metrics)
        return replace(found, values=tuple(value - 1000 * drawn[-1] for value in found.values))

    plain = make_reference(iter([(range(30), torch.from_numpy(pictures(30, 1)), None)]), 30, *measured_with())
    save_reference(
        plain, Path("plain.npz")
    )  # without features, so without recall, by which what is nearer could be left out
    score, draw, drawn = distance._score, NetDrawing.draw, []
    net = rs.load_model("tiny.safetensors")
    monkeypatch.setattr(space, "usual_plans", lambda *_: ["2", "4 solver=euler"])
    monkeypatch.setattr(NetDrawing, "draw", lambda own, *each: drawn.append(own.guidance) or draw(own, *each))
    monkeypatch.setattr(distance, "_score", nearer)
    more = ("--minutes", "inf", "--guidance", "2", "--tune-guidance", "--reference", "plain.npz", "--trials", "5")
    code, out, err = run(*instead(TUNE, *more, "--json"))
    assert code == 0, err
    assert "guidance   2, and searched around it" in err
    assert "no reference here has features with classes" in err
    lines = [json.loads(line) for line in Path("run/measured.jsonl").read_text().splitlines()]
    scales = {stage: [] for stage in ("usual", "search")}
    for line in lines:
        scales.setdefault(line["stage"], []).append(Plan.parse_found(line["plan"]).guidance)
    assert set(scales["usual"]) == {2.0}
    assert min(scales["search"]) < 2 < max(scales["search"])
    assert all(1.5 <= scale <= 3 for scale in scales["search"])
    assert {*drawn} == {scale for each in scales.values() for scale in each}
    content = json.loads(out)["plans"]["4"]
    found = Plan.parse(file := "run/plan-4.json")
    best = max(scales["search"])
    assert (content["guidance"], found.guidance, found.found_at) == (best, best, best)
    assert content["plan"] == found.with_guidance == f"{found} guidance={best:.4g}"
    assert content["evidence"]["verdict"].startswith(f"`{content['plan']}` against the best usual plan, `")
    assert content["evidence"]["cost"]["evaluations"] == sum(
        line["nfe"] * (line["seeds"][1] - line["seeds"][0]) for line in lines
    )
    Path("run/measured.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines[:-1]))
    Path(file).unlink()  # as after a kill, and from Python
    asked = {"reference": "plain.npz", "detector": "tiny.pt", "trust_detector": True, "guidance": 2.0, "minutes": inf}
    settings = {"images": 20, "race": 80, "confirm": 20, "trials": 5, "rises": False, "known": False}
    tuned = rs.tune(net, 4, out="run", tune_guidance=True, **asked, **settings)
    assert (tuned.with_guidance, tuned.found_at) == (content["plan"], best)
    again = [json.loads(line) for line in Path("run/measured.jsonl").read_text().splitlines()]
    assert [{**line, "seconds": 0} for line in again] == [{**line, "seconds": 0} for line in lines]
    assert run("report", "run", "--out", "page.html")[0] == 0
    code, _, err = run("report", "run", "--out", "page.html", "--paper", "cifar10-vp")
    assert (code, "are for a sweep, and run is a run of tune" in err) == (2, True)
    assert f"<code>{content['plan']}</code>" in Path("page.html").read_text()
    code, _, err = run("generate", "--model", "tiny.safetensors", "--seeds", "0", "--plan", file, "--out", "a")
    assert (code, drawn[-1]) == (0, best), err


def test_a_plan_with_a_guidance_scale_of_its_own(place, run):
    file, net = plan_file(plan="2 guidance=1.7", guidance=1.7), rs.load_model("tiny.safetensors")
    plan = Plan.parse(file)
    assert (str(plan), plan.with_guidance, plan.guidance) == ("2", "2 guidance=1.7", 1.7)
    draw = ("generate", "--model", "tiny.safetensors", "--seeds", "0-1", "--out", "a", "--dry-run", "--plan", file)
    measures = ("--model", "tiny.safetensors", "--reference", "ref.npz", "--detector", "tiny.pt")
    measures = (*measures, "--trust-detector", "any", "--dry-run")
    measure = ("evaluate", *measures, "--seeds", "0-19", "--plan", file)
    many = ("sweep", *measures, "--images", "20", "--out", "s", "--plans", file)
    for command in (draw, measure, many):
        for given in ((), ("--guidance", "1.7"), ("--any-model",)):
            code, _, err = run(*command, *given)
            assert (code, "found at" in err) == (0, False), err
        code, _, err = run(*command, "--guidance", "2")
        assert (code, err.splitlines()[-1].partition("the plan")[2]) == (
            2,
            " '2' goes with guidance 1.7, and 2 is asked for; ask for the same, or give the text of the plan",
        )
    code, _, err = run(*draw)
    assert "plan    2 guidance=1.7\nNFE     3 (6 network evaluations with guidance 1.7)" in err
    code, _, err = run(*measure, "--plan", "3")
    assert (code, "the plans are drawn at guidance 1.7 and 1; compare plans of one scale" in err) == (2, True)
    code, _, err = run(*measure, "--plan", "2", "--guidance", "1.7")
    assert (code, "are alike: both are the plan '2'" in err) == (2, True)
    assert run(*measure, "--plan", "3", "--guidance", "1.7")[0] == 0
    code, _, err = run("model", "push", "tiny.safetensors", "r", "--license", "mit", "--seeds", "0", "--plan", file)
    assert (code, "goes with guidance 1.7, and the plan of a repository has no scale" in err) == (2, True)
    assert "guidance   1.7, which goes with the plan" in run("plan", file)[1]
    assert json.loads(run("plan", file, "--json")[1])["guidance"] == 1.7

    [own], [other] = (rs.generate(net, each, [0], **more) for each, more in ((file, {}), ("2", {"guidance": 1.7})))
    assert torch.equal(own.images, other.images)
    assert not torch.equal(own.images, next(rs.generate(net, "2", [0])).images)
    with pytest.raises(rs.InputError, match=r"goes with guidance 1\.7, and 1 is asked for"):
        rs.generate(net, plan, [0], guidance=1)
    for draws in (rs.sample, rs.steps):
        with pytest.raises(rs.InputError, match=r"goes with guidance 1\.7, and the net is called as it is"):
            draws(net, plan, [0], (3, 8, 8))
    for wrong in ("x", "inf", "1 guidance=2", ""):
        with pytest.raises(rs.InputError, match=r"give one finite scale, such as guidance=1\.7"):
            Plan.parse(plan_file(plan=f"2 guidance={wrong}"))
    with pytest.raises(rs.InputError, match=r"'guidance=2' is no setting of a plan; give the scale beside the plan"):
        Plan.parse("2 guidance=2")


def test_a_plan_of_a_net_file_is_one_of_its_net_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def net(identity="own"):
        return rs.from_edm(lambda x, sigma: x / 2, 0.002, 80.0, identity=identity)

    def drawn(net, plan="run/plan-4.json"):
        return rs.sample(net, plan, [0], (2,))

    Path("net.py").write_text(
        "import restart_sampling as rs\n\ndef make():\n"
        "    return rs.from_edm(lambda x, sigma: x / 2, 0.002, 80.0, identity='own')\n"
    )
    own = load_net_file("net.py:make", torch.device("cpu"))
    sizes = {"trials": 1, "minutes": inf, "images": 20, "race": 80, "confirm": 20}
    found = rs.tune(own, 4, objective=spread, shape=(2,), out="run", **sizes)
    content = json.loads(Path("run/plan-4.json").read_text())
    assert (content["model_sha256"], content["net_sha256"]) == (own.identity, net().identity)
    for plan in (found, "run/plan-4.json"):
        assert torch.equal(drawn(net(), plan), drawn(own, plan))
    del content["net_sha256"]  # as of earlier versions
    Path("old.json").write_text(json.dumps(content))
    assert torch.equal(drawn(own, "old.json"), drawn(own))
    others = ((net("other"), "run/plan-4.json"), (net(None), "run/plan-4.json"), (net(), "old.json"))
    for other, file in (*others, (net(None), "old.json")):
        with pytest.raises(InputError, match="was found for another model"):
            drawn(other, file)


def test_a_plan_of_a_net_is_one_of_its_augmented_dimensions(tmp_path, run):
    net = {D: rs.from_edm(lambda x, sigma: x / 2, 0.002, 80.0, D=D, identity="own") for D in (64, 128, None)}
    sizes = {"trials": 1, "minutes": inf, "images": 20, "race": 80, "confirm": 20, "out": tmp_path / "run"}
    found, file = rs.tune(net[64], 4, objective=spread, shape=(2,), **sizes), tmp_path / "run/plan-4.json"
    for plan in (found, str(file)):
        assert rs.sample(net[64], plan, [0], (2,)).shape == (1, 2)
        for other in (128, None):
            with pytest.raises(InputError, match=f"for this model with D = 64, and not {other}; give --any-model"):
                rs.sample(net[other], plan, [0], (2,))
    with pytest.raises(InputError, match="holds another run, with D 64, not 128"):
        rs.tune(net[128], 4, objective=spread, shape=(2,), **sizes)
    for path in (file, tmp_path / "run/run.json"):  # as of earlier versions
        path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "D"}))
    assert rs.sample(net[128], str(file), [0], (2,)).shape == (1, 2)
    assert rs.tune(net[64], 4, objective=spread, shape=(2,), **sizes) == found
    (tmp_path / "wrong.json").write_text('{"format": "restart-sampling-plan/1", "plan": "2", "D": "64"}')
    assert "its D has to be a whole number" in run("plan", str(tmp_path / "wrong.json"))[2]


def spread(samples):
    return samples.std().item()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read (No such file"),
        ("{", "is not JSON"),
        ("[]", "has no format restart-sampling-plan/1"),
        ('{"format": "restart-sampling-plan/1"}', "is damaged"),
        ('{"format": "restart-sampling-plan/1", "plan": "plan-4.json", "model_sha256": null}', "there is no preset"),
        ('{"format": "restart-sampling-plan/1", "plan": "2", "guidance": "2"}', "guidance has to be a finite number"),
        ('{"format": "restart-sampling-plan/1", "plan": "2", "guidance": 1e999}', "guidance has to be a finite number"),
        ('{"format": "restart-sampling-plan/1", "plan": "2", "D": true}', "D has to be a whole number"),
        ('{"format": "restart-sampling-plan/1", "plan": "2", "net_sha256": 5}', "its net_sha256 have to be texts"),
        (f'{{"format": "restart-sampling-plan/1", "plan": "2", "guidance": {10**400}}}', "has to be a finite number"),
        ('{"format": "restart-sampling-plan/1", "plan": "2", "guidance": true}', "guidance has to be a finite number"),
        ("[" * 101 + "]" * 101, "is not JSON (it is nested too deeply)"),
    ],
)
def test_a_file_that_is_no_plan(text, said, tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("plan-4.json").write_text(text)
    code, _, err = run("plan", "plan-4.json")
    assert (code, len(err.splitlines())) == (2, 1)
    assert said in err


def without(option):
    at = TUNE.index(option)
    return TUNE[:at] + TUNE[at + 2 :]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (instead(TUNE, "--nfe", "3"), "NFE 3 is too little to choose from; give at least 4"),
        (instead(TUNE, "--nfe", "10,x"), "--nfe 10,x: give different whole numbers"),
        (instead(TUNE, "--detector", "other.pt"), "the reference was made with the detector"),
        (
            (*TUNE, "--confirm-detector", "other.pt", "--confirm-reference", "ref.npz"),
            "the reference was made with the",
        ),
        ((*TUNE, "--confirm-detector", "tiny.pt"), "give a reference for each detector"),
        ((*TUNE, "--confirm-detector", "tiny.pt", "--confirm-reference", "ref.npz"), "is there twice"),
        ((*TUNE, "--without-reference"), "give either --reference"),
        (without("--reference"), "give either --reference"),
        ((*GRID, "--minutes", "1e-6"), "is too little: 8 seeds need about"),
        *(
            ((*GRID, *option.split()), f"{option.split()[0]} needs --reference, by which plans are judged")
            for option in (
                *("--detector tiny.pt", "--trust-detector", "--confirm-detector tiny.pt --confirm-reference ref.npz"),
                *(
                    "--trials 4",
                    "--images 20",
                    "--race-images 80",
                    "--confirm-images 20",
                    "--search random",
                    "--start 1",
                ),
                *("--no-rises", "--no-restarts", "--from-scratch", "--tune-guidance", "--map", "--data true"),
                "--solvers heun",
                "--log tensorboard",
            )
        ),
        ((*TUNE, "--solvers", "heun,ddpm"), "the search has no solver ddpm; give some of euler, heun"),
        ((*TUNE, "--no-restarts"), "--no-rises is without restarts too; leave --no-restarts out"),
        ((*TUNE, "--tune-guidance"), "searched around 1, which is none; give a scale above 1"),
        ((*without("--model"), "--model", "cifar10-vp-small", "--tune-guidance"), "the model is unconditional"),
        (instead(TUNE, "--guidance", "0.5", "--tune-guidance"), "searched around 0.5, which is none"),
        (instead(TUNE, "--minutes", "0"), "minutes is 0; give a number above 0"),
        (instead(TUNE, "--minutes", "0.0001"), "no time is left for a search in 0.0001 minutes for NFE 4: at"),
    ],
)
def test_bad_input(words, said, place, run):
    detector_file(Path("other.pt"), width=5)
    code, _, err = run(*words)
    assert code == 2
    assert said in err.splitlines()[-1]
    assert "is too little" in said or not Path("run").exists()  # the fine ODE is of the run


@pytest.mark.parametrize(
    ("minutes", "trials", "said"),
    [(10.0, None, "10 minutes"), (1.0, 4, "1 minute, at most 4 trials"), (inf, 1, "at most 1 trial")],
)
def test_the_time_is_said_as_it_is_given(minutes, trials, said):
    assert SearchOptions.time.fget(SimpleNamespace(minutes=minutes, trials=trials)) == f"{said} for each NFE"


def test_help_says_how_many_images_and_evaluations_are_allowed(run):
    for words in (("tune",), ("text", "tune")):
        out = " ".join(run(*words, "--help")[1].split())
        for option, multiple in (("--images", 10), ("--race-images", 40), ("--confirm-images", 10)):
            own = out.rpartition(f" {option} ")[2].partition(" --")[0]
            assert f"a multiple of {multiple}, at least {2 * multiple}" in own
        assert "at least 4, such as 2" in out
    Settings(images=20, race=80, confirm=20)
    for few in ({"images": 10}, {"images": 25}, {"race": 40}, {"race": 100}, {"confirm": 10}, {"confirm": 25}):
        with pytest.raises(InputError, match="give a multiple of"):
            Settings(**few)


def test_a_detector_that_does_not_fit_its_reference_is_told_before_any_image(place, run):
    detector_file(Path("wide.pt"), 9)
    with np.load("ref.npz") as file:
        np.savez("unnamed.npz", mu=file["mu"], sigma=file["sigma"])
    code, _, err = run(*TUNE, "--confirm-detector", "wide.pt", "--confirm-reference", "unnamed.npz")
    assert code == 2
    assert err.endswith(
        "the detector gives 9 features and the reference has 6; use the detector that the reference was made with\n"
    )
    assert "usual plans" not in err


def test_a_reference_of_too_few_images_for_recall_is_told_before_any_image(place, run):
    few = make_reference(
        iter([(range(3), torch.from_numpy(pictures(3, 1)), None)]), 3, *measured_with(), keep_features=True
    )
    save_reference(few, Path("few.npz"))
    for words in (
        instead(TUNE, "--reference", "few.npz"),
        (*TUNE, "--confirm-detector", "tiny.pt", "--confirm-reference", "few.npz"),
    ):
        code, _, err = run(*words)
        assert (code, "needs at least 4 images of the reference, and it has 3" in err) == (2, True)
        assert "usual plans" not in err


def test_what_cannot_be_confirmed_is_told_before_the_search(place, run, monkeypatch):
    def fails(features, reference, device):
        raise InputError("of these it is not defined")

    monkeypatch.setattr(distance, "_more", fails)
    code, _, err = run(*TUNE)
    assert (code, err.splitlines()[-1]) == (
        2,
        "restart-sampling: the confirmation cannot be measured: of these it is not defined",
    )
    assert "NFE 4, search" not in err


def test_a_net_without_two_levels_of_the_map_is_told_so():
    net = rs.from_edm(lambda x, sigma: x, 0.001, 0.04)
    with pytest.raises(InputError, match=r"no two levels between which restarts are mapped: .* is 0\.05 to 20; leave"):
        map_restarts(net, None, range(20))


@pytest.mark.parametrize(("low", "high", "flow"), [(0.002, 20.0, False), (0.0, 1.0, True)])
def test_the_map_of_true_data_asks_a_net_at_its_own_levels_only(low, high, flow, place):
    asked = set()

    def network(x, level):
        asked.update(level.tolist())
        return x / 2

    net = rs.from_flow(network) if flow else rs.from_edm(network, low, high)
    images = read_images(image_folder(Path("true"), pictures(24)))
    setup = SimpleNamespace(detector=measured_with()[0])
    marginals = Marginals(lambda classes: NetDrawing(net, BASE, shape=(3, 8, 8)), setup, images, 12)
    levels = map_levels(net)[::6]
    found = marginals.measure(levels)
    assert low < min(asked) <= max(asked) <= high
    assert [each["level"] for each in found["drift"]] == levels


def test_too_few_images_for_the_features_are_told_before_the_search(place, run):
    detector_file(Path("wide.pt"), 12)
    images = [(range(30), torch.from_numpy(pictures(30, 1)), None)]
    wide = make_reference(iter(images), 30, load_detector("wide.pt", trust=True), measured_with()[1])
    save_reference(wide, Path("wide.npz"))
    code, _, err = run(*instead(TUNE, "--detector", "wide.pt", "--reference", "wide.npz", "--trials", "1"))
    assert code == 0, err
    note = "there are 20 images of each block for the 12 features of wide.pt"
    assert err.index(f"NFE 4, note: {note}") < err.index("NFE 4, search: about")
    evidence = json.loads(Path("run/plan-4.json").read_text())["evidence"]
    assert not evidence["better"]
    assert evidence["verdict"].startswith(f"Take the best usual plan, `{evidence['usual']}`: there are too few images")
    assert f"\nNote: {note}" in evidence["verdict"]


def test_without_a_reference_only_the_grid_is_tuned(place, run, monkeypatch):
    from restart_sampling.tuning import net_run

    monkeypatch.setattr(net_run, "ODE_SOLVERS", ("euler", "heun"))
    monkeypatch.setattr(net_run, "SECONDS_BETWEEN_WORDS", 0.0)
    monkeypatch.setattr(net_run, "SEEDS", 64)
    code, out, err = run(
        *(*GRID, "--json"),
        *("--batch", "64", "--minutes", "1e6"),  # so that all seeds have the time, however busy the machine
    )
    assert code == 0, err
    content = json.loads(out)["plans"]["5"]
    assert "Restarts cannot be judged so" in err
    assert "NFE 5: 2 solvers, of 64 seeds; about" in err
    assert "solver 2 of 2; the closest so far `5 solver=euler" in err
    distances = content["evidence"]["distances"]
    assert (content["plan"], content["D"]) == (min(distances, key=distances.get), None)
    assert {"5 solver=euler", "3"} <= distances.keys()
    assert any("/" in plan for plan in distances)


@pytest.mark.parametrize("processes", [2])
def test_under_torchrun(processes, place, run):
    words = (*TORCHRUN, f"--nproc_per_node={processes}", "-m", "restart_sampling", *TUNE, "--device", "cpu")
    process = start(*words)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    lines = [json.loads(line) for line in Path("run/measured.jsonl").read_text().splitlines()]
    keys = [(line["plan"], *line["seeds"], line["groups"], line["confirm"]) for line in lines]
    assert len(set(keys)) == len(keys)
    assert {line["stage"] for line in lines} >= {"usual", "search", "confirm"}
    assert json.loads(Path("run/plan-4.json").read_text())["evidence"]["cost"]["processes"] == 2


def test_the_page_of_a_run_with_a_map(place, run, monkeypatch):
    from restart_sampling.tuning import restart_map

    monkeypatch.setattr(restart_map, "BASE", "4")
    image_folder(Path("true"), pictures(130), classes=4)
    code, _, err = run(*TUNE, "--map", "--data", "true", "--batch", "60")
    assert code == 0, err
    content = json.loads(Path("run/map.json").read_text())
    assert all(cell["t_min"] < cell["t_max"] for cell in content["cells"])
    assert {"drift", "passes"} <= content.keys()
    assert content["detector"] == "tiny.pt"
    assert "map: most is gained at" in err
    code, _, err = run("report", "run", "--out", "page.html")
    assert (code, err.startswith("page.html: 1 row, ")) == (0, True), err
    page = Path("page.html").read_text()
    plan = json.loads(Path("run/plan-4.json").read_text())
    assert page.count("<svg") == 3  # the map, the trials, the paths
    assert f"<code>{plan['plan']}</code>" in page
    assert page.count('src="data:image/png;base64,') == len(plan["evidence"]["scores"])
    for place, text in enumerate(plan["evidence"]["scores"]):
        strip = Path("run/samples") / strip_name(4, text)
        assert b64encode(strip.read_bytes()).decode() in page
        Path(f"run/samples/4-{place}.png").write_bytes(b"of an earlier start")
    assert run("report", "run", "--out", "again.html")[0] == 0
    assert Path("again.html").read_text() == page
    assert "javascript" not in page
    assert "style=" not in page


def test_a_map_needs_data_that_suffice(place, run):
    image_folder(Path("few"), pictures(30), classes=4)
    code, _, err = run(*TUNE, "--data", "few")
    assert (code, "--data is for the map" in err) == (2, True)
