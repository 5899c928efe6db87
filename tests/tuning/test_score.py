"""Scores, paired differences, and what is made of them."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
import torch
from scipy import stats

import restart_sampling as rs
from restart_sampling.evaluation.collect import Features
from restart_sampling.evaluation.neighbours import precision_recall
from restart_sampling.evaluation.reference import Reference
from restart_sampling.evaluation.statistics import Statistics
from restart_sampling.evaluation.values import recall_draws, share_error
from restart_sampling.tuning import distance
from restart_sampling.tuning.bench import Measured
from restart_sampling.tuning.distance import _more, _recall
from restart_sampling.tuning.limits import Limits
from restart_sampling.tuning.objective import CLIP_SCORE
from restart_sampling.tuning.score import Score, difference, student
from restart_sampling.tuning.sizes import too_few
from restart_sampling.tuning.space import Space
from restart_sampling.tuning.verdict import judge

GROUPS = 10
complexity = Space(rs.from_edm(lambda x, sigma: x, sigma_min=0.002, sigma_max=80), 20).complexity


def score(values):
    """The score of a mean over [blocks, groups]."""
    without = [[np.delete(run, left).mean() for left in range(len(run))] for run in values]
    return Score(tuple(map(np.mean, values)), tuple(map(tuple, without)))


def test_quantiles_of_student():
    for freedom in (9, 27, 36, 100, inf):
        for probability in (0.9, 0.975, 0.995, 0.9995):
            assert student(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=3e-3)


def test_the_difference_of_two_means_is_that_of_a_paired_test():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 3, GROUPS))
    found = difference(score(a), score(b))
    assert found.value == pytest.approx((a - b).mean())
    assert found.error == pytest.approx(np.sqrt(((a - b).var(axis=1, ddof=1) / GROUPS).sum()) / 3)
    assert found.freedom == 27
    assert score(a).error == pytest.approx(np.sqrt((a.var(axis=1, ddof=1) / GROUPS).sum()) / 3)


def test_what_the_seeds_share_cancels():
    random = np.random.default_rng(1)
    shared = 5 * random.normal(size=(3, GROUPS))
    a, b = (score(shared + shift + 0.01 * random.normal(size=shared.shape)) for shift in (0.9, 1.0))
    found = difference(a, b)
    assert found.value == pytest.approx(-0.1, abs=0.01)
    assert found.told_apart(0.001)
    assert a.error > 50 * found.error
    assert not difference(a, a).told_apart(0.05)


def confirmed(**shifts):
    """Scores of plans whose means lie so far from that of the usual one, with errors of 0.01."""
    random = np.random.default_rng(2)
    noise = 0.01 * 30**0.5 / 2**0.5
    return {
        plan: {"A": score(1 + shift + noise * random.normal(size=(3, GROUPS))), "B": score(random.normal(size=(3, 10)))}
        for plan, shift in shifts.items()
    }


USUAL, SIMPLE, OTHER = "20", "18 [3,1,1,3] solver=deis", "15 [3,2,1,3] [2,1,0.1,0.3] s_noise=1.01 solver=deis"


def test_of_plans_that_are_told_apart_as_better_the_simplest_of_the_best_is_taken():
    verdict = judge(confirmed(**{USUAL: 0, SIMPLE: -0.3, OTHER: -0.31}), USUAL, complexity)
    assert (verdict.plan, verdict.better) == (SIMPLE, True)
    verdict = judge(confirmed(**{USUAL: 0, SIMPLE: -0.3, OTHER: -0.5}), USUAL, complexity)
    assert (verdict.plan, verdict.better) == (OTHER, True)
    assert verdict.finalists == 2
    first, *lines = verdict.text.splitlines()
    assert first == f"`{OTHER}` against the best usual plan, `{USUAL}`:"
    assert lines[0].startswith("- A: 0.")
    assert "cannot be told apart" not in lines[0]
    assert lines[1].endswith("cannot be told apart")  # the other detector's is said too
    gain = verdict.json()["gain"]
    assert gain["A"]["relative"] == pytest.approx(-0.5, abs=0.05)
    assert (gain["A"]["told_apart"], gain["B"]["told_apart"]) == (True, False)


def test_what_cannot_be_told_apart_goes_to_the_simplest():
    verdict = judge(confirmed(**{USUAL: 0, OTHER: -0.01}), USUAL, complexity)
    assert (verdict.plan, verdict.better, verdict.differences) == (USUAL, False, {})
    first, *lines = verdict.text.splitlines()
    assert (
        first
        == f"Take the best usual plan, `{USUAL}`: no other one is better beyond its error, or as good and simpler."
    )
    assert lines[0].startswith(f"- `{OTHER}`, A: ")
    verdict = judge(confirmed(**{SIMPLE: 0, "20": 0.005}), SIMPLE, complexity)
    assert (verdict.plan, verdict.better) == ("20", False)
    assert verdict.text.endswith("They cannot be told apart, and it is the simpler one.")


def test_a_worse_plan_is_not_taken_for_being_simpler():
    assert judge(confirmed(**{SIMPLE: 0, "20": 0.3}), SIMPLE, complexity).plan == SIMPLE


def test_the_level_is_divided_by_the_number_of_plans():
    values = np.random.default_rng(3).normal(size=(3, GROUPS))
    usual = {"A": score(values)}
    for shift in np.linspace(0.3, 0.5, 60):  # somewhere here lies what one comparison tells apart, and eight do not
        rival = {"A": score(values - shift + np.random.default_rng(4).normal(size=values.shape))}
        alone = judge({USUAL: usual, SIMPLE: rival}, USUAL, complexity).better
        others = {f"{SIMPLE} s_noise=1.00{k}": usual for k in range(1, 8)}
        if alone and not judge({USUAL: usual, SIMPLE: rival, **others}, USUAL, complexity).better:
            return
    pytest.fail("the number of plans made no difference")


def test_complexity():
    plans = ["20", "20 solver=deis", SIMPLE, f"{SIMPLE} s_noise=1.01", OTHER]
    assert sorted((OTHER, SIMPLE, f"{SIMPLE} s_noise=1.01", "20 solver=deis", "20"), key=complexity) == plans


@pytest.mark.parametrize(("further", "worse"), [(0.1, False), (5.0, True)])
def test_at_infinitely_many_images_a_difference_scatters_as_the_distance_does(further, worse):
    """The error of the line to infinity alone is a hundredth of it here; that of B's distance is about 0.3."""
    scores = confirmed(**{USUAL: 0, SIMPLE: -0.3})
    for plan, value in ((USUAL, 1.0), (SIMPLE, 1.0 + further)):
        metrics = {"frechet_distance_infinity": value, "frechet_distance_infinity_error": 0.001}
        scores[plan]["B"] = replace(scores[plan]["B"], metrics=metrics)
    assert ("WORSE beyond its error" in judge(scores, USUAL, complexity).text.splitlines()[2]) == worse


def beside(recall=0.6, classes=(2.0, 2.0, 2.0)):
    """Metrics with errors of 0.01 for recall, and of 0.1 for each class."""
    names = [str(label) for label in range(len(classes))]
    return {
        **{"recall": recall, "recall_error": 0.01, "precision": 0.9, "precision_error": 0.01},
        "frechet_distance_per_class": dict(zip(names, classes, strict=True)),
        "frechet_distance_per_class_error": dict.fromkeys(names, 0.1),
    }


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (beside(recall=0.566), "recall by B 0.566 against 0.6, -0.034 +- 0.014"),  # 2.4 errors
        (beside(recall=0.571), ""),  # 2.05 errors: of one finalist that would be told apart
        (beside(recall=0.7), ""),
        (beside(classes=(2.0, 2.2, 2.4)), "mean over classes by B 2.2 against 2, +0.200 +- 0.082"),
        (beside(classes=(2.0, 2.0, 2.33)), ""),  # one class by 2.3 errors, their mean by 1.3
        (beside(classes=(1.8, 1.6, 1.6)), ""),
        ({**beside(), "precision": 0.8}, ""),
    ],
)
def test_a_plan_whose_recall_or_mean_over_classes_falls_is_left_out(metrics, said):
    """By any detector: the search's is A, which says nothing of it."""
    scores = confirmed(**{USUAL: 0, SIMPLE: -0.3, OTHER: -0.1})
    for plan in scores:
        scores[plan]["B"] = replace(scores[USUAL]["B"], metrics=metrics if plan == SIMPLE else beside())
    verdict = judge(scores, USUAL, complexity)
    assert (verdict.plan, verdict.better) == (OTHER if said else SIMPLE, True)
    assert verdict.json()["left_out"] == ({SIMPLE: said} if said else {})
    assert verdict.text.endswith(f"\n`{SIMPLE}` is left out, worse beyond the error: {said}.") == bool(said)
    assert ("precision 0.8 against 0.9 (WORSE beyond its error)" in verdict.text) == (metrics["precision"] < 0.9)
    others = {plan: each for plan, each in scores.items() if plan != OTHER}
    assert judge(others, USUAL, complexity).plan == (USUAL if said or metrics["recall"] == 0.571 else SIMPLE)


@pytest.mark.parametrize(("other", "sign"), [(CLIP_SCORE, 1), ("another detector", -1)])
def test_a_plan_that_is_worse_by_something_else_is_not_taken(other, sign):
    scores = confirmed(**{USUAL: 0, SIMPLE: -0.3, OTHER: -0.1})
    random = np.random.default_rng(5)
    shared = random.normal(size=(3, GROUPS))
    for plan, shift in ((USUAL, 0.0), (SIMPLE, -0.1), (OTHER, 0.1)):
        means = shared + sign * shift + 0.01 * random.normal(size=shared.shape)
        scores[plan][other] = Score.of_means(means.ravel().tolist(), 3, GROUPS)
    assert scores[USUAL][other].without == pytest.approx(np.array(score(shared).without), abs=0.02)
    verdict = judge(scores, USUAL, complexity)
    assert (verdict.plan, verdict.better, [*verdict.fallen]) == (OTHER, True, [SIMPLE])
    title = other if other == CLIP_SCORE else f"distance by {other}"
    assert f"\n`{SIMPLE}` is left out, worse beyond the error: {title} " in verdict.text
    assert f"- {other}: " in verdict.text


def reference_of(real):
    return Reference(Statistics(len(real), real.mean(dim=0).double(), real.T.cov().double()), features=real)


@pytest.mark.parametrize("trust", [True, "0" * 64])
def test_of_several_detectors_those_that_are_files_are_trusted(trust, monkeypatch):
    monkeypatch.setattr(distance, "open_setup", lambda *asked, trust_detector: trust_detector)

    def seen(*names):
        return distance.open_setups([(name, "ref.npz") for name in names], torch.device("cpu"), trust)

    assert seen("tiny-clip", "own.pt") == [False, trust]
    assert seen("tiny-clip", "dinov2-hf") == [trust, trust]  # where it is refused


def test_recall_has_no_more_images_of_the_reference_than_generated_ones(monkeypatch):
    real, drawn = torch.randn(100, 4, generator=torch.Generator().manual_seed(0)).split([70, 30])
    found = _more(Features(drawn, None), reference_of(real), real.device)
    assert found["recall_error"] == share_error(found["recall"], recall_draws(30, 24))  # each third of 70
    monkeypatch.setattr(distance, "NEIGHBOURS", 10)
    found = _more(Features(drawn, None), reference_of(real), real.device)
    assert (found["precision"], found["recall"]) == precision_recall(drawn[::3], real[::7])


def test_the_error_of_the_recall_of_few_images_says_how_it_scatters():
    random = torch.Generator().manual_seed(0)
    reference = reference_of(torch.randn(400, 6, generator=random))
    found = [
        _recall(Features(torch.randn(100, 6, generator=random), None), reference, torch.device("cpu"))
        for _ in range(40)
    ]
    scatter = np.std([each["recall"] for each in found])
    assert np.mean([each["recall_error"] for each in found]) == pytest.approx(scatter, rel=0.3)


def test_recall_of_a_trial_has_as_many_images_of_the_reference_as_are_affordable(monkeypatch):
    real, drawn = torch.randn(130, 4, generator=torch.Generator().manual_seed(0)).split([100, 30])
    for most, used in ((5000, 100), (40, 34)):  # each third of 100
        monkeypatch.setattr(distance, "NEIGHBOURS", most)
        found = _recall(Features(drawn, None), reference_of(real), real.device)
        assert found["recall_error"] == share_error(found["recall"], recall_draws(30, used))


def result(value=0.3, clip=None, **metrics):
    scores = {"A": Score((value,), (), metrics)} | ({} if clip is None else {CLIP_SCORE: Score((clip,))})
    return Measured("search", 20, scores, "", 1.0)


def test_a_plan_that_draws_half_of_the_data_lies_beyond_the_limits():
    """Of two clusters it has one, and so covers at most half of the real images."""
    random = torch.Generator().manual_seed(0)
    sides = torch.tensor([20.0, -20.0]).repeat(100)[:, None]
    real, drawn = (torch.randn(200, 4, generator=random) + sides for _ in range(2))
    half = torch.cat([drawn[::2], torch.randn(100, 4, generator=random) + 20])
    reference, device, seeds = reference_of(real), torch.device("cpu"), range(500, 700)
    whole, one = (result(**_recall(Features(each, None), reference, device)) for each in (drawn, half))
    limits = Limits({seeds: whole})
    assert [each.score.metrics["recall"] for each in (whole, one)] == pytest.approx([0.95, 0.475], abs=0.05)
    assert limits.beyond(seeds, one)["recall"] > 0.3
    assert limits.hold(seeds, whole)
    assert not limits.hold(seeds, one)
    assert limits.hold(range(500), one)  # where nothing is known
    assert Limits({seeds: one}).hold(seeds, whole)


@pytest.mark.parametrize(
    ("ours", "beyond"),
    [
        (result(), {}),  # of an earlier version
        (replace(result(), scores=None), {}),
        (result(recall=0.59, recall_error=0.01), {"recall": 0.01 - 2**0.5 / 100}),
        (result(recall=0.58, recall_error=0.01), {"recall": 0.02 - 2**0.5 / 100}),
        (result(clip=0.25), {"CLIP score": 0.0}),
        (result(clip=0.24), {"CLIP score": 0.01}),
        (result(clip=0.26, precision=0.1, precision_error=0.01), {"CLIP score": -0.01}),
    ],
)
def test_how_far_a_result_lies_beyond_the_limits(ours, beyond):
    known = result(clip=0.25, recall=0.6, recall_error=0.01, precision=0.9, precision_error=0.01)
    limits = Limits({range(20): known})
    assert limits.beyond(range(20), ours) == pytest.approx(beyond)
    assert limits.hold(range(20), ours) == all(each <= 0 for each in beyond.values())
    assert limits.beyond(range(20), known)["CLIP score"] == 0
    assert limits.hold(range(20), known)
    assert Limits({range(20): result()}).beyond(range(20), known) == {}


def test_of_too_few_images_no_plan_is_called_better():
    scores = confirmed(**{USUAL: 0, "20 solver=deis": -0.3, "10": -0.001})
    assert not too_few(129, {"A": 64})
    few = too_few(128, {"A": 64, "B": 6})
    verdict = judge(scores, USUAL, complexity, few)
    assert (verdict.plan, verdict.better, few.keys()) == (USUAL, False, {"A"})
    assert verdict.text.startswith(f"Take the best usual plan, `{USUAL}`: there are too few images to call")
    assert "`20 solver=deis`, A: " in verdict.text  # what was measured is said all the same
    assert "Note: there are 128 images of each block for the 64 features of A, so that" in verdict.text
    verdict = judge(scores, USUAL, complexity, too_few(128, {"A": 6, "B": 64}))  # the search does not go by B
    assert (verdict.plan, verdict.better) == ("20 solver=deis", True)
    assert verdict.text.endswith("; give more than 128 (--confirm-images), and the --minutes for them.")
