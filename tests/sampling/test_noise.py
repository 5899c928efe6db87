"""Counter-based noise: known answers, statistics, and independence of everything but the seed."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import restart_sampling as rs
from restart_sampling.sampling.noise import Stream, noise, philox

# From the Random123 distribution of the authors of Philox.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
RISE = rs.NoisePath.through([1.0, 2.0, 0.0])


def seeds(*values):
    return torch.tensor(values, dtype=torch.int64)


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_known_answers(counter, key, words):
    got = philox([torch.tensor([c]) for c in counter], [torch.tensor([k]) for k in key])
    assert tuple(int(word) for word in got) == words


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=9, unique=True),
    st.integers(0, 1000),
    st.integers(1, 70),
    st.randoms(use_true_random=False),
)
def test_a_seed_has_its_numbers_in_any_batch_order_and_slice(values, draw, count, random):
    whole = noise(seeds(*values), draw, 70)
    order = random.sample(range(len(values)), len(values))
    part = noise(seeds(*(values[i] for i in order)), draw, count)
    assert torch.equal(part, whole[order, :count])


def test_moments_and_correlations_of_ten_million_values():
    images, count, draws = 1000, 1000, 10
    x = torch.stack([noise(torch.arange(images), draw, count) for draw in range(draws)])
    n = x.numel()
    assert n == 10_000_000
    # Standard errors of the first four moments of unit Gaussians.
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(x.pow(power).mean().item() - moment) < 4 * math.sqrt(variance / n)
    pairs = {
        "seeds": (x[:, 1:], x[:, :-1]),
        "draws": (x[1:], x[:-1]),
        "neighbours": (x[..., 1:], x[..., :-1]),
        "Box-Muller pairs": (x[..., 0::2] ** 2, x[..., 1::2] ** 2),
        "the same element of a word block": (x[..., 4:], x[..., :-4]),
    }
    for name, (a, b) in pairs.items():
        correlation = torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1].item()
        assert abs(correlation) < 4 / math.sqrt(a.numel()), name


def test_tails_follow_the_normal_distribution():
    x = noise(torch.arange(1000), 0, 2000).flatten()
    for bound in (1.0, 2.0, 3.0, 4.0):
        expected = math.erfc(bound / math.sqrt(2))
        error = math.sqrt(expected * (1 - expected) / x.numel())
        assert abs((x.abs() > bound).double().mean().item() - expected) < 4 * error


def test_streams_draws_and_high_seed_bits_differ():
    base = noise(seeds(5), 0, 64)
    for other in (noise(seeds(5), 1, 64), noise(seeds(5 + 2**32), 0, 64), noise(seeds(5), 0, 64, Stream.AUGMENTED)):
        assert not torch.isclose(base, other).any()


def test_labels_are_uniform_and_belong_to_the_seed():
    labels = rs.GaussianNoise(range(20_000)).labels(10)
    counts = torch.bincount(labels, minlength=10)
    assert len(counts) == 10
    assert ((counts - 2000).abs() < 4 * math.sqrt(20_000 * 0.1 * 0.9)).all()
    assert torch.equal(rs.GaussianNoise([77, 3]).labels(10), labels[[77, 3]])
    assert labels[:8].tolist() == [5, 0, 8, 2, 9, 3, 8, 4]  # of every version


def test_draws_follow_the_rises_and_start_begins_anew():
    source = rs.GaussianNoise([1, 2], s_noise=0.5)
    first = source.start((3, 4), 80.0)
    assert first.shape == (2, 3, 4)
    assert first.dtype == torch.float64
    once, twice = source(first, 0.3, 0.5), source(first, 0.3, 0.5)
    assert not torch.equal(once, twice)
    torch.testing.assert_close(once - first, 0.5 * 0.4 * noise(seeds(1, 2), 1, 12).reshape(2, 3, 4))
    assert torch.equal(source.start((3, 4), 80.0), first)
    assert torch.equal(source(first, 0.3, 0.5), once)


def test_flow_rises_to_pure_noise_without_a_special_case():
    source = rs.GaussianNoise([1], process=rs.FLOW)
    x = source.start((5,), 1.0)
    assert torch.equal(source(x, 0.4, 1.0), noise(seeds(1), 1, 5))


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_out_of_range_are_refused(seed):
    with pytest.raises(rs.InputError, match=f"seed {seed} is out of range"):
        rs.GaussianNoise([seed])


def test_seeds_are_whole_numbers_of_any_kind():
    source = rs.GaussianNoise(torch.arange(3))
    assert torch.equal(source.start((2,), 1.0), rs.GaussianNoise([0, 1, 2]).start((2,), 1.0))
    with pytest.raises(rs.InputError, match=r"seed = 1.5; give a whole number"):
        rs.GaussianNoise([1.5])
    for mask in (torch.tensor([True, False]), np.array([True]), [True]):
        with pytest.raises(rs.InputError, match=r"seed = .*True.*; give a whole number"):
            rs.GaussianNoise(mask)


def test_edm_kernel_draws_in_the_order_of_edm():
    """Latents (float32), label, then a float64 draw for each jump and before each fall, used or not."""
    path = rs.restart_path([2.0, 1.0, 0.5, 0.0], [rs.RestartInterval(3, 2, 0.5, 1.5)], gamma=0.1, s_min=0.6, s_max=1.1)
    kinds = ["fall", "fall", *["jump", "fall", "churn"] * 2, "fall"]  # of the draws, in order
    source = rs.EDMNoise([7, 2**32 + 8], path)
    x, labels = source.start((2,), 2.0), source.labels(10)
    states = [x]
    for rise in path.rises:
        states.append(source(states[-1], rise.now, rise.then))
    for image, seed in enumerate((7, 8)):
        generator = torch.Generator().manual_seed(seed)
        assert torch.equal(x[image], 2.0 * torch.randn(2, generator=generator).double())
        assert labels[image] == torch.randint(10, (), generator=generator)
        draws = [torch.randn(2, generator=generator, dtype=torch.float64) for _ in kinds]
        used = [draw for draw, kind in zip(draws, kinds, strict=True) if kind != "fall"]
        for rise, draw, before, after in zip(path.rises, used, states, states[1:], strict=False):
            torch.testing.assert_close(after[image] - before[image], (rise.then**2 - rise.now**2) ** 0.5 * draw)
    assert len(path.rises) == 4


@pytest.mark.parametrize("s_noise", [-0.1, math.nan, math.inf])
def test_a_factor_on_the_noise_is_finite_and_not_negative(s_noise):
    for make in (rs.GaussianNoise, lambda seeds, **settings: rs.PFGMppNoise(seeds, D=8, **settings)):
        with pytest.raises(rs.InputError, match=r"s_noise is .*; give a finite number, 0 or above"):
            make([1], s_noise=s_noise)


@pytest.mark.parametrize("make", [rs.GaussianNoise, partial(rs.PFGMppNoise, D=4), partial(rs.EDMNoise, path=RISE)])
@pytest.mark.parametrize("seeds", [[1], [1, 2, 3]])
def test_noise_is_for_as_many_states_as_it_has_seeds(make, seeds):
    """The noise of one seed would be added to both states."""
    with pytest.raises(rs.InputError, match=rf"the noise has {len(seeds)} seeds? for 2 states; give one for each"):
        make(seeds)(torch.ones(2, 3), 1.0, 2.0)


def test_edms_noise_checks_what_the_others_check():
    path = rs.Plan(2).path(0.002, 80)
    for seeds, s_noise in (([1.5], 1.0), ({1, 2}, 1.0), ([1], math.nan), ([1], -1.0)):
        with pytest.raises(rs.InputError):
            rs.EDMNoise(seeds, path, s_noise=s_noise)


def test_devices_that_may_have_no_float64_get_none():
    """As MPS and XPU; torch's device without data stands for them."""
    levels = []

    def denoise(x, level):
        levels.append(level.dtype)
        return x

    noise = rs.GaussianNoise([1, 2], device="meta")
    path = rs.Plan.parse("4 [3,1,0.1,1] solver=ddpm").path()
    x = rs.follow(
        denoise, noise.start((3,), path.levels[0]), path, *rs.Plan.parse("4 solver=ddpm").solvers, perturb=noise
    )
    assert {x.dtype, *levels} == {torch.float32}
    assert noise.seeds.device.type == "cpu"
