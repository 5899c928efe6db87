"""Files of version 0.1.0, copied to where a test may go on with them."""

import pytest
import torch
from old_files import take

from restart_sampling.cli import main


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "compat":
            for warning in (
                "ignore:__array__ implementation:DeprecationWarning",
                "ignore:.*(diffusers|deprecated|torchvision).*",
            ):
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(autouse=True)
def one_thread():
    """As when the files were made: with more, sums are added up in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(capsys):
    """Runs a command line in this process: exit code, standard output, standard error."""

    def run(arguments):
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return run


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
