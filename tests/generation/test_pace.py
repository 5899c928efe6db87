"""How many images a device draws at a time: it changes no block, key or image, and gives way where memory ends."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch

import restart_sampling as rs
from restart_sampling.base.ranks import Ranks
from restart_sampling.generation import pace as pace_module
from restart_sampling.generation import speed
from restart_sampling.generation.net_drawing import NetDrawing
from restart_sampling.generation.pace import Pace, images_that_pay, own_pace
from restart_sampling.models.graphed import GraphedNetwork
from tiny_model import tiny_model_file

GIB = 2**30


def pointwise(most=1000, label_dim=0):
    """A net whose images do not depend on their batch in any bit, and of which so many fit in memory."""

    def denoise(x, sigma, class_labels=None):
        if len(x) > most:
            raise torch.OutOfMemoryError
        shift = 0 if class_labels is None else class_labels.view(-1, 1, 1, 1)
        return (x + shift) / (1 + sigma.view(-1, 1, 1, 1) ** 2)

    return rs.from_edm(denoise, 0.002, 80, label_dim=label_dim, identity="pointwise")


def drawn(net, pace, count=150, batch=None):
    drawing = NetDrawing(net, "3 [2,1,0.5,3]", shape=(3, 4, 4), batch=batch, pace=pace)
    return list(drawing.draw(range(count)))


def pixels(batches):
    return torch.cat([batch.images for batch in batches])


@pytest.mark.parametrize("at_once", [1, 7, 64, 100, 512])
def test_blocks_are_the_same_however_many_images_are_drawn_at_a_time(at_once):
    expected = drawn(pointwise(label_dim=3), own_pace(None))
    found = drawn(pointwise(label_dim=3), Pace(at_once))
    assert [batch.seeds for batch in found] == [tuple(range(64)), tuple(range(64, 128)), tuple(range(128, 150))]
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


@pytest.mark.parametrize(
    ("pace", "images", "expected"),
    [
        (Pace(16, automatic=True), 16, 256),  # which take half of the 40 GiB that are free; 16 took one
        (Pace(16, automatic=True), 9, 16),  # says nothing of more
        (Pace(16), 16, 16),  # the user's
        (Pace(16, automatic=True, measured=True), 16, 16),
    ],
)
def test_a_first_batch_shows_how_many_images_pay(monkeypatch, pace, images, expected):
    taken = {"now": 2 * GIB, "peak": 9 * GIB}

    def reset(device):
        taken["peak"] = taken["now"]

    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: taken["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: taken["peak"])
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 4 * GIB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (38 * GIB, 80 * GIB))
    device = torch.device("cuda")
    with pytest.raises(torch.OutOfMemoryError), pace.watching(device, images):
        raise torch.OutOfMemoryError
    for _ in range(2):
        with pace.watching(device, images):
            taken["peak"] = 3 * GIB
    assert pace.at_once == expected


def test_a_batch_that_does_not_fit_is_halved_and_the_drawings_of_a_net_learn_it(caplog):
    pace = Pace(128, automatic=True, measured=True)
    with caplog.at_level(logging.WARNING):
        found = drawn(pointwise(most=40), pace)
        again = drawn(pointwise(most=40), pace)
    assert pace.at_once == 32
    assert [record.args or record.message for record in caplog.records] == [
        f"{count} images do not fit in the device's memory at a time; going on with half as many" for count in (128, 64)
    ]
    assert torch.equal(pixels(found), pixels(drawn(pointwise(), own_pace(None))))
    assert torch.equal(pixels(again), pixels(found))


def test_on_the_cpu_fewer_images_pay_and_are_whole_parts_of_a_block():
    pace, exact, asked = own_pace(None), own_pace(None, exact=True), own_pace(100)
    for each in (pace, exact, asked):
        drawn(pointwise(), each, count=20)
    assert (pace.at_once, exact.at_once, asked.at_once) == (16, 64, 100)


@pytest.mark.parametrize("pace", [Pace(41), Pace(1, automatic=True), own_pace(64), own_pace(None, exact=True)])
def test_a_batch_of_the_users_or_of_one_image_that_does_not_fit_is_said(pace):
    with pytest.raises(rs.InputError, match=f"a batch of {pace.at_once} images? does not fit in the device's memory"):
        drawn(pointwise(most=0), pace)


def test_as_many_images_pay_as_half_of_the_memory_holds():
    assert images_that_pay(64, GIB, 80 * GIB) == 512
    assert images_that_pay(64, GIB, 16 * GIB) == 512
    assert images_that_pay(64, GIB, 15 * GIB) == 256
    assert images_that_pay(64, GIB, 1 * GIB) == 64
    assert images_that_pay(32, 0, GIB) == 512


def test_a_run_goes_on_where_another_number_of_images_pays(run, tmp_path, monkeypatch):
    model, out = tiny_model_file(tmp_path / "tiny.safetensors"), tmp_path / "images"
    words = ["generate", "--model", model, "--plan", "2", "--out", out, "--json", "--seeds"]
    with monkeypatch.context() as patch:
        patch.setattr(pace_module, "own_pace", lambda *_: Pace(128, automatic=True, measured=True))
        code, stdout, err = run(*words, "0-129")
    assert code == 0, err
    about = json.loads((out / "manifest.json").read_text())
    assert (about["batch"], about["images_at_once"]) == (64, 128)
    next(out.glob("**/*70.png")).unlink()
    code, stdout, err = run(*words, "0-129")
    assert code == 0, err
    assert json.loads(stdout)["drawn"] == 64
    code, stdout, err = run(*words, "0-129")
    assert json.loads(stdout)["drawn"] == 0


def settled(monkeypatch, calls=0.0, seconds=0.0, expected=30.0, may_compile=True, evaluations=35, fused=False):
    """What is said, and the batch compiled for, on a device that takes a hundredth of a second for an image."""
    compiled = []
    monkeypatch.setattr(speed, "compile_network", lambda net, batch: compiled.append(batch))
    monkeypatch.setattr(speed, "CompileTime", lambda network, batch: SimpleNamespace(expected=lambda: expected))
    monkeypatch.setattr(speed, "_seconds", lambda drawing, images: 0.01 / 35)
    net = SimpleNamespace(device=torch.device("cuda"), model=torch.nn.Identity(), fused=fused)
    pace = Pace(256, automatic=True, measured=True)
    drawing = SimpleNamespace(net=net, pace=pace, nfe=35, network_evaluations=evaluations, call=None)
    ranks = Ranks(0, 1, net.device)
    said = speed.settle(drawing, ranks, may_compile=may_compile, calls=calls, seconds=seconds)
    compiled += [("graph", net.model.batch)] if isinstance(net.model, GraphedNetwork) else []
    return said, compiled


def test_the_network_is_compiled_where_the_run_is_long_enough_to_earn_it_back(monkeypatch):
    after = 6700  # 30 s of compiling, and 0.0045 s that it saves with each image
    assert speed.images_to_pay_off(30, 0.01) == after
    assert settled(monkeypatch, calls=35 * (after - 1)) == ("not compiled, which pays off after about 6,700 images", [])
    assert settled(monkeypatch, calls=35 * after) == ("compiling, pays off after about 6,700 images", [256])
    assert settled(monkeypatch, calls=35 * 3000, expected=10)[1] == [256]
    assert settled(monkeypatch, calls=35 * after, evaluations=70)[1] == [512]
    assert settled(monkeypatch, seconds=60)[1] == []
    assert settled(monkeypatch, seconds=600)[1] == [256]
    assert settled(monkeypatch, calls=35 * after, may_compile=False) == (None, [])
    assert settled(monkeypatch, calls=35 * 256) == (None, [])
    assert settled(monkeypatch, calls=35 * after, fused=True, evaluations=70) == (None, [("graph", 512)])
    assert settled(monkeypatch, calls=35 * 256, fused=True) == (None, [])
