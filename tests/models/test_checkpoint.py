"""Good files of every kind give the model that was put into them; files that do not fit are refused with a sentence."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from edm_files import NETWORKS, Persistent, golden, network, pickled, snapshot, training_state
from safetensors.torch import load_file, save_file

from restart_sampling.base.errors import InputError
from restart_sampling.base.pickles import UnreadableError
from restart_sampling.cli.model import model as group
from restart_sampling.models import read_checkpoint as checkpoint_module
from restart_sampling.models.by_name import BUNDLED
from restart_sampling.models.read_checkpoint import _class_names, load_model, read_checkpoint
from restart_sampling.models.write_checkpoint import write_safetensors
from tiny import detector_file

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def write(tmp_path):
    """Writes bytes to a file of the given name and returns its path."""

    def write(data, name="model.pkl"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def assert_golden(model, name):
    _, _, arrays = golden(name)
    labels = torch.from_numpy(arrays["labels"]) if arrays["labels"].size else None
    out = model(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["sigma"]), labels)
    np.testing.assert_allclose(out.numpy(), arrays["out"], rtol=1e-4, atol=1e-4)


def test_bundled():
    model = load_model("cifar10-small")
    assert (model.resolution, model.channels, model.label_dim, model.D) == (32, 3, 10, None)
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_told_in_a_sentence(device, monkeypatch):
    monkeypatch.setattr("restart_sampling.models.read_checkpoint.resolve", lambda _: pytest.fail("read"))
    with pytest.raises(
        InputError, match=rf"^device '{device}': torch cannot use it here \(.+\); give another or 'cpu'$"
    ):
        load_model("cifar10-small", device=device)


@pytest.mark.parametrize("name", NETWORKS)
def test_golden_networks(name, write):
    checkpoint = read_checkpoint(write(pickled(snapshot(network(name)))))
    config, state, _ = golden(name)
    assert checkpoint.format == "edm-pickle"
    assert checkpoint.class_name == config["class_name"]
    assert checkpoint.init_kwargs == {"use_fp16": False, **config["init_kwargs"]}
    assert (checkpoint.sigma_min, checkpoint.sigma_max) == (config["sigma_min"], config["sigma_max"])
    assert list(checkpoint.state) == list(state)
    for key, value in state.items():
        np.testing.assert_array_equal(checkpoint.state[key].numpy(), value)
    assert_golden(checkpoint.build(), name)


@pytest.mark.parametrize("numpy_1", [False, True], ids=["numpy2", "numpy1"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols(protocol, numpy_1, write):
    data = pickled(snapshot(network("vp_ddpmpp")), protocol, numpy_1)
    assert (b"numpy.core.multiarray" in data) is numpy_1
    path = write(data)
    assert_golden(load_model(path), "vp_ddpmpp")
    assert read_checkpoint(path).scalars["model.enc.16x16_block0.skip_scale"] == math.sqrt(0.5)


@pytest.mark.parametrize(
    "content",
    [
        lambda net, bad: {"ema": net, "step": 3, "optimizer_state": {"state": {0: {"exp_avg": torch.ones(3)}}}},
        lambda net, bad: {"optimizer_state": {}, "step": 3, "ema": net, "net": bad},
        lambda net, bad: {"net": net, "optimizer_state": {}},
    ],
    ids=["restart", "pfgmpp", "edm"],
)
def test_training_state(content, write):
    bad = network("edm_adm_cond")
    path = write(training_state(content(network("edm_ddpmpp_cond_aug"), bad)), "training-state-000001.pt")
    assert read_checkpoint(path).format == "training-state"
    assert_golden(load_model(path), "edm_ddpmpp_cond_aug")


RAW = "raw, as the training left them: the file has no average of them (ema)"


def test_raw_weights_are_said_to_be_raw(write, tmp_path):
    """In the file, in what is converted from it, and in the model; nothing is said of an average."""
    net = network("edm_ddpmpp_cond_aug")
    path = write(training_state({"net": net, "optimizer_state": {}}), "training-state-000001.pt")
    assert read_checkpoint(path).metadata == {"weights": RAW}
    assert json.loads(run("inspect", path, "--json").output)["metadata"] == {"weights": RAW}
    assert RAW in run("convert", path, tmp_path / "out.safetensors").output
    assert load_model(tmp_path / "out.safetensors").weights == load_model(path).weights == RAW
    averaged = write(training_state({"net": net, "ema": net}), "averaged.pt")
    assert load_model(averaged).weights is None
    assert not read_checkpoint(averaged).metadata


@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_average_that_is_a_state_dict_is_taken_with_the_network_beside_it(prefix, write):
    raw = network("edm_adm_cond", {key: np.zeros_like(value) for key, value in golden("edm_adm_cond")[1].items()})
    average = {prefix + key: torch.from_numpy(value) for key, value in golden("edm_adm_cond")[1].items()}
    path = write(training_state({"net": raw, "ema": average}), "a.pt")
    assert_golden(load_model(path), "edm_adm_cond")
    assert load_model(path).weights == "the average (ema), a state dict, in the network net"
    short = write(training_state({"net": raw, "ema": dict(list(average.items())[1:])}), "b.pt")
    with pytest.raises(InputError, match="1 are missing and 0 unknown"):
        load_model(short)
    listed = write(training_state({"net": raw, "ema": [*average.values()]}), "c.pt")
    with pytest.raises(InputError, match=r"its average \(ema\) is a list, and has to be a network or a state dict"):
        load_model(listed)


LAYER = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).state_dict()  # with _metadata, as all have


@pytest.mark.parametrize("content", [LAYER, {"module." + key: value for key, value in LAYER.items()}, {"ema": LAYER}])
def test_a_state_dict_without_a_network_is_told_which_file_to_give(content, write):
    message = (
        r"its 7 tensors, such as .*0.bias, are a state dict without the network .*; give the file .*snapshot-\*.pkl"
    )
    for data in (training_state(content), pickled(content)):
        with pytest.raises(InputError, match=message):
            read_checkpoint(write(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "nor .*, but empty; download it again"),
        (b"\n<!DOCTYPE HTML>\n<title>Google Drive", ", but a web page.*; download the file itself"),
        (b"<html lang=en>" + bytes(2000), ", but a web page.*; download the file itself"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', ", but the answer of a server.*; download the file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            ", but a Git LFS pointer.*'git lfs pull'",
        ),
        (b"GIF89a", "it is neither a safetensors file.* training state$"),
    ],
)
def test_what_a_failed_download_left_is_named(data, message, write):
    with pytest.raises(InputError, match=message):
        read_checkpoint(write(data))


def test_a_detector_is_no_model(tmp_path):
    with pytest.raises(InputError, match="it is a TorchScript file, a program with its weights, as detectors are"):
        read_checkpoint(detector_file(tmp_path / "detector.pt"))


def test_foreign_safetensors_are_not_sent_in_a_circle(tmp_path):
    save_file({"conv_in.weight": torch.ones(2)}, tmp_path / "a.safetensors", {"format": "pt"})
    for command in (("inspect",), ("convert",)):
        out = [tmp_path / "b.safetensors"] * (command == ("convert",))
        result = run(*command, tmp_path / "a.safetensors", *out)
        assert "such as conv_in.weight, are a state dict without the network" in str(result.exception)


def test_old_torch_wrote_pickles_to_pt(write):
    data = training_state({"ema": network("vp_ddpmpp")}, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="something follows"):
        load_model(write(data, "model.pt"))


def test_the_name_of_the_file_does_not_matter(write):
    assert_golden(load_model(write(pickled(snapshot(network("vp_ddpmpp"))), "model.safetensors")), "vp_ddpmpp")


def test_half_precision_is_widened(write):
    half = {key: value.astype(np.float16) for key, value in golden("vp_ddpmpp")[1].items()}
    path = write(pickled(snapshot(network("vp_ddpmpp", half))))
    assert {tensor.dtype for tensor in read_checkpoint(path).state.values()} == {torch.float16}
    model = load_model(path)
    for key, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor.numpy(), half[key].astype(np.float32))


def test_strided_tensors_and_shared_storages(write):
    _, state, _ = golden("vp_ddpmpp")
    weight = torch.from_numpy(state["model.map_layer0.weight"])
    whole = torch.cat([torch.zeros(5), weight.t().reshape(-1)])
    view = torch.as_strided(whole, weight.shape, (1, weight.shape[0]), 5)
    assert not view.is_contiguous()
    path = write(training_state({"ema": network("vp_ddpmpp", {**state, "model.map_layer0.weight": view})}), "a.pt")
    loaded = read_checkpoint(path).state["model.map_layer0.weight"]
    assert loaded.is_contiguous()
    assert torch.equal(loaded, weight)


def test_loading_leaves_the_random_generator_alone(write):
    path = write(pickled(snapshot(network("vp_ddpmpp"))))
    before = torch.get_rng_state()
    load_model(path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_the_users_defaults_of_torch_change_nothing(dtype, write):
    path = write(pickled(snapshot(network("iddpm_adm_cond"))))
    torch.set_default_dtype(dtype)
    torch.set_default_device("meta")
    try:
        model = load_model(path)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert {(tensor.dtype, tensor.device.type) for tensor in model.state_dict().values()} == {(torch.float32, "cpu")}
    assert torch.get_default_dtype() == torch.float32
    assert_golden(model, "iddpm_adm_cond")


@pytest.mark.parametrize("stated", [{"D": 2048, "pfgmpp": True}, {"D": 2048}, {"D": 2048.0}], ids=str)
@pytest.mark.parametrize("where", ["init_kwargs", "attributes"])
def test_pfgmpp(stated, where, write):
    changes = stated if where == "init_kwargs" else {"numbers": {**stated, "N": 768}}
    path = write(pickled(snapshot(network("edm_adm_cond", **changes))))
    assert not {"D", "pfgmpp"} & read_checkpoint(path).init_kwargs.keys()
    assert read_checkpoint(path).D == load_model(path).D == load_model(path, D=2048).D == 2048
    with pytest.raises(InputError, match="trained with D=2048, but D=128 was given"):
        load_model(path, D=128)


@pytest.mark.parametrize("stated", [{}, {"D": math.inf, "pfgmpp": True}, {"D": 128, "pfgmpp": False}], ids=str)
def test_gaussian(stated, write):
    path = write(pickled(snapshot(network("edm_adm_cond", **stated))))
    assert load_model(path).D is None
    assert load_model(path, D=64).D == 64


def test_a_model_that_train_made_without_a_dimension_takes_none():
    with pytest.raises(InputError, match="it was trained without a D, but D=128 was given; leave D out"):
        load_model("cifar10-small", D=128)


@pytest.mark.parametrize("D", [0, -1, 2.5, math.nan, 10**10, 1e10, "2048", [2048], True], ids=repr)
def test_bad_dimension(D, write):
    with pytest.raises(InputError, match="its D is no positive integer"):
        load_model(write(pickled(snapshot(network("edm_adm_cond", D=D)))))


def test_dimension_is_for_edm_only(write):
    with pytest.raises(InputError, match="D=2048 was given, but a VPPrecond model has none"):
        load_model(write(pickled(snapshot(network("vp_ddpmpp")))), D=2048)


def test_nobody_is_told_to_leave_out_what_the_file_says(write):
    path = write(pickled(snapshot(network("ve_ncsnpp", numbers={"D": 2048, "pfgmpp": True}))))
    with pytest.raises(
        InputError, match=r"it is a PFGM\+\+ model \(D=2048\) with VEPrecond, and such are read with EDMPrecond only"
    ):
        load_model(path)


def test_given_dimension_is_checked():
    with pytest.raises(InputError, match="D is 0, and has to be a positive integer"):
        load_model("cifar10-small", D=0)
    with pytest.raises(InputError, match="D is 10000000000, and has to be a positive integer up to 4,194,304"):
        load_model("cifar10-small", D=10**10)


def test_embedded_source_is_hashed_and_not_run(write, tmp_path, monkeypatch):
    net = network("vp_ddpmpp")
    path = write(pickled(snapshot(net)))
    checkpoint = read_checkpoint(path)
    assert not checkpoint.known_source
    monkeypatch.setattr(checkpoint_module, "KNOWN_SOURCES", (checkpoint.source_sha256[:16],))
    assert read_checkpoint(path).known_source

    sentinel = tmp_path / "sentinel"
    net.state["_modules"]["model"].source = f"open({str(sentinel)!r}, 'w').close()"
    path = write(pickled(snapshot(net)))
    assert not read_checkpoint(path).known_source
    assert_golden(load_model(path), "vp_ddpmpp")
    assert not sentinel.exists()


def test_numbers_that_differ_are_told(write):
    path = write(pickled(snapshot(network("edm_adm_cond", numbers={"sigma_data": 0.25}))))
    with pytest.warns(UserWarning, match=r"sigma_data \(0.25 in the file, 0.5 in the model\)"):
        load_model(path)


def changed(**change):
    return lambda: network("vp_ddpmpp", **change)


def with_state(**tensors):
    state = dict(golden("vp_ddpmpp")[1])
    for key, value in tensors.items():
        state[key.replace("__", ".")] = value
    return lambda: network("vp_ddpmpp", {key: value for key, value in state.items() if value is not None})


def with_class(name):
    def make():
        net = network("vp_ddpmpp")
        net.class_name = name
        return net

    return make


def without_arguments(**state):
    def make():
        net = network("vp_ddpmpp")
        net.state.update(state)
        return net

    return make


def laughs():
    value = [1]
    for _ in range(40):
        value = [value, value]
    return value


def itself():
    value = [1]
    value.append(value)
    return value


def nested():
    value = 1
    for _ in range(50):
        value = [value]
    return value


def twice():
    net = network("vp_ddpmpp")
    model = net.state["_modules"]["model"].state["_modules"]
    model["map_layer1"] = model["map_layer0"]
    return net


def in_rings():
    layer = Persistent("Linear", {"_modules": {}})
    for _ in range(60):
        layer = Persistent("Linear", {"_modules": {"a": layer, "b": layer}})
    return layer


BAD = {
    "unknown class": (with_class("os.system"), "its class is os.system, and can be EDMPrecond, VPPrecond"),
    "no init_kwargs": (without_arguments(_init_kwargs=None), "_init_kwargs is None"),
    "positional": (without_arguments(_init_args=(32,)), "by position"),
    "kwargs no dict": (without_arguments(_init_kwargs=[1]), "are a list"),
    "missing tensor": (
        with_state(model__map_layer0__bias=None),
        "1 are missing and 0 unknown, such as model.map_layer0.bias",
    ),
    "unknown tensor": (with_state(model__map_layer9__bias=np.ones(3, "f4")), "0 are missing and 1 unknown"),
    "wrong shape": (
        with_state(model__map_layer0__bias=np.ones(3, "f4")),
        r"\[3\] of torch.float32, and has to be \[32\]",
    ),
    "integers": (with_state(model__map_layer0__bias=np.ones(32, "i8")), r"\[32\] of torch.int64, and has to be \[32\]"),
    "unknown argument": (changed(colour=3), "do not make a VPPrecond: .*colour"),
    "argument of wrong type": (changed(channel_mult="os.system"), "do not make a VPPrecond"),
    "unknown network": (changed(model_type="os.system"), "model_type is 'os.system'"),
    "what only a call looks at": (changed(dropout="0.1"), "its init_kwargs make no VPPrecond that runs"),
    "too wide": (changed(model_channels=100_000), "far more numbers than the file holds"),
    "too deep": (changed(num_blocks=1_000_000), "far more numbers than the file holds"),
    "too large a number": (changed(num_blocks=10**15), "hold 1000000000000000"),
    "not a number": (changed(dropout=math.nan), "hold nan"),
    "true for 1": (changed(num_blocks=True), "num_blocks is True, and true and false are no numbers"),
    "true among numbers": (changed(attn_resolutions=[16, True]), r"attn_resolutions is \[16, True\], and true"),
    "tensor argument": (changed(dropout=torch.ones(1)), "hold a StoredTensor"),
    "billion laughs": (changed(channel_mult=laughs()), "nested too deep"),
    "list in itself": (changed(channel_mult=itself()), "nested too deep"),
    "deep list": (changed(channel_mult=nested()), "nested too deep"),
    "many values": (changed(channel_mult=[1] * 2000), "more than 1000 values"),
    "module twice": (twice, "occurs twice"),
    "exponential modules": (
        lambda: Persistent("X", {"_init_kwargs": {}, "_modules": {"a": in_rings()}}),
        "occurs twice",
    ),
    "no network": (lambda: None, "holds no network as ema"),
    "no modules": (without_arguments(_modules=[1]), "has no _modules"),
    "module is text": (without_arguments(_modules={"model": "text"}), "'model.' is no module"),
    "tensor is text": (without_arguments(_buffers={"u": "text"}), "its tensor u is a str"),
    "dotted name": (without_arguments(_modules={"a.b": None}), "has the name 'a.b'"),
    "long name": (without_arguments(_modules={"a" * 300: None}), "has the name 'aaa"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_files_that_do_not_fit(make, message, write):
    with pytest.raises(InputError, match=message) as caught:
        load_model(write(pickled(snapshot(make()))))
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_no_dictionary(write):
    with pytest.raises(InputError, match="holds no network as ema"):
        load_model(write(pickled([1])))


def test_shared_memory_is_not_multiplied(write):
    tensor = torch.zeros(100_000)
    many = Persistent("X", {"_init_kwargs": {}, "_buffers": {f"b{i}": tensor for i in range(1000)}})
    with pytest.raises(InputError, match="share memory"):
        load_model(write(training_state({"ema": many})))


def test_shared_attributes_are_not_multiplied(write):
    shared = {f"a{number}": number for number in range(1000)}
    layers = {str(number): Persistent("Linear", shared) for number in range(1000)}
    with pytest.raises(InputError, match="more than 500,000 attributes"):
        load_model(write(pickled({"ema": Persistent("X", {"_init_kwargs": {}, "_modules": layers})})))


# Safetensors.


@pytest.mark.parametrize(("name", "D"), [*((name, None) for name in NETWORKS), ("edm_adm_cond", 2048)])
def test_round_trip(name, D, write, tmp_path):
    state = {key: value.astype(np.float16 if "conv" in key else np.float32) for key, value in golden(name)[1].items()}
    options = {} if D is None else {"D": D, "pfgmpp": True}
    first = read_checkpoint(write(pickled(snapshot(network(name, state, **options)))))
    write_safetensors(first, tmp_path / "out.safetensors")
    second = read_checkpoint(tmp_path / "out.safetensors")
    assert second.format == "safetensors"
    for attribute in ("class_name", "init_kwargs", "D", "sigma_min", "sigma_max", "classes"):
        assert getattr(second, attribute) == getattr(first, attribute)
    assert second.metadata == {"source_sha256": first.sha256}
    assert second.state.keys() == first.state.keys()
    for key, tensor in first.state.items():
        assert second.state[key].dtype == tensor.dtype
        assert torch.equal(second.state[key], tensor)
    a, b = first.build().state_dict(), second.build().state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pkl", "out.safetensors"]


def test_infinity_in_the_arguments(write, tmp_path):
    first = read_checkpoint(write(pickled(snapshot(network("edm_adm_cond", sigma_max=math.inf)))))
    write_safetensors(first, tmp_path / "out.safetensors")
    second = read_checkpoint(tmp_path / "out.safetensors")
    assert second.init_kwargs["sigma_max"] == second.build().sigma_max == math.inf


def test_every_name_of_a_class_is_kept(tmp_path):
    names = ("tench, Tinca tinca", "", "[x]", "caf\u00e9", *map(str, range(6)))
    write_safetensors(replace(read_checkpoint(BUNDLED["cifar10-small"]), classes=names), tmp_path / "a.safetensors")
    model = read_checkpoint(tmp_path / "a.safetensors")
    assert model.classes == model.build().classes == names
    assert replace(model, classes=names[:9]).build().classes == ()  # a name of each, or none
    with pytest.raises(UnreadableError, match="classes is no list of names"):
        _class_names("[1]")


def test_bundled_round_trip_keeps_classes_and_metadata(tmp_path):
    first = read_checkpoint(checkpoint_module.resolve("cifar10-small"))
    write_safetensors(first, tmp_path / "out.safetensors")
    second = read_checkpoint(tmp_path / "out.safetensors")
    assert second.classes == first.classes
    assert len(second.classes) == 10
    assert second.metadata == {**first.metadata, "source_sha256": first.sha256}
    assert {"dataset", "training"} <= second.metadata.keys()


def test_nothing_is_overwritten_or_left_behind(write, tmp_path):
    checkpoint = read_checkpoint(write(pickled(snapshot(network("vp_ddpmpp")))))
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"mine")
    with pytest.raises(InputError, match="exists; give another name, or --force"):
        write_safetensors(checkpoint, out)
    assert out.read_bytes() == b"mine"
    write_safetensors(checkpoint, out, overwrite=True)
    assert read_checkpoint(out).class_name == "VPPrecond"
    with pytest.raises(InputError, match="cannot be written"):
        write_safetensors(checkpoint, out / "below a file.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pkl", "out.safetensors"]


METADATA = {"format": "restart-sampling/1", "class_name": "VPPrecond", "init_kwargs": "{}"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": None}, "no format restart-sampling/1"),
        ({"format": "restart-sampling/2"}, "no format restart-sampling/1"),
        ({"class_name": None}, "KeyError 'class_name'"),
        ({"class_name": "os\n\x1b[2Jsystem"}, r"its class is os\\n\\x1b\[2Jsystem"),
        ({"init_kwargs": None}, "KeyError 'init_kwargs'"),
        ({"init_kwargs": "{"}, "JSONDecodeError"),
        ({"init_kwargs": "[]"}, "are a list"),
        ({"init_kwargs": "[" * 100_000}, "RecursionError"),
        ({"init_kwargs": '{"model_channels": 8' + "0" * 5000 + "}"}, "ValueError"),
        ({"init_kwargs": '{"dropout": NaN}'}, "hold nan"),
        ({"sigma_min": "low"}, "ValueError"),
        ({"D": "1.5"}, "no positive integer"),
        ({"D": "10000000000"}, "no positive integer up to 4,194,304"),
        ({"D": "many"}, "ValueError"),
        ({}, "do not make a VPPrecond"),
    ],
    ids=str,
)
def test_bad_metadata(change, message, tmp_path):
    metadata = {key: value for key, value in {**METADATA, **change}.items() if value is not None}
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(InputError, match=message) as caught:
        load_model(tmp_path / "a.safetensors")
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()


def test_damaged_safetensors(write):
    data = checkpoint_module.resolve("cifar10-small").read_bytes()
    for length in (0, 1, 8, 9, 100, 20_000, 50_000, len(data) - 1):
        with pytest.raises(InputError, match="cannot be used"):
            read_checkpoint(write(data[:length], "cut.safetensors"))


# The command line.


def run(*arguments):
    return CliRunner().invoke(group, [str(argument) for argument in arguments])


def test_inspect_bundled():
    result = run("inspect", "cifar10-small")
    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.output.splitlines())
    assert (lines["format"], lines["class"], lines["parameters"]) == ("safetensors", "EDMPrecond", "7.0 M")
    assert (lines["labels"], lines["sigma_max"], lines["code"]) == ("10", "-", "-")
    assert lines["classes"].startswith("airplane, automobile")


def test_inspect_pickle_json(write):
    path = write(pickled(snapshot(network("edm_adm_cond", D=2048))))
    facts = json.loads(run("inspect", path, "--json").output)
    checkpoint = read_checkpoint(path)
    assert facts["sha256"] == checkpoint.sha256
    assert (facts["code"], facts["code_sha256"]) == ("unknown, not run", checkpoint.source_sha256)
    assert (facts["D"], facts["sigma_max"], facts["resolution"]) == (2048, "Infinity", 16)
    assert facts["init_kwargs"] == checkpoint.init_kwargs


@pytest.mark.parametrize("json_flag", [[], ["--json"]], ids=["text", "json"])
@pytest.mark.parametrize("form", ["pickle", "zip"])
def test_inspect_tells_what_is_in_an_unreadable_file(form, json_flag, write):
    content = {"ema": torch.nn.Linear(2, 2), "window": np.arange(3)}
    path = write(pickled(content) if form == "pickle" else training_state(content))
    result = run("inspect", path, *json_flag)
    assert isinstance(result.exception, InputError)
    assert "model inspect" in str(result.exception)
    assert "torch.nn.modules.linear.Linear" in result.output
    assert "torch.FloatStorage" in result.output
    assert "not run" in result.output


def test_convert(write, tmp_path):
    path = write(pickled(snapshot(network("vp_ddpmpp"))))
    out = tmp_path / "out.safetensors"
    assert run("convert", path, out).exit_code == 0
    assert_golden(load_model(out), "vp_ddpmpp")
    assert isinstance(run("convert", path, out).exception, InputError)
    assert run("convert", path, out, "--force").exit_code == 0
    assert isinstance(run("convert", path, tmp_path / "out.pkl").exception, InputError)


def test_convert_writes_only_what_can_be_loaded(write, tmp_path):
    path = write(pickled(snapshot(BAD["wrong shape"][0]())))
    assert isinstance(run("convert", path, tmp_path / "out.safetensors").exception, InputError)
    assert not (tmp_path / "out.safetensors").exists()


def test_converted_file_is_plain_safetensors(write, tmp_path):
    run("convert", write(pickled(snapshot(network("vp_ddpmpp")))), tmp_path / "out.safetensors")
    assert load_file(tmp_path / "out.safetensors").keys() == golden("vp_ddpmpp")[1].keys()
