"""Readers of files and texts that were changed by chance; `python tests/fuzz.py` feeds them more."""

import pytest

import fuzz


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    return fuzz.readers(tmp_path_factory.mktemp("fuzz"))


def test_what_broke_a_reader_once_does_not_break_it(readers, tmp_path):
    for name, reader in readers.items():
        for content in reader.found:
            fuzz.check(reader, content, tmp_path / name)


@pytest.mark.slow
def test_nothing_but_a_refusal(readers, tmp_path):
    broken = {}
    for name, reader in readers.items():
        outcome = fuzz.fuzz(name, reader, tmp_path / name, inputs=1000 // min(fuzz.SHARE.get(name, 1), 50))
        if outcome.faults:
            broken[name] = outcome.faults
    assert not broken
