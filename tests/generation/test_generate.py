"""From seeds to images: what may and may not change the image of a seed, and what is refused."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

import restart_sampling as rs
from restart_sampling.generation.net_drawing import NetDrawing, _finish_batches
from restart_sampling.generation.store import BlockStore
from restart_sampling.models.ddpm import iDDPMPrecond
from restart_sampling.models.denoiser import EDMPrecond
from restart_sampling.models.guidance import guided_by_class
from restart_sampling.sampling.net_plan import net_path

TINY = {
    "img_resolution": 8,
    "img_channels": 3,
    "model_type": "SongUNet",
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
}


def tiny(label_dim=0, **kwargs):
    """A network with random weights everywhere, also where training begins at zero."""
    torch.manual_seed(0)
    model = EDMPrecond(**TINY, label_dim=label_dim, **kwargs).eval().requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def images(model, plan="4", seeds=range(6), **options):
    return torch.cat([batch.images for batch in rs.generate(model, plan, seeds, **options)])


@pytest.mark.parametrize(
    ("load", "plan", "first"),
    [
        (lambda: tiny(label_dim=4), "2 [2,1,0.5,3]", 64),
        (lambda: rs.load_model("cifar10-small"), "1 solver=euler", 8),
    ],
    ids=["random weights", "trained"],
)
def test_the_image_of_a_seed_is_the_same_in_batches_of_1_7_and_64(load, plan, first):
    """The network's own rounding may differ with the batch: by one grey level, in under 0.1 % of the values."""
    model, seeds = load(), range(64)
    whole = images(model, plan, seeds, batch_size=64).int()
    for batch_size in (1, 7):
        part = images(model, plan, seeds[:first], batch_size=batch_size).int()
        difference = (part - whole[: len(part)]).abs()
        assert difference.max() <= 1
        assert (difference > 0).double().mean() < 1e-3


def test_order_and_company_do_not_change_an_image():
    model = tiny(label_dim=4)
    whole = images(model, "4 [2,2,0.5,3]", range(6))
    assert torch.equal(images(model, "4 [2,2,0.5,3]", [5, 0, 3]), whole[[5, 0, 3]])


@pytest.mark.parametrize("noise", ["counter", "edm"])
@pytest.mark.parametrize("classes", [None, 2])
def test_labels_are_known_before_any_image_is_drawn(noise, classes):
    drawing = NetDrawing(tiny(label_dim=4), "2", batch=2, noise=noise, classes=classes)
    drawn = torch.cat([batch.labels for batch in drawing.draw(range(10, 15))])
    assert torch.equal(drawing.labels(range(10, 15)), drawn)


def test_batches_carry_seeds_and_labels():
    batches = list(rs.generate(tiny(label_dim=4), "2", range(10, 15), batch_size=2))
    assert [batch.seeds for batch in batches] == [(10, 11), (12, 13), (14,)]
    for batch in batches:
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape == (len(batch.seeds), 3, 8, 8)
        assert torch.equal(batch.labels, rs.GaussianNoise(batch.seeds).labels(4))
    assert next(iter(rs.generate(tiny(), "2", [1]))).labels is None


def test_classes_are_drawn_fixed_or_given():
    model = tiny(label_dim=4)
    fixed = next(iter(rs.generate(model, "2", [1, 2, 3], classes=3)))
    assert fixed.labels.tolist() == [3, 3, 3]
    given = next(iter(rs.generate(model, "2", [1, 2, 3], classes=[0, 3, 1])))
    assert given.labels.tolist() == [0, 3, 1]
    assert torch.equal(given.images[1], fixed.images[1])
    assert not torch.equal(given.images[0], fixed.images[0])


def test_guidance_is_the_guided_denoiser():
    model = tiny(label_dim=4)
    kernel = rs.GaussianNoise([1, 2])
    path = rs.Plan.parse("4").path()
    x = rs.follow(guided_by_class(model, torch.tensor([2, 2]), 1.7), kernel.start((3, 8, 8), 80.0), path)
    expected = (x * 127.5 + 128).clip(0, 255).to(torch.uint8)
    assert torch.equal(images(model, "4", [1, 2], classes=2, guidance=1.7), expected)


def test_pfgmpp_models_get_their_kernel():
    plan = "4 [2,2,0.5,3]"
    augmented = tiny(D=128)
    path = rs.Plan.parse(plan).path()
    kernel = rs.PFGMppNoise([1, 2], D=128)
    x = rs.follow(augmented, kernel.start((3, 8, 8), 80.0), path, perturb=kernel)
    assert torch.equal(images(augmented, plan, [1, 2]), (x * 127.5 + 128).clip(0, 255).to(torch.uint8))
    assert not torch.equal(images(augmented, plan, [1, 2]), images(tiny(), plan, [1, 2]))


def test_edm_noise_is_edms():
    model = tiny(label_dim=4)
    path = rs.Plan.parse("4 churn=2").path()
    kernel = rs.EDMNoise([1, 2], path)
    x = kernel.start((3, 8, 8), 80.0)
    labels = kernel.labels(4)
    x = rs.follow(guided_by_class(model, labels), x, path, perturb=kernel)
    batch = next(iter(rs.generate(model, "4 churn=2", [1, 2], noise="edm")))
    assert torch.equal(batch.labels, labels)
    assert torch.equal(batch.images, (x * 127.5 + 128).clip(0, 255).to(torch.uint8))


def test_a_model_that_rounds_its_levels_is_called_at_those():
    torch.manual_seed(0)
    model = iDDPMPrecond(**TINY).eval().requires_grad_(False)
    known = set(model.u.tolist()) if hasattr(model, "u") else set()
    path = net_path(model, rs.Plan.parse("10 [3,2,0.5,3.0] gamma=0.05"))
    for level in path.levels[:-1]:
        nearest = min(known, key=lambda value: abs(value - level))
        assert level == pytest.approx(nearest, rel=1e-6)
    assert images(model, "10 [3,2,0.5,3.0] gamma=0.05", [1]).shape == (1, 3, 8, 8)


def test_a_network_of_ones_own_gets_the_class_of_each_seed():
    """As a checkpoint does: one of each seed's own, a fixed one or those given; as numbers, [B] int64."""
    model = tiny(label_dim=4)
    seen = []

    def network(x, sigma, class_labels):
        assert (class_labels.dtype, class_labels.shape) == (torch.int64, x.shape[:1])
        seen.append(class_labels)
        return model(x, sigma, class_labels)

    own = rs.from_edm(network, 0, math.inf, label_dim=4, identity="own", dtype=torch.float64)
    for asked in ({}, {"classes": 3}, {"classes": [3, 1, 0]}):
        (ours,) = rs.generate(own, "3", range(3), shape=(3, 8, 8), **asked)
        (theirs,) = rs.generate(model, "3", range(3), **asked)
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(seen[-1], ours.labels)
    guided = rs.guided(own, 2.0, unconditional={"class_labels": torch.tensor([0])})
    assert torch.equal(
        next(rs.generate(guided, "3", range(3), shape=(3, 8, 8))).labels, rs.GaussianNoise(range(3)).labels(4)
    )
    with pytest.raises(rs.InputError, match=r"guidance 2 was given.*rs\.guided"):
        rs.generate(own, "3", range(3), shape=(3, 8, 8), guidance=2.0)
    with pytest.raises(rs.InputError, match="class 4 is out of range"):
        rs.generate(own, "3", range(3), shape=(3, 8, 8), classes=4)
    with pytest.raises(rs.InputError, match="label_dim is -1"):
        rs.from_edm(network, 0, 1, label_dim=-1)
    identities = {rs.from_edm(network, 0, 1, label_dim=classes, identity="own").identity for classes in (0, 4, 5)}
    assert len(identities) == 3


@pytest.mark.parametrize(
    ("label_dim", "options", "message"),
    [
        (4, {"classes": 4}, "class 4 is out of range; the model has classes 0 to 3"),
        (4, {"classes": -1}, "class -1 is out of range"),
        (4, {"classes": [1, 2]}, "2 classes and 6 seeds were given"),
        (4, {"classes": True}, "classes = True; give a whole number"),
        (4, {"classes": torch.tensor(1.5)}, r"classes = tensor\(1\.5000\); give a whole number"),
        (4, {"classes": [1, 2, 3, 0, 1, True]}, "class = True; give a whole number"),
        (4, {"classes": {0: 1, 1: 2}}, "no class for seed 2; give one for each seed"),
        (4, {"seeds": {1, 2}, "classes": [0, 1]}, "the seeds are of type set"),
        (0, {"seeds": "12"}, "seed = '1'; give a whole number"),
        (0, {"batch_size": 1.5}, r"batch_size = 1\.5; give a whole number"),
        (0, {"exact": "no"}, "exact = 'no'; give True or False"),
        (4, {"guidance": "2"}, "guidance = '2'; give a number"),
        (0, {"classes": 1}, "the model is unconditional"),
        (0, {"guidance": 2.0}, "the model is unconditional"),
        (0, {"batch_size": 0}, "batch size is 0"),
        (4, {"guidance": float("nan")}, "guidance is nan"),
        (0, {"seeds": [1, 2, 1]}, "a seed is given twice"),
        (0, {"noise": "pink"}, "no noise 'pink'; allowed: counter, edm"),
        (0, {"noise": "edm", "D": 128}, "not defined for PFGM"),
        (0, {"plan": "18 [3,2,0.5,0.3]"}, "t_min < t_max"),
        (0, {"sigma_max": 1.0, "plan": "18 [3,2,0.5,3]"}, "above sigma_max"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(label_dim, options, message):
    of_model = {key: options.pop(key) for key in ("D", "sigma_max") if key in options}
    model = tiny(label_dim, **of_model)
    with pytest.raises(rs.InputError, match=message):
        rs.generate(model, options.pop("plan", "4"), options.pop("seeds", range(6)), **options)


def test_exact_may_be_a_truth_value_of_numpy():
    assert NetDrawing(tiny(0), rs.Plan(2), exact=np.True_).about["arithmetic"] == "float32, exact"


def test_a_model_in_training_mode_is_refused():
    model = tiny()
    model.model.train()
    for draw in (lambda: rs.generate(model, "4", [0]), lambda: rs.sample(model, "4", [0], (3, 8, 8))):
        with pytest.raises(rs.InputError, match="the net is in training mode"):
            draw()


def test_an_image_that_is_not_finite_stops_the_run():
    class Broken(EDMPrecond):
        def forward(self, x, sigma, class_labels=None):
            x0 = super().forward(x, sigma, class_labels)
            x0[1] = float("nan")
            return x0

    broken = Broken(**TINY).eval().requires_grad_(False)
    with pytest.raises(rs.InputError, match="image of seed 8 is not finite with plan '2'"):
        next(rs.generate(broken, "2", [7, 8, 9]))


def test_exact_images_are_those_of_float32_and_refuse_another_network():
    model = tiny()
    assert torch.equal(images(model, exact=True), images(model))
    with pytest.raises(rs.InputError, match="float32, and this one is in"):
        rs.generate(model.to(torch.bfloat16), "4", [0], exact=True)


def test_batches_that_are_under_way_come_in_order_and_one_ahead():
    events = []

    def start(number):
        events.append(f"start {number}")
        return lambda: events.append(f"finish {number}") or number

    assert list(_finish_batches(map(start, range(3)), ahead=1)) == [0, 1, 2]
    assert events == ["start 0", "start 1", "finish 0", "start 2", "finish 1", "finish 2"]


def test_a_run_that_failed_before_its_first_image_does_not_lock_its_folder(tmp_path):
    blocks = [range(4)]
    for out in (tmp_path / "images", tmp_path / "images.zip"):
        BlockStore(out, blocks, {"model_sha256": "training"}).start({"run": {"model_sha256": "training"}, "batch": 4})
        BlockStore(out, blocks, {"model_sha256": "mended"}).check(4)
    (tmp_path / "images" / "000000").mkdir()
    with pytest.raises(rs.InputError, match="holds another run, with model_sha256"):
        BlockStore(tmp_path / "images", blocks, {"model_sha256": "mended"}).check(4)


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L")])
def test_a_batch_becomes_pictures_and_files(channels, mode, tmp_path):
    images = torch.randint(256, (2, channels, 4, 6), dtype=torch.uint8)
    batch = rs.Batch((7, 12_345_678), None, images)
    paths = batch.save(tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["000007.png", "12345678.png"]
    for picture, path, image in zip(batch.pictures(), paths, images, strict=True):
        assert (picture.mode, picture.size) == (mode, (6, 4))
        with Image.open(path) as written:
            assert (written.mode, written.tobytes()) == (mode, picture.tobytes())
        assert np.array_equal(np.asarray(picture).reshape(4, 6, channels), image.permute(1, 2, 0))


def test_a_batch_that_is_no_picture_is_refused(tmp_path):
    batch = rs.Batch((0,), None, torch.zeros(1, 4, 8, 8, dtype=torch.uint8))
    with pytest.raises(rs.InputError, match=r"have 1 or 3 channels, and those of this net have 4; take batch.images"):
        batch.save(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(rs.InputError, match="cannot be written"):
        rs.Batch((0,), None, torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).save(tmp_path / "file")


def test_a_star_import_gives_what_type_checkers_expect():
    """The names of the stub, which for them has no dunder names; both presets are there."""
    names: dict = {}
    exec("from restart_sampling import *", names)
    assert rs.steps_preset(20)["restart"] == [[10, 1, 0.1, 2.0]]
    assert {"guidance_preset", "steps_preset", "load_model"} <= names.keys()
    assert [name for name in rs.__all__ if name.startswith("_")] == []
