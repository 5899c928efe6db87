"""The commands reference and evaluate, and what stands under them."""

import hashlib
import json
import os
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from time import sleep

import numpy as np
import pytest
import torch

from copies import TORCHRUN, start
from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import with_error
from restart_sampling.base.numerics import full_float32
from restart_sampling.base.ranks import Ranks
from restart_sampling.cli import main
from restart_sampling.cli.evaluate import _FOR_IMAGES, _FOR_MODEL
from restart_sampling.cli.evaluate import evaluate as evaluate_command
from restart_sampling.evaluation import detectors, metrics
from restart_sampling.evaluation.detectors import load_detector
from restart_sampling.evaluation.distances import frechet_distance, jackknife
from restart_sampling.evaluation.measure import image_batches, make_reference, measure
from restart_sampling.evaluation.metrics import METRICS, paired_difference
from restart_sampling.evaluation.reference import Reference, load_reference, save_reference
from restart_sampling.evaluation.results_file import append_result, read_results
from restart_sampling.evaluation.statistics import Statistics
from restart_sampling.images.image_set import read_images
from tiny import detector_file, image_folder, pictures, torchscript_file
from tiny_model import tiny_model_file

ONE = Ranks(0, 1, torch.device("cpu"))
SHARED = Path(os.environ.get("RESTART_SAMPLING_SHARED", "../shared"))
TINY = ("--detector", "tiny.pt", "--trust-detector")
CLASSIFIER = SHARED / "models" / "cifar10-classifier.torchscript.pt"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a detector, 80 images of 4 classes, others, and their reference with features."""
    monkeypatch.chdir(tmp_path)
    detector_file(tmp_path / "tiny.pt")
    image_folder(tmp_path / "data", pictures(80), classes=4)
    image_folder(tmp_path / "other", pictures(60, seed=1), classes=4)
    with pytest.raises(SystemExit) as end:
        main(["reference", "data", "--out", "ref.npz", "--detector", "tiny.pt", "--trust-detector", "--features"])
    assert end.value.code == 0
    return tmp_path


def evaluate(run, *arguments):
    code, out, err = run(
        "evaluate", *arguments, "--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector", "--json"
    )
    assert code == 0, err
    return json.loads(out)


def test_a_set_has_no_distance_to_itself(place, run):
    result = evaluate(run, "data", "--metrics", "fd,kid,pr,fd-infinity,per-class")
    assert result["images"] == 80
    assert result["frechet_distance"] == pytest.approx(0, abs=1e-6)
    assert (result["precision"], result["recall"]) == (1.0, 1.0)
    assert set(result["frechet_distance_per_class"]) == {"0", "1", "2", "3"}
    assert all(abs(value) < 1e-6 for value in result["frechet_distance_per_class"].values())
    assert set(result["frechet_distance_per_class_error"]) == {"0", "1", "2", "3"}
    assert 0 < result["precision_error"] < result["recall_error"] < 0.02
    assert result["reference"]["source"] == result["pixels_sha256"]


def test_a_metric_that_takes_long_is_named(place, run, monkeypatch):
    slow = METRICS["pr"]
    monkeypatch.setattr(metrics, "_SILENT_SECONDS", 0.0)
    monkeypatch.setitem(METRICS, "pr", replace(slow, compute=lambda *sides: sleep(0.3) or slow.compute(*sides)))
    tiny_model_file(place / "tiny.safetensors")
    for what, images in ((["other"], 60), (["--model", "tiny.safetensors", "--plan", "2", "--seeds", "0-23"], 24)):
        code, _, err = run("evaluate", *what, "--reference", "ref.npz", "--metrics", "fd,pr", *TINY)
        assert code == 0, err
        assert f"precision and recall of {images} images against 80\n" in err


def test_the_distances_of_classes_say_of_what_they_are(place, run):
    code, out, err = run("evaluate", "data", "other", "--reference", "ref.npz", "--metrics", "per-class", *TINY)
    assert code == 0, err
    lines = [line.partition(":")[0] for line in out.splitlines() if line.startswith("per class")]
    assert lines == ["per class, data", "per class, other"]
    few = ("evaluate", "other", "--reference", "ref.npz", "--metrics", "per-class", "--max-images", "24", *TINY)
    code, _, err = run(*few)
    assert (code, err.count("note: there are 6 images of a class for 6 features")) == (0, 1), err


def test_the_error_of_kid_is_not_that_of_equal_subsets(place, run):
    """60 images against 80: all subsets hold the same 60, and say nothing of how those scatter."""
    result = evaluate(run, "other", "--metrics", "kid", "--max-images", "60")
    assert result["kernel_distance_error"] > 0.01 * abs(result["kernel_distance"]) > 0
    code, out, _ = run("evaluate", "other", "--reference", "ref.npz", "--metrics", "kid", *TINY)
    assert code == 0
    assert with_error(result["kernel_distance"], result["kernel_distance_error"]) in out


def test_figures_are_those_of_the_features(place, run):
    detector = load_detector("tiny.pt", trust=True)
    sides = [detector(torch.from_numpy(read_all(name))).double() for name in ("other", "data")]
    a, b = (Statistics(len(x), x.mean(dim=0), torch.cov(x.T)) for x in sides)
    assert evaluate(run, "other")["frechet_distance"] == pytest.approx(frechet_distance(a, b), rel=1e-9)


def read_all(name):
    return np.concatenate(list(read_images(name)))


def test_folder_zip_and_batch_size_do_not_matter(place, run):
    with zipfile.ZipFile("other.zip", "w") as archive:
        for path in sorted(Path("other").rglob("*.png")):
            archive.write(path, path.relative_to("other"))
    whole = evaluate(run, "other", "--metrics", "fd,kid,pr,per-class")
    images = read_all("other")
    digests = (hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).digest() for image in images)
    assert whole["pixels_sha256"] == hashlib.sha256(b"".join(digests)).hexdigest()
    for arguments in (("other.zip",), ("other", "--batch", "7"), ("other", "--batch", "1")):
        other = evaluate(run, *arguments, "--metrics", "fd,kid,pr,per-class")
        assert other["pixels_sha256"] == whole["pixels_sha256"]
        for key in ("frechet_distance", "frechet_distance_error", "kernel_distance", "precision", "recall"):
            assert other[key] == pytest.approx(whole[key], rel=1e-6), key


def test_streamed_and_written_images_have_identical_statistics(place, run):
    shared = ["--model", tiny_model_file(Path("tiny.safetensors")), "--plan", "2", "--seeds", "0-23", "--guidance", 1.5]
    code, _, err = run("generate", *shared, "--out", "written")
    assert code == 0, err
    streamed, read = evaluate(run, *shared), evaluate(run, "written")
    assert streamed["pixels_sha256"] == read["pixels_sha256"]
    assert streamed["frechet_distance"] == read["frechet_distance"]
    assert (streamed["plan"], streamed["nfe"], streamed["network_evaluations"]) == ("2", 3, 6)


@pytest.mark.parametrize(
    "option",
    [
        *("--plan 18", "--set gamma=1", "--seeds 0-3", "--class dog", "--guidance 2", "--guidance 1", "--noise edm"),
        *("--D 128", "--dtype float32", "--compile", "--no-compile", "--autotune", "--exact", "--any-model"),
        "--dry-run",
    ],
)
def test_options_of_a_model_are_refused_with_images(option, run, tmp_path, monkeypatch):
    """Also where they say the default."""
    monkeypatch.chdir(tmp_path)
    code, out, err = run("evaluate", "images", "--reference", "ref.npz", *option.split())
    assert (code, out) == (2, "")
    assert f"{option.split()[0]} is for --model, whose images are drawn; leave it out for IMAGES" in err


def test_every_option_of_evaluate_is_for_a_model_or_for_images():
    """A new one has to be put with one of them."""
    both = {"sources", "name", "blocks", "results", "batch", "device", "rank_timeout", "as_json"}
    both |= {"reference_name", "detector_name", "trust", "metrics_text"}
    assert {option.name for option in evaluate_command.params} - both == _FOR_MODEL | _FOR_IMAGES


def test_the_number_of_images_is_not_for_a_model(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ("--model", "cifar10-small", "--seeds", "0-3", "--reference", "ref.npz", "--max-images", "2")
    code, out, err = run("evaluate", *arguments)
    assert (code, out) == (2, "")
    assert "--max-images is for IMAGES; leave it out for --model" in err


def test_too_few_images_of_a_class_are_told_before_any_is_drawn(place, run, monkeypatch):
    drawn = ("--model", "cifar10-small", "--plan", "2", "--seeds", "0-23", "--metrics", "per-class")
    monkeypatch.setattr("restart_sampling.generation.net_drawing.follow", lambda *_: pytest.fail("an image was drawn"))
    for arguments, said in (
        (drawn, "needs at least 4 images of each class, and class 0 has 3"),
        ((*drawn, "--class", "9"), "of those of the images, 9 to 9, it has none"),
        (("other/0", "--metrics", "per-class"), "needs classes of the images, and they have none"),
    ):
        for dry in (("--dry-run",),) * ("--model" in arguments) + ((),):
            code, _, err = run("evaluate", *arguments, "--reference", "ref.npz", *TINY, *dry)
            assert code == 2
            assert said in err.splitlines()[-1]
    assert not Path("results.jsonl").exists()


def test_images_without_classes_are_told_before_a_detector_is_there(place, run):
    code, _, err = run(
        "evaluate", "other/0", "--reference", "ref.npz", "--metrics", "fd,per-class", "--detector", "no.pt"
    )
    assert code == 2
    assert "needs classes of the images, and they have none" in err


def test_the_order_of_the_classes_does_not_matter_where_they_have_names(place, run, monkeypatch):
    names = {"0": "airplane", "1": "cat", "2": "dog", "3": "frog"}
    for number, name in names.items():
        Path("data", number).rename(Path("data", name))
    assert run("reference", "data", "--out", "ref.npz", *TINY, "--features")[0] == 0
    assert load_reference(Path("ref.npz")).classes == tuple(names.values())
    shutil.copytree("data", "moved")
    labels = [[path.relative_to("moved").as_posix(), 0] for path in sorted(Path("moved").rglob("*.png"))]
    order = ["frog", "dog", "cat", "airplane"]
    for pair in labels:
        pair[1] = order.index(pair[0].partition("/")[0])
    Path("moved/dataset.json").write_text(json.dumps({"labels": labels, "classes": order}))
    result = evaluate(run, "moved", "--metrics", "per-class")
    assert list(result["frechet_distance_per_class"]) == order
    assert all(abs(value) < 1e-6 for value in result["frechet_distance_per_class"].values())

    Path("moved/dataset.json").write_text(json.dumps({"labels": labels, "classes": [*order[:3], "plane"]}))
    monkeypatch.setattr(detectors.Detector, "__call__", None)  # nothing is measured
    arguments = ("--reference", "ref.npz", "--metrics", "per-class", *TINY)
    code, _, err = run("evaluate", "moved", *arguments)
    assert code == 2
    assert "the reference has no images of class 'plane', but of airplane, cat, dog, frog" in err
    code, _, err = run("evaluate", "--model", "cifar10-small", "--plan", "2", "--seeds", "0-39", *arguments)
    assert code == 2
    assert "the reference has no images of class 'automobile'" in err


def test_plans_on_the_same_seeds_are_paired(place, run):
    code, out, _ = run(
        *("evaluate", "--model", tiny_model_file(Path("tiny.safetensors")), "--plan", "2", "--plan", "2 churn=1"),
        *("--seeds", "0-23"),
        *("--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector"),
    )
    assert code == 0
    assert "paired difference" in out
    first, second = read_results(Path("results.jsonl"))
    difference, error = paired_difference(second, first)
    assert difference == pytest.approx(second["frechet_distance"] - first["frechet_distance"])
    assert 0 < error < second["frechet_distance_error"] + first["frechet_distance_error"]
    assert with_error(difference, error, sign="+") in out


def test_blocks_are_figures_of_their_own(place, run):
    result = evaluate(run, "other", "--blocks", "3")
    values = result["frechet_distance_blocks"]
    detector, reference = load_detector("tiny.pt", trust=True), load_reference(Path("ref.npz"))
    images = read_images("other")
    for block, value in enumerate(values):
        part = images.take(range(block * 20, block * 20 + 20))
        alone = measure(image_batches(part, ONE, 64), 20, detector, reference, ONE)
        assert value == pytest.approx(alone["frechet_distance"], rel=1e-9)
    assert result["frechet_distance_min"] == min(values)
    assert result["frechet_distance"] == pytest.approx(sum(values) / 3)
    assert len(result["frechet_distance_without_group"]) == 12
    assert result["frechet_distance_error"] == jackknife(result["frechet_distance_without_group"], 3)


@pytest.mark.parametrize("size", [2, 3])
def test_world_size_does_not_matter(size, place, run):
    """Under torchrun with gloo; the last of three processes has no images at all with batches of 40."""
    metrics = ("--metrics", "fd,kid,pr,fd-infinity,per-class", "--batch", "40")
    one = evaluate(run, "other", *metrics)
    arguments = ("evaluate", "other", *metrics, "--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector")
    process = start(*TORCHRUN, f"--nproc_per_node={size}", "-m", "restart_sampling", *arguments, "--json")
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    many = json.loads(stdout.splitlines()[-1])
    assert many["pixels_sha256"] == one["pixels_sha256"]
    assert many["device"] == f"{size} x cpu"
    for key in ("frechet_distance", "frechet_distance_error", "kernel_distance", "precision", "recall"):
        assert many[key] == pytest.approx(one[key], rel=1e-6), key
    assert many["frechet_distance_per_class"] == pytest.approx(one["frechet_distance_per_class"], rel=1e-6)
    assert len(list(read_results(Path("results.jsonl")))) == 2


def test_the_spread_of_a_set_in_the_order_of_its_classes(place, run):
    """Neighbours are of one class here; leaving them out together would look like a huge spread."""
    for label in range(4):
        image_folder(Path(f"sorted/{label}"), pictures(15, seed=label) // 4 + 48 * label)
    for label, index in ((label, index) for index in range(15) for label in range(4)):
        target = Path(f"mixed/{index:02d}{label}.png")
        target.parent.mkdir(exist_ok=True)
        shutil.copy(f"sorted/{label}/{index:04d}.png", target)
    in_order, mixed = evaluate(run, "sorted"), evaluate(run, "mixed")
    assert in_order["frechet_distance"] == pytest.approx(mixed["frechet_distance"], rel=1e-6)
    assert 0.3 < in_order["frechet_distance_error"] / mixed["frechet_distance_error"] < 3


def test_work_is_shared_in_blocks():
    shares = [Ranks(rank, 3, torch.device("cpu")).share(10, 2) for rank in range(3)]
    assert shares == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5]]


def test_grey_images_count_as_rgb(place):
    detector = load_detector("tiny.pt", trust=True)
    grey = torch.from_numpy(pictures(3))[:, :1]
    assert torch.equal(detector(grey), detector(grey.expand(-1, 3, -1, -1)))


def test_a_detector_computes_in_full_float32(place):
    seen = []

    def extract(images):
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return images.float().flatten(1)

    before = torch.backends.cudnn.allow_tf32
    detectors.Detector("d", "d", extract, torch.device("cpu"))(torch.zeros(2, 3, 2, 2, dtype=torch.uint8))
    assert seen == [(False, False)]
    assert torch.backends.cudnn.allow_tf32 == before


def test_dinov2_from_a_folder_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=224, patch_size=112
    )
    torch.manual_seed(0)
    model = transformers.Dinov2Model(config).eval()
    model.save_pretrained(tmp_path / "dino")
    detector = load_detector(str(tmp_path / "dino"))
    images = torch.from_numpy(pictures(3, size=32))
    x = torch.nn.functional.interpolate(images / 255, (224, 224), mode="bicubic", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = model((x - mean[:, None, None]) / std[:, None, None]).last_hidden_state[:, 0]
    torch.testing.assert_close(detector(images), expected)
    assert detector.identity == load_detector(str(tmp_path / "dino")).identity


def test_edms_own_statistics_are_accepted_with_a_note(place, run):
    ours = load_reference(Path("ref.npz"))
    np.savez("ref.npz", mu=ours.statistics.mu.numpy(), sigma=ours.statistics.sigma.numpy())
    code, _, err = run("evaluate", "other", "--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector")
    assert code == 0
    assert "does not say which detector made it" in err


def test_a_small_file_of_statistics_takes_little_memory(tmp_path):
    """Zeros pack to nothing; and what is no part of a reference is not read at all."""
    zeros = np.zeros((6000, 6000), dtype=np.float16)
    np.savez_compressed(tmp_path / "bomb.npz", mu=zeros[0], sigma=zeros)
    with pytest.raises(InputError, match=r"bomb.npz unpacks to 72,0.* bytes or more, over 100 times its size"):
        load_reference(tmp_path / "bomb.npz")
    unreadable = np.array([{}], dtype=object)
    np.savez(tmp_path / "more.npz", mu=np.zeros(2), sigma=np.eye(2), another=unreadable)
    assert load_reference(tmp_path / "more.npz").width == 2


def test_reference_reads_back(tmp_path):
    x = torch.randn(9, 4, dtype=torch.float64)
    whole = Reference(Statistics(9, x.mean(dim=0), torch.cov(x.T)), "d", "s", x.float(), torch.arange(9))
    save_reference(whole, tmp_path / "ref.npz")
    read = load_reference(tmp_path / "ref.npz")
    assert (read.statistics.count, read.detector, read.source) == (9, "d", "s")
    for a, b in ((read.statistics.sigma, whole.statistics.sigma), (read.features, whole.features)):
        assert torch.equal(a, b)
    assert torch.equal(read.labels, whole.labels)


def test_results_survive_a_torn_line(tmp_path):
    file = tmp_path / "new" / "results.jsonl"
    append_result(file, {"images": 1})
    with file.open("a") as opened:
        opened.write('{"schema": "restart-sampl')
    append_result(file, {"images": 2})
    assert [result["images"] for result in read_results(file)] == [1, 2]
    file.write_text('{"schema": "other"}\n')
    with pytest.raises(InputError, match="line 1: its schema"):
        list(read_results(file))


def damage_nan():
    ours = load_reference(Path("ref.npz"))
    np.savez("ref.npz", mu=ours.statistics.mu.numpy() * np.nan, sigma=ours.statistics.sigma.numpy())


def damage_width():
    np.savez("ref.npz", mu=np.zeros(5), sigma=np.eye(5))


def change_headers(central, local, value):
    """Sets a byte of each entry of the zip: bit 0 of the flags is encryption, 99 no method of compression."""
    Path("ref.npz").unlink()  # a link
    np.savez("ref.npz", mu=np.zeros(2), sigma=np.zeros((2, 2)))
    content = bytearray(Path("ref.npz").read_bytes())
    for mark, offset in ((b"PK\x01\x02", central), (b"PK\x03\x04", local)):
        for match in re.finditer(mark, bytes(content)):
            content[match.start() + offset] = value
    Path("ref.npz").write_bytes(content)


BAD = {
    "nothing": ([], None, "give either IMAGES, or --model"),
    "both": (["other", "--model", "cifar10-small"], None, "give either IMAGES, or --model"),
    "no seeds": (["--model", "cifar10-small"], None, "--seeds is missing"),
    "no folder": (["absent"], None, "absent"),
    "empty folder": (["empty"], lambda: Path("empty").mkdir(), "empty"),
    "mixed sizes": (["other"], lambda: image_folder(Path("other/9"), pictures(1, size=16)), "16"),
    "truncated PNG": (["other"], lambda: Path("other/0/0000.png").write_bytes(b"\x89PNG\r\n\x1a\n123"), "0000.png"),
    "truncated zip": (["a.zip"], lambda: Path("a.zip").write_bytes(b"PK\x03\x04123"), "a.zip"),
    "fewer images than asked": (["other", "--max-images", "61"], None, "holds 60 images"),
    "too few for the groups": (
        ["other", "--max-images", "12"],
        None,
        "12 images in 1 block are too few for the error of a distance",
    ),
    "unknown metric": (["other", "--metrics", "fd,is"], None, "no metric 'is'; allowed: fd, kid"),
    "another detector": (
        ["other", "--detector", "wide.pt"],
        lambda: detector_file(Path("wide.pt"), 7),
        "was made with",
    ),
    "no detector": (["other", "--detector", "absent.pt"], None, "no such file"),
    "no features": (
        ["other", "--detector", "identity.pt"],
        lambda: torchscript_file(Path("identity.pt"), torch.nn.Identity()),
        "takes no return_features; give a TorchScript file",
    ),
    "no TorchScript": (["other", "--detector", "x.pt"], lambda: Path("x.pt").write_text("x"), "not a TorchScript file"),
    "no reference": (["other", "--reference", "absent.npz"], None, "absent.npz cannot be read"),
    "no statistics": (["other"], lambda: np.savez("ref.npz", x=1), "has no mu and no sigma"),
    "encrypted": (["other"], lambda: change_headers(8, 6, 1), "ref.npz cannot be read"),
    "unknown compression": (["other"], lambda: change_headers(10, 8, 99), "ref.npz cannot be read"),
    "no numbers": (["other"], lambda: np.savez("ref.npz", mu=["a"], sigma=[[1.0]]), "mu is <U1 [1]; make it again"),
    "NaN": (["other"], damage_nan, "not finite"),
    "another width": (["other"], damage_width, "gives 6 features and the reference has 5"),
    "no features kept": (["other", "--metrics", "kid"], damage_width, "reference --features"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case, place, run):
    arguments, prepare, message = BAD[case]
    if prepare:
        prepare()
    standard = {"--reference": "ref.npz", "--detector": "tiny.pt"}
    rest = [word for name, value in standard.items() if name not in arguments for word in (name, value)]
    code, out, err = run("evaluate", *arguments, *rest, "--trust-detector")
    assert (code, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith("restart-sampling: ")
    assert message in last
    assert "Traceback" not in err
    assert not Path("results.jsonl").exists()


def test_the_detector_of_a_reference_is_named_before_inception_is_downloaded(place, run, monkeypatch):
    monkeypatch.setattr(detectors, "INCEPTION_URL", "http://127.0.0.1:9/inception-2015-12-05.pt")
    code, _, err = run("evaluate", "other", "--reference", "ref.npz")
    assert code == 2
    assert "the reference was made with the detector 'tiny.pt', torchscript sha256" in err
    assert f"and this is 'inception', torchscript sha256 {detectors.INCEPTION_SHA256}; name that one by" in err
    save_reference(replace(load_reference(Path("ref.npz")), detector_name=None), Path("old.npz"))
    assert "detector_name" not in np.load("old.npz").files
    err = run("evaluate", "other", "--reference", "old.npz")[2]
    assert "the reference was made with the detector torchscript sha256" in err


def without_detector(path):
    """The reference as EDM's own files are, which do not say what detector made them."""
    with np.load("ref.npz") as reference:
        np.savez(path, mu=reference["mu"], sigma=reference["sigma"])


def test_inception_that_is_not_the_published_file_is_refused(place, run, monkeypatch):
    without_detector("edm.npz")
    monkeypatch.setenv("RESTART_SAMPLING_CACHE", str(place / "cache"))
    (place / "cache").mkdir()
    shutil.copy("tiny.pt", place / "cache" / "inception-2015-12-05.pt")
    code, _, err = run("evaluate", "other", "--reference", "edm.npz")
    assert code == 2
    assert detectors.INCEPTION_SHA256 in err


def test_without_network_it_says_where_to_put_the_file(place, run, monkeypatch):
    without_detector("edm.npz")
    monkeypatch.setenv("RESTART_SAMPLING_CACHE", str(place / "cache"))
    monkeypatch.setattr(detectors, "INCEPTION_URL", "http://127.0.0.1:9/inception-2015-12-05.pt")
    code, _, err = run("evaluate", "other", "--reference", "edm.npz")
    assert code == 2
    assert f"put the file there by hand: {place / 'cache' / 'inception-2015-12-05.pt'}" in err.splitlines()[-1]


@pytest.mark.skipif(not CLASSIFIER.exists(), reason="the classifier and CIFAR-10 are not here")
@pytest.mark.parametrize(("count", "golden"), [(100, 0.063490), pytest.param(500, 0.013393, marks=pytest.mark.slow)])
def test_golden_figures_of_cifar10(count, golden):
    """The first test images of each class against the next as many."""
    images = read_images(SHARED / "data" / "cifar10-test.tar.xz")
    detector = load_detector(str(CLASSIFIER), trust=True)
    by_class = np.argsort(images.labels, kind="stable").reshape(10, 1000)
    some, others = (images.take(np.sort(by_class[:, at : at + count].flatten())) for at in (0, count))
    reference = make_reference(image_batches(others, ONE, 64), len(others), detector, ONE)
    found = measure(image_batches(some, ONE, 64), len(some), detector, reference, ONE)["frechet_distance"]
    assert found == pytest.approx(golden, abs=2e-5)


@pytest.mark.slow
@pytest.mark.skipif(not CLASSIFIER.exists(), reason="the classifier and CIFAR-10 are not here")
def test_golden_figure_of_cifar10_through_the_commands(tmp_path, monkeypatch, run):
    """Archive, zip, reference, evaluate: all training images against all test images. About five minutes."""
    shared = SHARED.resolve()
    monkeypatch.chdir(tmp_path)
    for part in ("train", "test"):
        assert run("dataset", shared / "data" / f"cifar10-{part}.tar.xz", f"{part}.zip")[0] == 0
    detector = ("--detector", shared / "models" / "cifar10-classifier.torchscript.pt", "--trust-detector")
    assert run("reference", "train.zip", "--out", "train.npz", *detector)[0] == 0
    code, out, _ = run("evaluate", "test.zip", "--reference", "train.npz", *detector, "--json")
    assert code == 0
    assert json.loads(out)["frechet_distance"] == pytest.approx(0.03197, abs=2e-5)


def test_full_float32_is_for_users_of_the_new_switches_too():
    """torch refuses to read its old switches where the new ones were set."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32
    try:
        products.fp32_precision = cudnn.conv.fp32_precision = "tf32"
        with full_float32():
            assert {part.fp32_precision for part in (products, cudnn.conv, cudnn.rnn)} == {"ieee"}
        assert {products.fp32_precision, cudnn.conv.fp32_precision} == {"tf32"}
    finally:
        cudnn.allow_tf32, products.allow_tf32 = before
