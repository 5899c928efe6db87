"""Hostile and broken files end in one sentence; nothing in them is run, and they take little memory."""

import contextlib
import copyreg
import io
import pickle
import resource
import warnings

import pytest
import torch
from edm_files import Persistent, a_pickle, edm_modules, network, pickled, snapshot, text, training_state
from hostile_files import BROKEN, EXTENSION, RECORD, RUNNING, SLOTS, zipped_tensor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restart_sampling.base import pickles
from restart_sampling.base.errors import InputError
from restart_sampling.models.edm_pickle import globals_in
from restart_sampling.models.read_checkpoint import read_checkpoint


@pytest.fixture
def extension():
    """An extension code for os.system, as a program could have registered it."""
    copyreg.add_extension("os", "system", EXTENSION)
    yield
    copyreg.remove_extension("os", "system", EXTENSION)


def refusal(path):
    with pytest.raises(InputError) as caught:
        read_checkpoint(path).build()
    message = str(caught.value)
    assert len(message) < 400
    assert message.isprintable()
    return message


def load_as_usual(data):
    with edm_modules(), contextlib.suppress(Exception):
        if data.startswith(b"PK"):
            torch.load(io.BytesIO(data), weights_only=False)
        else:
            pickle.loads(data)


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize("make", RUNNING.values(), ids=RUNNING)
def test_nothing_runs(make, tmp_path):
    sentinel = tmp_path / "sentinel"
    path = tmp_path / "model.pkl"
    data = make(f"touch {sentinel}")
    path.write_bytes(data)

    refusal(path)
    globals_in(path)
    assert not sentinel.exists()

    load_as_usual(data)
    assert sentinel.exists()


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_files(data, message, tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_checkpoint(path)
    refusal(path)
    globals_in(path)


def test_build_changes_functions_in_python():
    """The hole for which this reader is not Python's: BUILD reaches an allowed function."""
    with edm_modules():
        function = pickle.loads(a_pickle(RECORD + SLOTS))
    assert function.__defaults__ == ("x",)


def test_too_many_opcodes(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MAX_OPCODES", 1000)
    path = tmp_path / "model.pkl"
    path.write_bytes(a_pickle(b"N" + b"\x85" * 2000))
    assert "more than 1,000 opcodes" in refusal(path)


def with_long_names():
    """Modules whose attributes share one long name."""
    shared = "a" * 10**6
    layers = {str(index): Persistent("Linear", {shared: 1}) for index in range(2000)}
    return pickled({"ema": Persistent("X", {"_init_kwargs": {}, "_modules": layers})})


@pytest.mark.parametrize(
    "data",
    [a_pickle(b"]" + text("a" * 10**6) + b"q\x00a" + b"h\x00a" * 10_000 + b")" + b"\x85" * 10_000), with_long_names()],
    ids=["texts and tuples", "long names"],
)
def test_memory_is_in_proportion(data, tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


TINY = network("vp_ddpmpp")
TINY.state["_modules"].clear()
TINY.state["_buffers"]["u"] = torch.arange(12.0).reshape(3, 4)
FILES = {
    "protocol 4": pickled(snapshot(TINY)),
    "protocol 2": pickled(snapshot(TINY), 2, numpy_1=True),
    "zip": training_state({"ema": TINY, "step": 3}),
    "small zip": zipped_tensor(),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_cut_anywhere(kind, tmp_path):
    path = tmp_path / "model.pkl"
    data = FILES[kind]
    path.write_bytes(data)
    read_checkpoint(path)
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        refusal(path)


@pytest.mark.parametrize("kind", FILES)
def test_files_with_changed_bytes(kind, tmp_path):
    data = FILES[kind]
    path = tmp_path / "model.pkl"
    changes = st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), min_size=1, max_size=4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(changes, st.none() | st.integers(0, len(data)))
    def check(changes, length):
        changed = bytearray(data)
        for position, value in changes:
            changed[position] = value
        path.write_bytes(changed[:length])
        with warnings.catch_warnings(), contextlib.suppress(InputError):
            warnings.simplefilter("ignore")
            read_checkpoint(path).build()
        globals_in(path)

    check()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
