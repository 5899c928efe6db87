"""What the tests of several rooms share."""

import warnings

import pytest
import torch

from restart_sampling.cli import main
from sweeps import tiny_files


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name in ("compat", "text_to_image"):  # diffusers warns of its own ways
            for warning in (
                "ignore:__array__ implementation:DeprecationWarning",
                "ignore:.*(diffusers|deprecated|torchvision).*",
            ):
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def diffusers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that diffusers looks for
        return pytest.importorskip("diffusers")


@pytest.fixture
def one_thread():
    """With more, small tensors take longer, and sums are added up in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(capsys):
    """Runs a command line in this process: exit code, standard output, standard error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A tiny model, detector and reference in a folder of their own."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_files(folder)
    return folder


@pytest.fixture
def place(tiny, tmp_path, monkeypatch, one_thread):
    """An empty folder with links to the tiny files."""
    for file in tiny.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path
