"""A full disk is one sentence that names the file and its bytes, whichever command writes; no half of a file stays."""

from errno import ENOSPC
from pathlib import Path

import numpy as np
import pytest

from copies import start
from restart_sampling.base.files import FullDiskError, append_line, atomic_folder, write_bytes
from tiny import image_folder

# A file that may not grow any further fails as a full disk does, with another number.
LIMITED = """
import resource
import sys

from restart_sampling.cli import main

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, 2 * (int(sys.argv[1]),))
    main(sys.argv[2:])
"""
TRUST = ("--detector", "tiny.pt", "--trust-detector")
MEASURE = ("--model", "tiny.safetensors", "--reference", "ref.npz", *TRUST)
TRAIN = ("--parametrization", "edm", "--channels", 8, "--channel-mult", "1,1", "--blocks", 1, "--images", 64)
CASES = {
    "train": (200_000, ("train", "data", "--out", "out", *TRAIN, "--batch", 32), "out/state.pt"),
    "dataset folder": (600, ("dataset", "data", "out", "--workers", 1), "out"),
    "dataset zip": (3000, ("dataset", "data", "out.zip", "--workers", 1), "out.zip"),
    "reference": (300, ("reference", "data", *TRUST, "--out", "out.npz"), "out.npz"),
    "evaluate": (1000, ("evaluate", *MEASURE, "--plan", "2", "--seeds", "0-39", "--results", "out.jsonl"), "out.jsonl"),
    "sweep": (600, ("sweep", *MEASURE, "--plans", "2", "--images", 40, "--out", "out"), "out/"),
}


FAST = ("train", "dataset zip")
MARKED = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize("case", MARKED)
def test_one_sentence_with_the_file_and_its_bytes(case, place):
    limit, words, path = CASES[case]
    noise = np.random.default_rng(0).integers(0, 256, (40, 3, 16, 16), np.uint8)
    image_folder(Path("data"), noise)  # of 800 bytes each: more than all that is said, which is in files too
    Path("limited.py").write_text(LIMITED)
    process = start("limited.py", limit, *words)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode in (1, 2), stderr
    said = [line for line in stderr.splitlines() if "bytes cannot be written (File too large); make room" in line]
    assert said, stderr
    assert path in said[-1]
    assert "Traceback" not in stderr
    assert not list(Path().rglob(".*.partial"))


def test_every_writer_says_it(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FullDiskError, match=rf"^{tmp_path}/a: 3,000 bytes cannot be written \(No space left"):
        write_bytes(tmp_path / "a", bytes(3000))
    with pytest.raises(FullDiskError, match=rf"^{tmp_path}/b: more than 4 bytes"):  # noqa: SIM117, PT012
        with atomic_folder(tmp_path / "b") as folder:
            with (folder / "part").open("wb") as file:
                file.write(b"part")
            (folder / "rest").write_bytes(b"")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FullDiskError, match=rf"^{tmp_path}/c: 5 bytes"):
        append_line(tmp_path / "c", b"line\n")
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
