"""Files of version 0.1.0, copied to where a test may go on with them."""

import pytest
from old_files import take


@pytest.fixture(autouse=True)
def as_the_files_were_made(one_thread):
    """On one thread."""


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """Copies some of the files to a folder of the test, and gives that; another folder is the current one."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def copied(*names):
        for name in names:
            take(name, tmp_path)
        return tmp_path

    return copied
