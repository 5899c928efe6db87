"""The noise of PFGM++: its dimensions, and its parts."""

import pytest
import torch

import restart_sampling as rs
from restart_sampling.sampling.pfgmpp import MAX_DIMENSIONS


def test_pfgmpp_needs_an_augmented_dimension():
    with pytest.raises(rs.InputError, match="D is 0"):
        rs.PFGMppNoise([1], D=0)
    with pytest.raises(rs.InputError, match=r"D = 2.5; give a whole number"):
        rs.PFGMppNoise([1], D=2.5)


def test_the_noise_of_pfgmpp_is_the_same_in_parts(monkeypatch):
    """Of 5 images in parts of 2, 2 and 1, for a network of one's own and D at its highest too."""

    def states():
        source = rs.PFGMppNoise(range(5), D=16)
        start = source.start((3, 2), 1.0)
        return start, source(start, 1.0, 2.0)

    whole = states()
    monkeypatch.setattr("restart_sampling.sampling.pfgmpp._AT_ONCE", 2 * (6 + 16) + 1)
    for part, expected in zip(states(), whole, strict=True):
        assert torch.allclose(part, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("D", [MAX_DIMENSIONS + 1, 10**10])
def test_more_dimensions_than_fit_into_memory_are_refused(D):
    with pytest.raises(rs.InputError, match="has to be a positive integer up to 4,194,304"):
        rs.from_edm(lambda x, sigma: x, 0.002, 80, D=D)
