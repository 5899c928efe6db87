"""Failures of a process among many; what happens between real processes is tested where they work."""

from threading import Thread

import pytest
import torch
from torch.distributed import HashStore

from restart_sampling.base.errors import InputError
from restart_sampling.base.meeting import HangingRankError, Meeting
from restart_sampling.base.ranks import Ranks, distributed


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


def test_a_signal_while_work_begins_ends_the_signs_of_life(monkeypatch):
    class Interrupted:
        def __init__(self, threads):
            pass

        def __enter__(self):
            return self

        def submit(self, function):
            self.thread = Thread(target=function, daemon=True)
            self.thread.start()
            raise KeyboardInterrupt

        def __exit__(self, *_):
            self.thread.join(10)
            assert not self.thread.is_alive()

    monkeypatch.setattr("restart_sampling.base.meeting.ThreadPoolExecutor", Interrupted)
    with pytest.raises(KeyboardInterrupt), Meeting(HashStore(), 0, 2, 60).at_work():
        pass


def test_nothing_goes_on_without_a_process_that_is_gone():
    class Gone:
        def wait(self):
            raise RuntimeError("Connection closed by peer")

    alone = Ranks(0, 2, torch.device("cpu"), forgiving=True, meeting=Gone())
    with pytest.raises(HangingRankError, match="has ended without a word, or hangs"), alone.failing_together():
        alone.wait()


def test_processes_with_other_models_are_refused_by_the_first(monkeypatch):
    def gather(self, own):
        gathered.append(own)
        return [*[({"model_sha256": "a", "plan": "3"}, {"model_sha256": "a", "plan": "4"})] * 2, own]

    gathered = []
    monkeypatch.setattr(Ranks, "gather", gather)
    first, last = (Ranks(rank, 3, torch.device("cpu")) for rank in (0, 2))
    row = {"model_sha256": "a", "plan": "3"}
    last.agree(row, {**row, "plan": "4"})
    assert len(gathered) == 1  # for all rows
    for others, said in (
        ([{**row, "model_sha256": "b"}, {**row, "plan": "4"}], "model_sha256 b, and rank 0 has a"),
        ([row, {**row, "plan": "5"}], "plan 5, and rank 0 has 4"),
        ([row], "model_sha256 None, and rank 0 has a"),  # fewer rows
    ):
        with pytest.raises(InputError, match=f"rank 2 of this run has {said}; give all processes the same files"):
            first.agree(*others)
        with pytest.raises(SystemExit):
            last.agree(*others)


TORCHRUN = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"WORLD_SIZE": "2"},
            "WORLD_SIZE is 2 in the environment, without RANK and MASTER_ADDR and MASTER_PORT; start",
        ),
        ({**TORCHRUN, "RANK": ""}, "WORLD_SIZE is 2 in the environment, without RANK; start with torchrun, or unset"),
        ({**TORCHRUN, "RANK": "2"}, "WORLD_SIZE is 2 in the environment, and RANK 2; start with torchrun"),
        ({**TORCHRUN, "RANK": "-1"}, "RANK is '-1' in the environment, and has to be a number"),
        ({**TORCHRUN, "MASTER_PORT": "http"}, "MASTER_PORT is 'http' in the environment, and has to be a number"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two' in the environment, and has to be a number"),
    ],
)
def test_a_part_of_torchruns_environment_is_one_sentence(given, message, monkeypatch):
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message), distributed(torch.device("cpu")):
        pass


@pytest.mark.parametrize("text", ["", " ", "1"])
def test_an_empty_world_is_one_process(text, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", text)
    with distributed(torch.device("cpu")) as one:
        assert (one.rank, one.size) == (0, 1)


def test_more_processes_than_gpus_are_one_sentence(monkeypatch):
    for name, value in {**TORCHRUN, "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    message = "LOCAL_RANK is 1, and torch sees 1 GPU here; start a process for each GPU"
    with pytest.raises(InputError, match=message), distributed(torch.device("cuda")):
        pass
