"""`text tune` and `rs.tune` of a pipeline, from end to end: its search space, a kill, its plans, its page."""

import json
import math
import shutil
from dataclasses import replace
from functools import cache
from math import inf
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_compare_command import made  # noqa: F401  a fixture

import restart_sampling as rs
from arguments import instead
from drawn_trial import Drawn
from restart_sampling.base.errors import InputError
from restart_sampling.evaluation.clip import ClipScore, load_clip, prepare_images
from restart_sampling.text_to_image.drawing import Request, TextDrawing, prepare
from restart_sampling.text_to_image.pipeline import load_pipeline
from restart_sampling.text_to_image.samplers import MadeFor, Sampler
from restart_sampling.tuning import distance, text_space
from restart_sampling.tuning.distance import Captions
from restart_sampling.tuning.given_trial import GivenTrial
from restart_sampling.tuning.objective import CLIP_SCORE
from restart_sampling.tuning.search import open_study
from restart_sampling.tuning.text_run import Again, TextRun
from restart_sampling.tuning.text_space import TextSpace
from tiny import detector_file

pytestmark = pytest.mark.usefixtures("one_thread", "read_once")
MEASURED = Path("run/measured.jsonl")
TUNE = (
    *("text", "tune", "--model", "sd", "--prompts", "prompts.csv", "--reference", "ref.npz", "--detector", "tiny.pt"),
    *("--trust-detector", "--clip", "clip", "--nfe", "5", "--guidance", "3", "--batch", "80", "--minutes", "inf"),
    *("--images", "20", "--race-images", "80", "--confirm-images", "20", "--trials", "4", "--out", "run"),
)


@pytest.fixture
def place(folder, made, tmp_path, monkeypatch):  # noqa: F811
    (tmp_path / "sd").symlink_to(folder())
    for file in made.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    for name, solvers in (("ODE_SOLVERS", ("dpm2",)), ("STOCHASTIC_SOLVERS", ("ddpm",)), ("_AROUND", ("ab",))):
        monkeypatch.setattr(text_space, name, solvers)
    return tmp_path


def lines():
    """What was measured, without what a second run takes anew."""
    found = [json.loads(line) for line in MEASURED.read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


def trials():
    found = open_study(Path("run/trials.journal"), "NFE 5").get_trials(deepcopy=False)
    return [(trial.number, trial.user_attrs.get("plan"), trial.state.name, trial.value) for trial in found]


def test_a_run_its_kill_and_its_plan_in_the_text_commands(place, run, monkeypatch):
    usual = TextSpace._usual  # three runs of all of them would take long
    monkeypatch.setattr(TextSpace, "_usual", lambda space: (each for each in usual(space) if "karras" not in str(each)))
    code, out, err = run(*TUNE, "--json")
    assert code == 0, err
    content = json.loads(out)["plans"]["5"]
    assert json.loads(Path("run/plan-5.json").read_text()) == content
    plan, whole, tried = content["plan"], lines(), trials()
    assert [number for number, *_ in tried] == [0, 1, 2, 3]
    assert {line["stage"] for line in whole} == {"usual", "rehearsal", "search", "race", "confirm"}
    assert {line["nfe"] for line in whole} <= {4, 5}
    assert {"ddim:5", "ddpm:5", "dpmpp:5", "heun:3"} <= {line["plan"] for line in whole if line["stage"] == "usual"}
    assert {"tiny.pt", CLIP_SCORE} == set(content["evidence"]["scores"][plan])
    assert content["evidence"]["verdict"] in err
    assert "NFE        5, guidance 3" in err
    confirmed = [line["seeds"] for line in whole if line["stage"] == "confirm"]
    assert confirmed == [[140, 200]] * len(content["evidence"]["scores"])  # after all others, the same for all

    shutil.rmtree("run")
    measure, count = distance.Distance.measure, 0

    def dies(*arguments, **asked):
        nonlocal count
        count += 1
        if count == sum(line["stage"] == "usual" for line in whole) + 2:
            raise KeyboardInterrupt
        return measure(*arguments, **asked)

    with monkeypatch.context() as patch:
        patch.setattr(distance.Distance, "measure", dies)
        assert run(*TUNE)[0] != 0
    before = MEASURED.read_text()
    assert 0 < len(lines()) < len(whole)
    assert run(*TUNE)[0] == 0
    assert MEASURED.read_text().startswith(before)
    assert (lines(), trials()) == (whole, tried)
    assert json.loads(Path("run/plan-5.json").read_text())["plan"] == plan

    draw = ("text", "generate", "--model", "sd", "--prompt", "a b", "--guidance", "3", "--scheduler")
    assert run(*draw, "run/plan-5.json", "--out", "a")[0] == 0
    assert run(*draw, plan, "--out", "b")[0] == 0
    picture = Path("000000/000000.png")
    assert (Path("a") / picture).read_bytes() == (Path("b") / picture).read_bytes()
    assert run("report", "run", "--out", "page.html")[0] == 0
    page = Path("page.html").read_text()
    assert f"<code>{plan}</code>" in page
    assert f"<td>{CLIP_SCORE}</td>" in page
    again = instead(TUNE, "--minutes", "30", "--nfe", "5,6", "--dry-run", "--json")
    code, out, err = run(*again)
    assert code == 0, err
    assert (json.loads(out)["nfe"], json.loads(out)["seconds"]) == ([6], 1800)  # the plan of 5 is there
    code, _, err = run(*TUNE, "--negative-prompt", "x")
    assert (code, "holds another run, with negative_prompt" in err) == (2, True)


def test_the_guidance_scale_is_searched_too(place, run, monkeypatch):
    def fits(self, images, seeds):  # what is guided more fits better
        return torch.full((len(images),), asked[-1], dtype=torch.float64)

    def nearer(moments, reference, blocks, groups, metrics):  # and is nearer too
        found = score(moments, reference, blocks, groups, metrics)
        return replace(found, values=tuple(value - 9 * asked[-1] for value in found.values))

    score, draw, asked = distance._score, TextDrawing.draw, []
    monkeypatch.setattr(TextSpace, "_usual", lambda space: iter(["ddim:5", space._plain("dpm2", "karras", 3)]))
    monkeypatch.setattr(TextDrawing, "draw", lambda own, *each: asked.append(own.request.guidance) or draw(own, *each))
    monkeypatch.setattr(Captions, "__call__", fits)
    monkeypatch.setattr(distance, "_score", nearer)
    few = ("--trials", "6", "--start", "3", "--json")
    code, out, err = run(*instead(TUNE, "--tune-guidance", *few))
    assert code == 0, err
    assert "guidance 3, and searched around it" in err
    scales = {text: Sampler.parse(text).guidance for _, text, *_ in trials() if text}
    searched = [scale for scale in scales.values() if scale]
    assert min(searched) < 3 < max(searched)
    assert all(2 <= scale <= 5 for scale in searched)
    whole = lines()
    assert all(Sampler.parse(line["plan"]).guidance is None for line in whole if line["stage"] == "usual")
    scores = {line["plan"]: line["scores"][CLIP_SCORE]["values"][0] for line in whole if line["seeds"] == [0, 20]}
    assert all(scores[text] == pytest.approx(scale or 3) for text, scale in scales.items())
    gone_on = {line["plan"] for line in whole if line["stage"] in ("search", "race") and line["seeds"] != [0, 20]}
    assert all((Sampler.parse(text).guidance or 3) >= 3 for text in gone_on)

    content = json.loads(out)["plans"]["5"]
    plan, evidence = content["plan"], content["evidence"]
    assert evidence["better"]
    assert content["guidance"] == Sampler.parse(plan).guidance == max(searched)
    assert evidence["verdict"].startswith(f"`{plan}` against the best usual plan, `{evidence['usual']}`:")
    assert run("report", "run", "--out", "page.html")[0] == 0
    assert f"<code>{plan}</code>" in Path("page.html").read_text()
    drawn = ("text", "generate", "--model", "sd", "--prompt", "a", "--scheduler", "run/plan-5.json", "--out", "a")
    code, _, err = run(*drawn)
    assert code == 0, err
    assert asked[-1] == max(searched)


def test_a_sampler_with_a_guidance_scale_of_its_own(place, run, model):
    text = "restart:5 restart=null solver=ab guidance=4.2"
    sampler = Sampler.parse(text)
    assert (str(sampler), sampler.guidance, dict(sampler.settings)) == (text, 4.2, {"restart": "null", "solver": "ab"})
    written = {"format": "restart-sampling-sampler/1", "plan": text, "model_sha256": model().identity, "guidance": 4.2}
    Path("plan-5.json").write_text(json.dumps(written))
    draw = ("text", "generate", "--model", "sd", "--prompt", "a", "--out", "a", "--dry-run", "--scheduler")
    for given in ((), ("--guidance", "4.2")):
        code, _, err = run(*draw, "plan-5.json", *given)
        assert code == 0, err
        assert f"sampler  {text}, guidance 4.2" in err
        assert "was found at" not in err
    code, _, err = run(*draw, "plan-5.json", "--guidance", "5")
    assert (code, len(err.splitlines())) == (2, 1)
    assert f"sampler '{text}' goes with guidance 4.2, and 5 is asked for; ask for the same, or take guidance=4.2" in err
    own_run = SimpleNamespace(first=SimpleNamespace(request=Request(Sampler.parse("ddim:5"), 3.0)))
    assert [TextRun.form(own_run, each)["guidance"] for each in (text, "ddim:5")] == [4.2, 3.0]
    for wrong in ("x", "inf", ""):
        with pytest.raises(InputError, match=r"give one finite scale, such as guidance=1\.7"):
            Sampler.parse(f"ddim:5 guidance={wrong}")
    with pytest.raises(InputError, match="it has guidance twice"):
        Sampler.parse("ddim:5 guidance=4 guidance=5")


def test_a_plan_of_another_pipeline(place, run, model):
    written = {
        "format": "restart-sampling-sampler/1",
        "plan": "restart:5 restart=null solver=ab",
        "model_sha256": "ab" * 32,
        "guidance": 3.0,
    }
    Path("plan-5.json").write_text(json.dumps(written))
    draw = ("text", "generate", "--model", "sd", "--prompt", "a", "--out", "a", "--guidance", "5", "--scheduler")
    code, _, err = run(*draw, "plan-5.json")
    assert code == 2
    assert "was found for another pipeline, of identity abababababab and not" in err.splitlines()[-1]
    assert not Path("a").exists()
    assert run(*draw, "plan-5.json", "--any-model", "--dry-run")[0] == 0
    Path("plan-5.json").write_text(json.dumps({**written, "model_sha256": model().identity}), "utf-8-sig")
    code, _, err = run(*draw, "plan-5.json", "--dry-run")
    assert code == 0, err
    assert "note     the sampler was found at guidance 3, and this is 5" in err
    papers = Sampler.parse("restart:30")  # of which there is more to say in SDXL
    with pytest.raises(InputError, match="was found for another pipeline"):
        prepare(model("sdxl"), Request(replace(papers, made_for=MadeFor("ab" * 32, 3.0)), 3.0))
    own = replace(papers, made_for=MadeFor(model("sdxl").identity, 3.0))
    note = prepare(model("sdxl"), Request(own, 5.0)).note
    assert "are the paper's for Stable Diffusion 1.5" in note
    assert note.endswith("; the sampler was found at guidance 3, and this is 5")
    for text, said in (
        ("{", "is not JSON"),
        ('{"format": "restart-sampling-plan/1"}', "has no format restart-sampling-sampler/1"),
        ('{"format": "restart-sampling-sampler/1", "plan": "ddim:5"}', "is damaged"),
        (json.dumps({**written, "guidance": math.nan}), "is damaged: its guidance has to be a finite number"),
        (json.dumps({**written, "guidance": "3"}), "is damaged: its guidance has to be a finite number"),
        (json.dumps({**written, "plan": ["ddim:5"]}), "is damaged: its plan has to be a text"),
        (
            json.dumps({**written, "plan": "restart:5 solver=abb"}),
            "plan-5.json: sampler 'restart:5 solver=abb': solver",
        ),
        (json.dumps({**written, "plan": "plan-5.json"}), "plan-5.json: there is no sampler 'plan-5.json'"),
        (json.dumps({**written, "guidance": 10**400}), "is damaged"),
        (
            json.dumps({**written, "plan": "ddim:8", "evidence": {"scores": {written["plan"]: {}}}}),
            "plan-5.json was edited: its evidence is not of its plan 'ddim:8'; give that text itself as the sampler",
        ),
        ('{"a": 1, "a": 2}', "is not JSON (it has the key 'a' twice)"),
        ("[" * 5000 + "]" * 5000, "is not JSON (it is nested too deeply)"),
    ):
        Path("plan-5.json").write_text(text)
        code, _, err = run(*draw, "plan-5.json")
        assert (code, said in err.splitlines()[-1]) == (2, True)
    Path("plan-5.json").write_text(json.dumps(written))
    code, _, err = run("plan", "plan-5.json")
    assert (code, "those of 'text tune' are samplers for the text commands" in err) == (2, True)


def test_the_identity_of_a_pipeline_is_that_of_its_weights_in_either_precision(model, folder):
    half = load_pipeline(str(folder()), torch.device("cpu"), torch.float16)
    assert half.identity == model().identity
    assert half.sha256 != model().sha256
    assert model("sdxl").identity != half.identity


def test_a_pipeline_from_python(place, folder):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder())
    own = pipe.scheduler
    asked = {
        **{"reference": "ref.npz", "detector": "tiny.pt", "trust_detector": True, "minutes": inf, "trials": 1},
        **{"images": 20, "race": 80, "confirm": 20, "rises": False, "batch_size": 80, "guidance": 3.0},
    }
    found = rs.tune(pipe, 4, prompts=["a b", "c"], out="kept", **asked)
    told = []
    assert rs.tune(pipe, 4, prompts=["a b", "c"], out="kept", tell=told.append, **asked) == found
    assert told == ["NFE 4: kept/plan-4.json is there already"]
    assert found.verdict.startswith(("`", "Take the best usual plan"))
    assert str(Sampler.parse(str(found))) == str(found)
    assert pipe.scheduler is own
    pipe.scheduler = found.scheduler(pipe)
    rows = []
    pipe.set_progress_bar_config(disable=True)
    pipe("a", num_inference_steps=found.steps, callback_on_step_end=lambda *each: rows.append(each[1]) or each[3])
    assert len(rows) in (3, 4)
    for given, said in (
        ({"prompts": []}, "tuned with prompts"),
        ({"objective": len, "reference": None}, "a pipeline is tuned by a reference"),
        ({"solvers": ["heun"]}, "solvers and known are of the search of a net"),
        ({"tune_guidance": True}, "the guidance scale is searched only with a CLIP"),
    ):
        with pytest.raises(InputError, match=said):
            rs.tune(pipe, 4, **{"prompts": ["a"], **asked, **given})
    with pytest.raises(InputError, match=r"no time is left for a search in 0.001 minutes for NFE 4"):
        rs.tune(pipe, 4, **{"prompts": ["a"], **asked, "minutes": 0.001, "out": "early"})
    assert not Path("early/run.json").exists()
    with pytest.raises(InputError, match="prompts and clip are for text-to-image pipelines"):
        rs.tune(rs.load_model("cifar10-small"), 4, prompts=["a"], reference="ref.npz")


BAD = [
    (("--nfe", "3"), "NFE 3 is too little to choose from; give at least 4"),
    (("--nfe", "5,x"), "--nfe 5,x: give different whole numbers"),
    (("--nfe", "2000"), "NFE 2000 is more than the 1000 timesteps that the model knows; give fewer"),
    (("--detector", "other.pt"), "the reference was made with the detector"),
    (("--confirm-detector", "tiny.pt"), "give a reference for each detector"),
    (("--prompts", "none.csv"), "none.csv"),
    (("--clip", "./none"), "CLIP ./none could not be loaded"),
    (("--model", "./none"), "--model ./none: there is no such folder"),
    (("--guidance", "nan"), "guidance is nan; give a finite scale"),
    (("--guidance", "1", "--negative-prompt", "x"), "a negative prompt does nothing without"),
    (("--images", "15"), "images is 15; give a multiple of 10"),
    (("--minutes", "inf", "--dry-run"), "--dry-run is for a search of so many minutes, and this has --minutes inf"),
    *(
        (
            ("--minutes", "0.01", *words),
            "more than 1 minute (--minutes), which leaves some for the search, fewer images",
        )
        for words in ((), ("--dry-run",))
    ),
    (("--guidance", "1", "--tune-guidance"), "the guidance scale is searched around 1, which is none; give a scale"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD)
def test_bad_input_is_one_sentence_before_any_image(arguments, said, place, run):
    detector_file(Path("other.pt"), width=5)
    code, _, err = run(*instead(TUNE, *arguments))
    assert code == 2
    assert said in err.splitlines()[-1]
    assert not Path("run").exists()


def test_a_dry_run_checks_the_run_and_leaves_nothing(place, run):
    dry = instead(TUNE, "--minutes", "30", "--dry-run", "--json")
    code, out, err = run(*dry)
    assert code == 0, err
    said = json.loads(out)
    assert (said["dry_run"], said["nfe"], said["seconds"], 0 < said["bytes"] < 1e8) == (True, [5], 1800, True)
    assert "nothing was drawn or written (--dry-run)" in err
    assert not Path("run").exists()
    Path("run").mkdir()
    Path("run/other.txt").touch()
    code, _, err = run(*dry)
    assert (code, "run holds something else than a run of tune" in err) == (2, True)


def test_what_it_will_do_is_said_before_anything_is_loaded(place, run):
    code, _, err = run(*instead(TUNE, "--model", "./none"))
    assert (code, err.splitlines()[:6]) == (
        2,
        [
            "NFE        5, guidance 3",
            "prompts    24 (prompts.csv), by seed",
            "judged by  tiny.pt, CLIP score by clip",
            "time       at most 4 trials for each NFE",
            "out        run",
            "loading ./none and what judges it",
        ],
    )


@pytest.mark.parametrize(("kind", "nfe"), [("sd", 20), ("sd3", 9)])
def test_samplers_of_the_space_have_the_evaluations_asked_for(kind, nfe, model):
    pipeline = model(kind)

    @cache
    def draw(text):
        return prepare(pipeline, Request(Sampler.parse(text), 3.0), "a")

    @cache
    def draw_at(text):
        return prepare(pipeline, Request(Sampler.parse(text), Sampler.parse(text).guidance or 3.0), "a")

    space, intervals, exact = TextSpace(nfe, pipeline.scheduler_config, 3.0, draw), set(), []
    for seed in range(10):
        sampler = space.suggest(Drawn(seed))
        assert Sampler.parse(str(sampler)) == sampler
        assert draw(str(sampler)).nfe in (nfe - 1, nfe)
        path = draw(str(sampler)).scheduler.path
        main = [move.now for move in path.moves if not (move.restart or move.rises)]
        exact += [min(abs(each.t_min / level - 1) for level in main) < 1e-3 for each in sampler.intervals]
        intervals.add(len(sampler.intervals))
        assert (sampler.family == "Restart") == bool(sampler.intervals)
    assert len(intervals) > 1
    assert sum(exact) >= 0.8 * len(exact)  # of a few the exact level does not fit
    scaled = TextSpace(nfe, pipeline.scheduler_config, 3.0, draw_at, tune_guidance=True)
    for seed in range(3):
        sampler = scaled.suggest(Drawn(seed))
        assert (sampler, 2 <= sampler.guidance <= 5) == (Sampler.parse(str(sampler)), True)
        again = scaled.suggest(GivenTrial(scaled.suggestion(str(sampler)))) if sampler.intervals else sampler
        assert again.guidance == sampler.guidance
        assert scaled.suggest(Drawn(seed, guidance=3.0)).guidance is None  # that of all
    falls = TextSpace(nfe, pipeline.scheduler_config, 3.0, draw, rises=False)
    assert {falls.suggest(Drawn(seed)).family for seed in range(3)} == {"ODE"}
    alone = TextSpace(nfe, pipeline.scheduler_config, 3.0, draw, restarts=False)
    assert not any(alone.suggest(Drawn(seed)).intervals for seed in range(3))


def test_usual_samplers(model, monkeypatch):
    def draw(text):
        return prepare(model(), Request(Sampler.parse(text), 3.0), "a")

    monkeypatch.setattr(text_space, "ODE_SOLVERS", ("midpoint", "unipc"))
    monkeypatch.setattr(text_space, "_AROUND", ("dpmpp_2m",))
    usual = TextSpace(25, model().scheduler_config, 3.0, draw).usual()
    assert {"ddim:25", "ddpm:25", "dpmpp:25", "dpmpp:25 use_karras_sigmas=true", "heun:13"} <= set(usual)
    paper, other = (Sampler.parse(text) for text in usual if "[" in text)
    assert [(each.points, each.repeats, each.t_max) for each in paper.intervals] == [(7, 1, 3.0)]
    assert [(each.points, each.repeats, each.t_max) for each in other.intervals] == [(10, 1, 2.0)]
    preset = rs.guidance_preset(3.0, 25)
    assert paper.intervals[0].t_min == pytest.approx(preset["restart"][0][2], rel=0.01)
    families = {text: Sampler.parse(text).family for text in usual}
    assert families["dpmpp:25 algorithm_type=sde-dpmsolver++"] == "SDE"
    assert {families[text] for text in families if "solver=sa" in text or "solver=ddpm" in text} == {"SDE"}
    assert {families[text] for text in families if "solver=unipc" in text} == {"ODE"}
    falls = TextSpace(25, model().scheduler_config, 3.0, draw, rises=False).usual()
    assert {Sampler.parse(text).family for text in falls} == {"ODE"}
    alone = TextSpace(25, model().scheduler_config, 3.0, draw, restarts=False).usual()
    assert set(alone) == {text for text in usual if "[" not in text}


def test_a_seed_after_the_last_has_the_first_prompt_again(model):
    prompts = ["a b c", "d"]
    drawing = prepare(model(), Request(Sampler.parse("ddim:2"), 3.0, seed=0), Again(prompts))
    (batch,) = drawing.draw([2])
    other = prepare(model(), Request(Sampler.parse("ddim:2"), 3.0, seed=2), ["a b c"])
    assert torch.equal(batch.images, next(other.draw([0])).images)


def test_clip_scores_by_seed(made):  # noqa: F811
    score = ClipScore(load_clip(str(made / "clip")))
    images = torch.randint(256, (3, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    prepared = prepare_images(images, 32)
    assert prepared.shape == (3, 3, 32, 32)
    assert torch.equal(prepare_images(prepared, 32), prepared)
    assert torch.equal(Captions(score, Again(["a", "b"]))(images, [1, 2, 5]), score(prepared, ["b", "a", "b"]))
