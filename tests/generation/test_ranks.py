"""Failures of a process among many; what happens between real processes is tested where they work."""

import pytest
import torch

from restart_sampling.base.errors import InputError
from restart_sampling.base.ranks import Ranks


def ranks(forgiving):
    return Ranks(0, 1, torch.device("cpu"), forgiving)


def test_forgiving_ranks_turn_a_failure_into_one_sentence():
    with pytest.raises(InputError, match=r"^RuntimeError: out of memory$"), ranks(forgiving=True).failing_together():
        raise RuntimeError("out of memory\nand more")
    with pytest.raises(InputError, match=r"^ours$"), ranks(forgiving=True).failing_together():
        raise InputError("ours")
    with ranks(forgiving=True).failing_together():
        pass


def test_others_fail_at_once_as_they_are():
    with pytest.raises(RuntimeError, match="and more"), ranks(forgiving=False).failing_together():
        raise RuntimeError("out of memory\nand more")


def test_an_interruption_is_no_failure():
    with pytest.raises(KeyboardInterrupt), ranks(forgiving=True).failing_together():
        raise KeyboardInterrupt
