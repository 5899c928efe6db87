"""Detectors of strangers: none runs before it is trusted, and what is wrong with one is said before any work."""

import hashlib
import json
import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import restart_sampling as rs
from restart_sampling.base.errors import InputError
from restart_sampling.evaluation import detectors
from restart_sampling.evaluation.class_pairs import pair_classes
from restart_sampling.evaluation.clip import load_clip
from restart_sampling.evaluation.detectors import Detector, load_detector
from restart_sampling.evaluation.metrics import check_metrics, notes_on
from restart_sampling.evaluation.reference import Reference, load_reference, save_reference
from restart_sampling.evaluation.statistics import Statistics
from tiny import detector_file, image_folder, pictures, torchscript_file
from tiny_clip import clip_folder

TRUSTED = ("--detector", "tiny.pt", "--trust-detector")


class Writer(torch.nn.Module):
    """Writes a file of its choice as soon as it is loaded, and again when it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("data", torch.tensor(list(b"written"), dtype=torch.uint8))

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return self.data, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.data = state[0]
        self.training = state[1]
        self.write()

    def write(self) -> torch.Tensor:
        file = torch.from_file("written.txt", shared=True, size=self.data.numel(), dtype=torch.uint8)
        return file.copy_(self.data)

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return x.float().flatten(1)[:, :6] + self.write().float().sum()


class Fails(torch.nn.Module):
    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return x.float().flatten(1) @ torch.ones(7, 6)


class DividesByZero(torch.nn.Module):
    """Its features of an image of one value are not finite."""

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        x = x.float().flatten(1)
        return ((x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True))[:, :6]


class NotANumber(torch.nn.Module):
    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return x.float().flatten(1)[:, :6] * float("nan")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a detector, images, and their reference."""
    monkeypatch.chdir(tmp_path)
    detector_file(tmp_path / "tiny.pt")
    image_folder(tmp_path / "data", pictures(40))
    image_folder(tmp_path / "other", pictures(24, seed=1))
    return tmp_path


@pytest.fixture
def reference(place, run):
    code, _, err = run("reference", "data", "--out", "ref.npz", "--features", *TRUSTED)
    assert code == 0, err
    return load_reference(Path("ref.npz"))


def refused(run, *arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    return err.splitlines()[-1]


def test_a_detector_that_is_not_published_does_not_run_before_it_is_trusted(place, run):
    path = torchscript_file(Path("evil.pt"), Writer())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    Path("ref.npz").touch()
    commands = (
        ("reference", "data", "--out", "new.npz"),
        ("evaluate", "other", "--reference", "new.npz"),
        ("evaluate", "--model", "cifar10-small", "--plan", "2", "--seeds", "0-23", "--reference", "new.npz"),
        ("sweep", "--model", "cifar10-small", "--plans", "2", "--reference", "new.npz", "--out", "sweep"),
    )
    save_reference(Reference(Statistics(9, torch.zeros(6), torch.eye(6))), Path("new.npz"))
    for command in commands:
        said = refused(run, *command, "--detector", "evil.pt")
        assert "TorchScript runs code" in said
        assert f"add --trust-detector, or --trust-detector {digest} for this file alone" in said
        assert refused(run, *command, "--detector", "evil.pt", "--trust-detector", "0" * 64).endswith("0" * 64)
    with pytest.raises(rs.InputError, match="trust_detector= in Python"):
        rs.evaluate(rs.load_model("cifar10-small"), "2", reference="new.npz", seeds=range(24), detector="evil.pt")
    assert not Path("written.txt").exists()
    load_detector("evil.pt", trust=digest.upper())
    assert Path("written.txt").read_text() == "written"


@pytest.mark.parametrize("trust", [(), ("0" * 64,)])
def test_trust_in_what_runs_no_code_of_a_file_is_refused(trust, place, run):
    for detector in ("tiny-clip", "dinov2-hf", "."):
        said = refused(run, "reference", "data", "--out", "new.npz", "--detector", detector, "--trust-detector", *trust)
        assert f"--detector {detector} runs no code of a file, so there is nothing to trust; leave out --trust" in said


def test_the_flag_and_the_hash_load_it(place, run):
    digest = hashlib.sha256(Path("tiny.pt").read_bytes()).hexdigest()
    for number, trust in enumerate([(), (digest,)]):
        command = ("reference", "data", "--out", f"{number}.npz", "--detector", "tiny.pt", "--json", "--trust-detector")
        code, out, err = run(*command, *trust)
        assert code == 0, err
        assert json.loads(out)["detector"] == f"torchscript sha256 {digest}"
    said = refused(run, "reference", "--detector", "tiny.pt", "--out", "2.npz", "--trust-detector", "data")
    assert "'data' is no SHA-256 (64 hexadecimal digits)" in said


def test_published_detectors_load_without_a_word(place, monkeypatch):
    digest = hashlib.sha256(Path("tiny.pt").read_bytes()).hexdigest()
    assert detectors.INCEPTION_SHA256 in detectors.PUBLISHED
    monkeypatch.setattr(detectors, "PUBLISHED", frozenset({digest}))
    load = torch.jit.load
    for kind in (DeprecationWarning, FutureWarning):  # torch 2.13 gives the first, 2.14 the second

        def warning(*arguments, kind=kind, **keywords):
            warnings.warn("`torch.jit.load` is deprecated", kind, stacklevel=2)
            return load(*arguments, **keywords)

        monkeypatch.setattr(torch.jit, "load", warning)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_detector("tiny.pt").identity == f"torchscript sha256 {digest}"


def test_what_is_loaded_is_what_has_the_hash(place, monkeypatch):
    """The file is read once: another one cannot take its place between the check and the loading."""
    detector_file(Path("other.pt"), width=7)
    check = detectors._check_trust

    def swap(*arguments):
        check(*arguments)
        shutil.copy("other.pt", "tiny.pt")

    monkeypatch.setattr(detectors, "_check_trust", swap)
    assert load_detector("tiny.pt", trust=True).try_on((3, 8, 8)) == 6


def test_code_in_folders_of_transformers_is_not_run(place, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    config = transformers.Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, patch_size=112)
    transformers.Dinov2Model(config).save_pretrained("dino")
    clip_folder(Path("clip"))
    for folder, load in (("dino", load_detector), ("clip", load_clip)):
        own = Path(folder, "config.json")
        plain = json.loads(own.read_text())
        Path(folder, "own.py").write_text("open('written.txt', 'w').close()")
        classes = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
        own.write_text(json.dumps({**plain, "auto_map": classes, "model_type": "own"}))
        with pytest.raises(InputError, match="could not be loaded"):
            load(folder)
        own.write_text(json.dumps({**plain, "auto_map": classes}))
        load(folder)  # transformers' own class
    assert not Path("written.txt").exists()


def test_weights_that_are_missing_are_not_drawn_at_random(place):
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file, save_file

    config = transformers.Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, patch_size=112)
    transformers.Dinov2Model(config).save_pretrained("dino")
    weights = load_file("dino/model.safetensors")
    weights.pop("layernorm.weight")
    save_file(weights, "dino/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of its weights, such as layernorm\.weight"):
        load_detector("dino")


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Fails(), r"detector 'bad.pt' fails on images of 8x8 \(RuntimeError: .*shapes cannot be multiplied"),
        (NotANumber(), "detector 'bad.pt' gives features that are not finite, of an image of noise"),
    ],
)
def test_a_detector_that_does_not_work_is_found_before_any_work(network, said, place, run, monkeypatch):
    path = torchscript_file(Path("bad.pt"), network)
    identity = f"torchscript sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    save_reference(Reference(Statistics(9, torch.zeros(6), torch.eye(6)), identity), Path("ref.npz"))
    monkeypatch.setattr("restart_sampling.images.image_set.ImageSet.batches", lambda *_: pytest.fail("read"))
    bad = ("--detector", "bad.pt", "--trust-detector")
    for command in (("reference", "data", "--out", "new.npz"), ("evaluate", "other", "--reference", "ref.npz")):
        assert re.search(said, refused(run, *command, *bad))
    assert not Path("new.npz").exists()
    assert not Path("results.jsonl").exists()


def test_the_bundled_clip_says_which_size_it_takes(place, run):
    said = refused(run, "reference", "data", "--out", "new.npz", "--detector", "tiny-clip")
    assert "'tiny-clip' takes images of 32x32, and not of 8x8; bring files to that size with 'restart-sampling" in said
    assert run("dataset", "data", "large.zip", "--resolution", "32x32")[0] == 0
    assert run("reference", "large.zip", "--out", "new.npz", "--detector", "tiny-clip")[0] == 0


@pytest.mark.parametrize("where", ["files", "a sampler"])
def test_another_number_of_features_is_found_before_any_work(where, place, run, monkeypatch):
    save_reference(Reference(Statistics(9, torch.zeros(5), torch.eye(5))), Path("ref.npz"))
    monkeypatch.setattr("restart_sampling.images.image_set.ImageSet.batches", lambda *_: pytest.fail("read"))
    monkeypatch.setattr("restart_sampling.generation.net_drawing.follow", lambda *_: pytest.fail("drawn"))
    images = ("other",) if where == "files" else ("--model", "cifar10-small", "--plan", "2", "--seeds", "0-23")
    said = refused(run, "evaluate", *images, "--reference", "ref.npz", *TRUSTED)
    assert "the detector gives 6 features and the reference has 5; use the detector" in said


def test_an_image_whose_features_are_not_finite_is_named(place, run):
    """Not one of noise, on which the detector is tried, but a flat one in the middle of the set."""
    torchscript_file(Path("flat.pt"), DividesByZero())
    flat = ("--detector", "flat.pt", "--trust-detector")
    assert run("reference", "data", "--out", "ref.npz", *flat)[0] == 0
    for folder in ("data", "other"):
        images = np.full((1, 3, 8, 8), 7, np.uint8)
        shutil.copy(image_folder(Path("one"), images) / "0000.png", Path(folder, "0013.png"))
    said = refused(run, "reference", "data", "--out", "new.npz", "--batch", "4", *flat)
    assert said == f"restart-sampling: {Path('data/0013.png')} has features that are not finite with detector 'flat.pt'"
    assert not Path("new.npz").exists()
    said = refused(run, "evaluate", "other", "--reference", "ref.npz", "--batch", "4", *flat)
    assert f"{Path('other/0013.png')} has features that are not finite" in said
    assert not Path("results.jsonl").exists()


def test_a_seed_whose_features_are_not_finite_is_named(place, monkeypatch):
    calls = []

    def extract(images):
        calls.append(len(images))
        features = images.float().flatten(1)[:, :6]
        features[1] *= float("nan") if sum(calls) == 8 else 1.0
        return features

    detector = Detector(
        "odd", "odd", lambda x: x.float().flatten(1)[:1, :6] if len(x) == 1 else extract(x), torch.device("cpu")
    )
    monkeypatch.setattr("restart_sampling.evaluation.setup.load_detector", lambda *_, **__: detector)
    save_reference(Reference(Statistics(9, torch.zeros(6), torch.eye(6)), "odd"), Path("ref.npz"))
    net = rs.from_edm(lambda x, s: x / (1 + 4 * s.reshape(-1, 1, 1, 1) ** 2), 0.002, 80.0)
    with pytest.raises(InputError, match="the image of seed 105 has features that are not finite with detector 'odd'"):
        rs.evaluate(net, "2", reference="ref.npz", detector="odd", seeds=range(100, 124), shape=(3, 8, 8), batch_size=4)


def test_a_detector_does_not_change_the_images(place):
    """One that works in place would change the hash of the pixels."""
    from restart_sampling.evaluation.collect import Collector

    images, gather = torch.from_numpy(pictures(4)), lambda tensor: [tensor]
    digests = []
    for extract in (lambda x: x.float().flatten(1), lambda x: x.mul_(0).float().flatten(1)):
        collector = Collector(Detector("d", "d", extract, torch.device("cpu")), 4, 1)
        collector.add(images.clone(), range(4))
        digests.append(collector.digest(gather))
    assert digests[0] == digests[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read(place, run):
    Path("tiny.pt").chmod(0)
    assert "tiny.pt cannot be read (Permission denied)" in refused(run, "reference", "data", "--out", "n.npz", *TRUSTED)


def test_a_file_that_cannot_be_read_is_not_said_to_be_of_another_kind(place, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(InputError, match=r"tiny.pt cannot be read \(Permission denied\)"):
        load_detector("tiny.pt", trust=True)


def test_files_that_are_no_detectors(place):
    torch.save({"a": torch.zeros(1)}, "weights.pt")
    with pytest.raises(InputError, match=r"weights.pt is not a TorchScript file"):
        load_detector("weights.pt", trust=True)
    Path("text.pt").write_text("x")
    with pytest.raises(InputError, match=r"text.pt is not a TorchScript file"):
        load_detector("text.pt")


def test_a_reference_keeps_the_size_of_its_images(reference, run):
    assert (reference.size, reference.width) == ((8, 8), 6)
    image_folder(Path("large"), pictures(24, size=16))
    arguments = ("--reference", "ref.npz", *TRUSTED, "--json")
    code, out, err = run("evaluate", "large", "other", *arguments)
    assert code == 0, err
    large, other = json.loads(out)["results"]
    note = "the images are 16x16 and those of the reference 8x8, which moves all values"
    assert large["notes"] == [note]
    assert "notes" not in other
    assert err.splitlines().count(f"note on large: {note}") == 1  # before the work


def test_notes():
    def notes(images, blocks=1, metrics=("fd",), count=50_000, size=(8, 8), features=None, labels=None):
        statistics = Statistics(count, torch.zeros(6), torch.eye(6))
        reference = Reference(statistics, features=features, labels=labels, size=size)
        return notes_on(images, blocks, (8, 8), metrics, reference)

    assert notes(7) == notes(7, size=None) == notes(7, count=None) == []
    assert notes(6) == [
        "there are 6 images for 6 features, so that the Fréchet distance is too high by more than its error says; give "
        "more than 6, or compare it only with distances of as many images"
    ]
    assert "there are 5 images of each block for 6 features" in notes(15, blocks=3)[0]
    assert "there are 4 images of the reference for 6 features" in notes(7, count=4)[0]
    many = {"features": torch.zeros(1001, 6), "labels": torch.arange(1001) % 2}
    assert "there are 6 images of a class for 6 features" in notes(12, metrics=["per-class"], **many)[0]
    assert notes(1001, metrics=["kid"], **many) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"features": np.zeros((40, 5), np.float32)}, "images do not fit its statistics"),
        ({"labels": np.zeros(9, np.int64)}, "images do not fit its statistics"),
        ({"size": np.array([8, 8, 3])}, "images do not fit its statistics"),
        ({"features": np.full((40, 6), np.nan, np.float32)}, "its statistics are not finite"),
        ({"size": np.array([0, 8])}, "images do not fit its statistics"),
        ({"images": np.array(50_000)}, "images do not fit its statistics"),
        ({"features": np.full((40, 6), 1e300)}, "its statistics are not finite"),
        ({"features": np.full((40, 6), 9.0)}, "mu is not the mean of its features"),
        ({"sigma": -np.eye(6)}, "sigma is no covariance"),
        ({"sigma": np.triu(np.ones((6, 6)))}, "sigma is no covariance"),
        ({"sigma": np.eye(6) + 2 * np.eye(6)[::-1]}, "sigma is no covariance"),
        ({"size": np.array([8.0, 8.0])}, "size is float64"),
        ({"labels": np.full(40, -1)}, "it has the class -1"),
        ({"labels": np.full(40, 2**63, np.uint64)}, "it has the class -"),
        ({"labels": np.ones(40, int), "classes": np.array(["cat"])}, "the names of its classes do not fit"),
        ({"labels": np.ones(40, int), "classes": np.array(["cat", "cat"])}, "the names of its classes do not fit"),
        ({"classes": np.array(["cat"])}, "the names of its classes do not fit"),
    ],
)
def test_references_that_do_not_fit_themselves(changes, said, reference):
    with np.load("ref.npz") as file:
        arrays = dict(file)
    np.savez("ref.npz", **{**arrays, **changes})
    with pytest.raises(InputError, match=said):
        load_reference(Path("ref.npz"))


def test_a_reference_whose_covariance_was_computed_in_float32(place):
    """Of a feature that is always 0.5, E[x xᵀ] - mu muᵀ is what the last bits of 0.25 leave."""
    sigma = np.eye(3, dtype=np.float32)
    sigma[0] = sigma[:, 0] = -6e-8
    sigma[0, 1] = 3e-8
    np.savez("float32.npz", mu=np.full(3, 0.5, np.float32), sigma=sigma)
    assert load_reference(Path("float32.npz")).width == 3


def test_a_reference_that_is_not_there_is_said_to_be_missing(place):
    with pytest.raises(InputError, match=r"absent.npz cannot be read \(No such file or directory\)"):
        load_reference(Path("absent.npz"))
    Path("page.npz").write_text("<!doctype html>")
    with pytest.raises(InputError, match=r"page\.npz cannot be read: it is a web page, which was saved in its place"):
        load_reference(Path("page.npz"))


def test_a_reference_with_too_few_images_for_a_metric_is_found_at_once():
    def few(features, labels=None):
        return Reference(Statistics(3, torch.zeros(6), torch.eye(6)), features=torch.zeros(features, 6), labels=labels)

    for metric in ("kid", "pr", "per-class"):
        with pytest.raises(InputError, match=f"'{metric}' needs at least 4 images of the reference, and it has 3"):
            check_metrics([metric], few(3, torch.zeros(3, dtype=torch.int64)))
    with pytest.raises(InputError, match="at least 2 images of each class of the reference, and class 7 has 1"):
        check_metrics(["per-class"], few(5, torch.tensor([1, 7, 1, 2, 2])))


def test_classes_that_images_and_reference_share():
    reference = Reference(Statistics(9, torch.zeros(6), torch.eye(6)), labels=torch.tensor([0, 0, 1, 1, 5, 5]))
    assert pair_classes(torch.tensor([0, 1, 7] * 4), (), reference) == {"0": (0, 0), "1": (1, 1)}
    for labels, said in (
        (None, "needs classes of the images, and they have none"),
        (torch.tensor([2, 4]), "of those of the images, 2 to 4, it has none"),
        (torch.tensor([0, 0, 0, 0, 5]), "at least 4 images of each class, and class 5 has 1"),
    ):
        with pytest.raises(InputError, match=said):
            pair_classes(labels, (), reference)


def test_classes_are_paired_by_name_where_both_sides_have_names():
    def pairs(ours, theirs):
        labels = torch.arange(len(theirs)).repeat(2)
        reference = Reference(Statistics(9, torch.zeros(6), torch.eye(6)), labels=labels, classes=tuple(theirs))
        return pair_classes(torch.arange(2).repeat(4), ours, reference), notes_on(
            1000, 1, None, ["per-class"], reference, ours
        )

    assert pairs(["dog", "cat"], ["ant", "cat", "dog"]) == ({"dog": (0, 2), "cat": (1, 1)}, [])
    assert pairs(["2", "1"], ["0", "1", "2"]) == ({"2": (0, 2), "1": (1, 1)}, [])
    by_number = {"0": (0, 0), "1": (1, 1)}
    for ours, theirs, unnamed in (
        ([], ["cat", "dog"], "the images have"),
        (["0", "1"], ["cat", "dog"], "the images have"),  # numbers are no names to a set that has words
        (["cat", "dog"], ["0", "1"], "the reference has"),
    ):
        found, (note,) = pairs(ours, theirs)
        assert found == by_number
        assert note.startswith(f"classes are paired by number, for {unnamed} no names of them")
    assert pairs([], ["0", "1"]) == (by_number, [])
    with pytest.raises(InputError, match="no images of class 'bird', but of cat, dog; give classes the same names"):
        pairs(["bird", "cat"], ["cat", "dog"])
