"""Checkpoints of other projects: what their own code makes of a file's weights, this package makes too.

`golden/foreign.npz` was made with the code of each project (guided-diffusion, improved-diffusion, score_sde_pytorch and
EDM2), of small networks with the weights of `foreign_files.weight`: noise levels in our units, and the estimate of the
clean images at each of them, of one image and class for each level.
"""

import json
import re
from functools import cache
from itertools import chain
from pathlib import Path

import foreign_files as files
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from restart_sampling.base.errors import InputError
from restart_sampling.base.pickles import UnreadableError
from restart_sampling.generation.generate import generate
from restart_sampling.models.ddpm import DDPMPrecond, iDDPMPrecond
from restart_sampling.models.foreign import adm, score_sde
from restart_sampling.models.preconditionings import DENOISERS
from restart_sampling.models.read_checkpoint import FORMATS, load_model, read_checkpoint
from restart_sampling.models.write_checkpoint import write_safetensors

GOLDEN = Path(__file__).parents[1] / "golden" / "foreign.npz"
CLASSES = torch.tensor([1, 4, 0])
SIZE = {"img_resolution": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}
NEW = {**SIZE, "img_channels": 3, "learned_variance": True, "model_channels": 128}
OLD = {**NEW, "residual_resampling": False, "num_heads": 4}
COSINE = {"schedule": "cosine", "M": 4000}
ADM = {
    "adm_new_order": ({"classes": 5}, {**NEW, "label_dim": 5, "schedule": "cosine"}),
    "adm": ({}, NEW),
    "adm_heads": ({"classes": 5}, {**NEW, "label_dim": 5, "num_heads": 4}),
    "improved": ({"old": True}, {**OLD, **COSINE, "timestep_scale": 0.25}),
    "improved_cond": ({"old": True, "classes": 5}, {**OLD, **COSINE, "label_dim": 5}),
    "improved_lsun": ({"old": True, "scale_shift": False}, {**OLD, "num_heads": 1, "adaptive_scale": False}),
}
SONG = {**SIZE, "img_channels": 3, "model_type": "SongUNet", "model_channels": 16}
NCSNPP = {**SONG, "channel_mult": [1, 2, 2], "embedding_type": "fourier", "channel_mult_noise": 2}
NCSNPP["resample_filter"] = [1, 3, 3, 1]
SDE = {
    "vp": ("none", "VPPrecond", SONG),
    "ve": ("residual", "VEPrecond", {**NCSNPP, "encoder_type": "residual"}),
    "ve_skip": ("skip", "VEPrecond", {**NCSNPP, "encoder_type": "skip", "decoder_type": "skip"}),
}
EDM2 = {
    "edm2": (3, 5, {}),
    "edm2_latents": (
        4,
        0,
        {
            "label_balance": 0.3,
            "concat_balance": 0.4,
            "res_balance": 0.2,
            "attn_balance": 0.4,
            "clip_act": 1.5,
            "resample_filter": [1, 3, 3, 1],
        },
    ),
}


@cache
def adm_state(name):
    return files.weights(files.adm(8, 128, (1, 2), 1, (4,), **ADM[name][0]))


def score_sde_state(name):
    """A checkpoint whose model has other weights than their averages, in a wrapper of several devices."""
    pyramid, _, kwargs = SDE[name]
    averages = files.weights(files.score_sde(8, 16, tuple(kwargs["channel_mult"]), 1, (4,), pyramid))
    raw = {key: average if key == "all_modules.0.W" else average + 0.1 for key, average in averages.items()}
    sigmas = torch.logspace(np.log10(380 if name == "ve_skip" else 50), -2, 1000, dtype=torch.float64)
    shadow = [average for key, average in averages.items() if key != "all_modules.0.W"]  # what is not trained
    return {
        "optimizer": {"state": {0: {"step": 5, "exp_avg": shadow[0]}}, "param_groups": [{"betas": (0.9, 0.999)}]},
        "model": files.state_dict({f"module.{key}": raw[key] for key in raw} | {"module.sigmas": sigmas}),
        "ema": {"decay": 0.9999, "num_updates": 5, "shadow_params": shadow},
        "step": 5,
    }


def edm2_snapshot(name):
    channels, classes, more = EDM2[name]
    tensors = files.weights(files.edm2(8, channels, classes, 64, (1, 2), 1, (4,)))
    kwargs = {**SIZE, "model_channels": 64, "img_channels": channels, "label_dim": classes, **more}
    return files.edm2_snapshot({key: tensor.half() for key, tensor in tensors.items()}, **kwargs)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes the file of a small network of a name above, and lets the readers know that network."""
    monkeypatch.setattr(adm, "PUBLISHED", {(name,): kwargs for name, (_, kwargs) in ADM.items()})
    monkeypatch.setattr(adm, "_QUERIES_FIRST", ("adm_new_order",))
    monkeypatch.setattr(score_sde, "PUBLISHED", {(name,): (kind, kwargs) for name, (_, kind, kwargs) in SDE.items()})

    def write(name):
        if name in ADM:  # the shapes of two are the same
            monkeypatch.setattr(adm, "PUBLISHED", {(name,): ADM[name][1]})
            path, data = tmp_path / "ema_0.9999_500000.pt", files.saved(files.state_dict(adm_state(name)))
        elif name in SDE:
            path, data = tmp_path / "checkpoint_8.pth", files.saved(score_sde_state(name))
        else:
            path, data = tmp_path / "edm2-img64-s-1073741-0.075.pkl", edm2_snapshot(name)
        path.write_bytes(data)
        return path

    return write


def assert_golden(model, name):
    with np.load(GOLDEN) as golden:
        sigma, out = torch.from_numpy(golden[f"{name}/sigma"]), torch.from_numpy(golden[f"{name}/out"]).double()
    variance = 0.25 if name in EDM2 else 1
    base = files.weight(f"x {name}", (out.numel(),)).reshape(out.shape).double()
    x = base * (variance + sigma**2).sqrt()[:, None, None, None]
    given = model(x, sigma, CLASSES if model.label_dim else None)
    # What the network says is the change of x by the noise level; the tables of levels are float32.
    error = (given - out).flatten(1).norm(dim=1) / (x - out).flatten(1).norm(dim=1)
    assert error.max() < 2e-5


@pytest.mark.filterwarnings("ignore:.*is taken for")
@pytest.mark.parametrize("name", [*ADM, *SDE, *EDM2])
def test_the_network_is_that_of_the_project(name, write, tmp_path):
    checkpoint = read_checkpoint(write(name))
    assert_golden(checkpoint.build(), name)
    write_safetensors(checkpoint, tmp_path / "out.safetensors")
    again = read_checkpoint(tmp_path / "out.safetensors")
    assert again.metadata == {**checkpoint.metadata, "source_sha256": checkpoint.sha256}
    assert_golden(again.build(), name)


GUIDED = {"attention": (32, 16, 8)}
IMPROVED = {"attention": (16, 8), "old": True}
SIZES = {
    "64x64_diffusion.pt": {**GUIDED, "size": 64, "width": 192, "mult": (1, 2, 3, 4), "blocks": 3, "classes": 1000},
    "128x128_diffusion.pt": {
        **GUIDED,
        "size": 128,
        "width": 256,
        "mult": (1, 1, 2, 3, 4),
        "blocks": 2,
        "classes": 1000,
    },
    "256x256_diffusion.pt": {
        **GUIDED,
        "size": 256,
        "width": 256,
        "mult": (1, 1, 2, 2, 4, 4),
        "blocks": 2,
        "classes": 1000,
    },
    "256x256_diffusion_uncond.pt": {**GUIDED, "size": 256, "width": 256, "mult": (1, 1, 2, 2, 4, 4), "blocks": 2},
    "512x512_diffusion.pt": {
        **GUIDED,
        "size": 512,
        "width": 256,
        "mult": (0.5, 1, 1, 2, 2, 4, 4),
        "blocks": 2,
        "classes": 1000,
    },
    "cifar10_uncond_50M_500K.pt": {**IMPROVED, "size": 32, "width": 128, "mult": (1, 2, 2, 2), "blocks": 3},
    "imagenet64_uncond_100M_1500K.pt": {**IMPROVED, "size": 64, "width": 128, "mult": (1, 2, 3, 4), "blocks": 3},
    "imagenet64_cond_270M_250K.pt": {
        **IMPROVED,
        "size": 64,
        "width": 192,
        "mult": (1, 2, 3, 4),
        "blocks": 3,
        "classes": 1000,
    },
    "lsun_uncond_100M_1200K_bs128.pt": {
        "size": 256,
        "width": 128,
        "mult": (1, 1, 2, 2, 4, 4),
        "blocks": 2,
        "attention": (16,),
        "old": True,
        "scale_shift": False,
    },
}
# What each project's README says of them: millions of parameters.
PARAMETERS = {"64x64_diffusion.pt": 296, "128x128_diffusion.pt": 422, "256x256_diffusion.pt": 554}
PARAMETERS |= {"512x512_diffusion.pt": 559, "imagenet64_cond_270M_250K.pt": 273}


def assert_whole(found):
    """The state is all of a network's, by names and shapes."""
    with torch.device("meta"):
        expected = DENOISERS[found.class_name](**found.init_kwargs).state_dict()
    assert {key: tensor.shape for key, tensor in found.state.items()} == {key: t.shape for key, t in expected.items()}


@pytest.mark.parametrize("name", SIZES)
def test_published_networks_of_openai_are_known_by_their_tensors(name):
    shapes = files.adm(**SIZES[name])
    found = adm.read(files.meta(shapes), Path(name))
    assert name in found.metadata["taken_for"].split(" or ")
    assert found.init_kwargs["img_resolution"] == SIZES[name]["size"]
    assert found.format == (adm.IMPROVED if SIZES[name].get("old") else adm.GUIDED)
    assert_whole(found)
    if name in PARAMETERS:
        assert round(sum(np.prod(shape) for shape in shapes.values()) / 1e6) == PARAMETERS[name]


@pytest.mark.filterwarnings("ignore:.*is taken for")
@pytest.mark.parametrize(
    ("folder", "rule"),
    {
        "vp/cifar10_ddpmpp_continuous": (32, 128, (1, 2, 2, 2), 4),
        "vp/cifar10_ddpmpp_deep_continuous": (32, 128, (1, 2, 2, 2), 8),
        "ve/cifar10_ncsnpp_continuous": (32, 128, (1, 2, 2, 2), 4, (16,), "residual"),
        "ve/cifar10_ncsnpp_deep_continuous": (32, 128, (1, 2, 2, 2), 8, (16,), "residual"),
        "ve/church_ncsnpp_continuous": (256, 128, (1, 1, 2, 2, 2, 2, 2), 2, (16,), "skip"),
        "ve/ffhq_1024_ncsnpp_continuous": (1024, 16, (1, 2, 4, 8, 16, 32, 32, 32), 1, (16,), "skip"),
    }.items(),
    ids=str,
)
def test_published_networks_of_score_sde_are_known_by_their_tensors(folder, rule):
    tensors = files.meta(files.score_sde(*rule))
    averages = [tensor for key, tensor in tensors.items() if key != "all_modules.0.W"]
    found = score_sde.read({**tensors, "sigmas": torch.tensor([50.0, 1.0, 0.01])}, averages, Path("checkpoint_8.pth"))
    assert folder in found.metadata["taken_for"].split(" or ")
    assert found.init_kwargs["img_resolution"] == rule[0]
    assert "weights" not in found.metadata
    if folder.startswith("ve"):  # its data are of 0 to 1
        assert (found.init_kwargs["sigma_min"], found.init_kwargs["sigma_max"]) == (0.02, 100.0)
    assert_whole(found)


@pytest.mark.parametrize(
    ("size", "channels", "classes", "width"), [(64, 4, 1000, 128), (64, 4, 0, 128), (64, 3, 1000, 192)]
)
def test_published_networks_of_edm2_have_these_tensors(size, channels, classes, width):
    shapes = files.edm2(size, channels, classes, width, (1, 2, 3, 4), 3, (16, 8))
    kwargs = {"img_resolution": size, "img_channels": channels, "label_dim": classes, "model_channels": width}
    with torch.device("meta"):
        model = DENOISERS["EDM2Precond"](**kwargs)
    ours = {f"unet.{key.removeprefix('model.')}": tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert ours == {key: shape for key, shape in shapes.items() if not key.startswith("logvar")}


# What a file does not say, is said.


def test_raw_weights_are_named(write):
    path = write("ve")
    path.write_bytes(files.saved({"model": score_sde_state("ve")["model"]}))
    assert read_checkpoint(path).metadata["weights"].startswith("raw")


@pytest.mark.parametrize(("name", "raw"), [("model500000.pt", True), ("ema_0.9999_500000.pt", False)])
def test_raw_weights_of_openai_are_named(name, raw):
    found = adm.read(files.meta(files.adm(**SIZES["cifar10_uncond_50M_500K.pt"])), Path(name))
    assert found.metadata.get("weights", "").startswith("raw") is raw


def test_the_sde_is_not_in_the_file(write, tmp_path):
    path = write("vp")
    with pytest.warns(UserWarning, match="is taken for a model of the VP SDE; one of the sub-VP SDE has the same"):
        read_checkpoint(path)
    (tmp_path / "subvp").mkdir()
    with pytest.raises(InputError, match="models of the sub-VP SDE are not read"):
        read_checkpoint(path.rename(tmp_path / "subvp" / path.name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: [state.pop(key) for key in list(state) if key.startswith("output")], "it is a classifier"),
        (lambda state: state.update({"input_blocks.0.0.weight": torch.ones(128, 6, 3, 3)}), "it is an upsampler"),
        (lambda state: state.update({"out.2.weight": torch.ones(3, 128, 3, 3)}), "nor are consistency models"),
        (lambda state: state.update({"time_embed.0.weight": torch.tensor(1.0)}), "of none of their diffusion models"),
        (lambda state: state.update(more=torch.ones(1)), "of none of their diffusion models"),
        (lambda state: state.pop("out.2.bias"), "of none of their diffusion models"),
    ],
)
def test_other_networks_of_openai_are_refused(change, message):
    state = files.meta(files.adm(**SIZES["cifar10_uncond_50M_500K.pt"]))
    change(state)
    with pytest.raises(UnreadableError, match=message):
        adm.read(state, Path("a.pt"))


def changed(change):
    def make():
        state = score_sde_state("ve")
        change(state)
        return state

    return make


REFUSED = {
    "other network": (
        changed(lambda state: state["model"].pop("module.all_modules.5.Conv_0.bias")),
        "none of those that load: vp, ve, ve_skip",
    ),
    "averages of another": (
        changed(lambda state: state["ema"]["shadow_params"].pop()),
        "its averages, in ema, are not of the weights in model",
    ),
    "averages of nothing": (changed(lambda state: state["ema"]["shadow_params"].clear()), "its averages"),
    "averages that are none": (
        changed(lambda state: state["ema"]["shadow_params"].append("all")),
        "are a state dict without the network they belong to",
    ),
    "no levels": (changed(lambda state: state["model"].pop("module.sigmas")), "it has no sigmas"),
    "bad levels": (
        changed(lambda state: state["model"].update({"module.sigmas": torch.tensor([-1.0, 5.0])})),
        "it has no sigmas",
    ),
    "network of diffusers": (lambda: {"down_blocks.0.x": torch.ones(1)}, "give their folder"),
    "another": (
        lambda: {"layer.weight": torch.ones(1)},
        "such as layer.weight, are a state dict without .* or one of EDM2, guided-diffusion",
    ),
    "empty": (lambda: {}, "holds no network as ema or net; give the file"),
    "optimizer": (lambda: {"state": {}, "param_groups": []}, "holds no network as ema or net; give the file"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_load_is_told_in_a_sentence(make, message, write, tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(files.saved(make()))
    with pytest.raises(InputError, match=message) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_tensors_that_share_memory_are_refused(tmp_path):
    tensor = torch.zeros(1000)
    (tmp_path / "a.pt").write_bytes(files.saved({str(index): tensor for index in range(100)}))
    with pytest.raises(InputError, match="share memory"):
        read_checkpoint(tmp_path / "a.pt")


def test_state_dicts_may_come_as_safetensors(write, tmp_path):
    write("adm")
    save_file(adm_state("adm"), tmp_path / "a.safetensors")
    assert_golden(load_model(tmp_path / "a.safetensors"), "adm")
    save_file({"x": torch.ones(1)}, tmp_path / "b.safetensors")
    with pytest.raises(
        InputError, match="has no format restart-sampling/1, and its 1 tensors, such as x, are a state dict"
    ):
        read_checkpoint(tmp_path / "b.safetensors")


def test_latents_are_no_images(write, tmp_path):
    first = write("edm2_latents")
    write_safetensors(read_checkpoint(first), tmp_path / "out.safetensors")
    for path in (first, tmp_path / "out.safetensors"):
        with pytest.raises(InputError, match="makes latents of the VAE stabilityai/sd-vae-ft-mse, and no images"):
            generate(load_model(path), "2", [0])
    assert load_model(write("edm2")).latents is None


# DDPM's levels.


def test_the_cosine_schedule_is_that_of_iddpm():
    options = {**SIZE, "img_channels": 3, "model_channels": 8}
    u = DDPMPrecond(schedule="cosine", **options).u
    torch.testing.assert_close(u, iDDPMPrecond(**options).u[:-1].flip(0), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("schedule", "name"), [("linear", "linear"), ("scaled_linear", "scaled_linear"), ("cosine", "squaredcos_cap_v2")]
)
def test_levels_are_those_of_diffusers(schedule, name):
    diffusers = pytest.importorskip("diffusers")
    options = {"beta_start": 0.0002, "beta_end": 0.03}
    alphas = diffusers.DDPMScheduler(500, beta_schedule=name, **options).alphas_cumprod.double()
    model = DDPMPrecond(schedule=schedule, M=500, **options, **SIZE, img_channels=3, model_channels=8)
    torch.testing.assert_close(model.u.double(), (1 / alphas - 1).sqrt(), rtol=2e-4, atol=0)
    assert (model.sigma_min, model.sigma_max) == pytest.approx((model.u[0].item(), model.u[-1].item()))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_each_prediction_gives_the_data(prediction):
    model = DDPMPrecond(prediction=prediction, timestep_scale=0.5, **SIZE, img_channels=3, model_channels=8)
    timesteps = torch.tensor([3, 500, 999])
    sigma = model.u[timesteps].double()
    assert torch.equal(model.round_sigma(1.0001 * sigma), sigma)
    x0, noise = torch.randn(2, 3, 3, 8, 8, dtype=torch.float64)
    scale = (1 + sigma**2).rsqrt()[:, None, None, None]
    level = sigma[:, None, None, None]

    def network(x, time, *_):
        assert torch.equal(time, 0.5 * timesteps.double())
        torch.testing.assert_close(x.double(), scale * (x0 + level * noise), rtol=1e-5, atol=1e-5)
        return {"epsilon": noise, "v_prediction": scale * (noise - level * x0), "sample": x0}[prediction]

    model.model.forward = network
    torch.testing.assert_close(model(x0 + level * noise, sigma), x0)


@pytest.mark.parametrize(("option", "value"), [("schedule", "sigmoid"), ("prediction", "score")])
def test_unknown_words_are_refused(option, value):
    with pytest.raises(InputError, match=f"{option} is '{value}'; it can be one of"):
        DDPMPrecond(**{option: value}, **SIZE, img_channels=3)


# Folders of diffusers.


@pytest.fixture(scope="module")
def unet():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    ).eval()


@pytest.fixture
def folder(unet, tmp_path):
    """A folder as diffusers saves it, with what is changed in its two configurations."""

    def folder(network=(), scheduler=(), prediction="epsilon"):
        import diffusers

        schedule = diffusers.DDPMScheduler(prediction_type=prediction)
        diffusers.DDPMPipeline(unet, schedule).save_pretrained(tmp_path / "ddpm")
        for name, changes in (("unet/config.json", network), ("scheduler/scheduler_config.json", scheduler)):
            path = tmp_path / "ddpm" / name
            path.write_text(json.dumps({**json.loads(path.read_text()), **dict(changes)}))
        return tmp_path / "ddpm"

    return folder


def as_before(folder):
    """Moves the files to where old versions had them, and gives the layers of attention their old names."""
    for part in ("unet", "scheduler"):
        for file in (folder / part).iterdir():
            file.rename(folder / file.name)
        (folder / part).rmdir()
    state = load_file(folder / "diffusion_pytorch_model.safetensors")
    for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        state = {key.replace(new, old): tensor for key, tensor in state.items()}
    assert any("mid_block.attentions.0.query" in key for key in state)
    torch.save(state, folder / "diffusion_pytorch_model.bin")
    (folder / "diffusion_pytorch_model.safetensors").unlink()


@torch.no_grad()
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("old", [False, True])
def test_a_folder_of_diffusers_gives_what_diffusers_gives(prediction, old, unet, folder, tmp_path):
    path = folder(prediction=prediction)
    if old:
        as_before(path)
    checkpoint = read_checkpoint(path)
    model = checkpoint.build()
    t = torch.tensor([40, 500, 980])
    import diffusers

    scheduler = diffusers.DDPMScheduler(prediction_type=prediction, clip_sample=False)
    x = torch.randn(3, 3, 8, 8)
    answers = unet(x, t).sample
    steps = [scheduler.step(answers[i : i + 1], t[i], x[i : i + 1]).pred_original_sample for i in range(3)]
    a = scheduler.alphas_cumprod[t].double()
    given = model(x / a.sqrt()[:, None, None, None], (1 / a - 1).sqrt())
    torch.testing.assert_close(given.float(), torch.cat(steps), rtol=1e-3, atol=1e-3)
    assert checkpoint.format == "diffusers"
    write_safetensors(checkpoint, tmp_path / "out.safetensors")
    assert torch.equal(load_model(tmp_path / "out.safetensors")(x, torch.ones(3)), model(x, torch.ones(3)))


def test_identities_of_folders_tell_schedules_apart(folder):
    first = read_checkpoint(folder())
    assert first.sha256 == read_checkpoint(folder()).sha256
    assert first.sha256 != read_checkpoint(folder(scheduler={"beta_end": 0.03})).sha256


@pytest.mark.parametrize(
    ("network", "scheduler", "message"),
    [
        (
            {"_class_name": "UNet2DConditionModel"},
            {},
            "its network is a UNet2DConditionModel, and can be a UNet2DModel",
        ),
        ({"sample_size": None}, {}, "sample_size None"),
        ({"in_channels": True, "out_channels": 1}, {}, "in_channels True"),
        ({}, {"beta_start": True}, "beta_start is True, and true and false are no numbers"),
        ({"in_channels": 4, "out_channels": 4}, {}, "in_channels 4"),
        ({"time_embedding_type": "fourier"}, {}, "not asked with timesteps"),
        ({"num_class_embeds": 10}, {}, "takes classes"),
        ({"colour": 3}, {}, "do not make a DDPMPrecond: .*colour"),
        ({"layers_per_block": 3}, {}, "its tensors are not those"),
        (
            {},
            {"_class_name": "ScoreSdeVeScheduler", "beta_schedule": None},
            "its ScoreSdeVeScheduler has the beta_schedule",
        ),
        ({}, {"beta_schedule": "sigmoid"}, "the beta_schedule sigmoid, and can have linear"),
        ({}, {"trained_betas": [0.1]}, "betas of its own"),
        ({}, {"rescale_betas_zero_snr": True}, "betas of its own"),
        ({}, {"prediction_type": "flow"}, "prediction is 'flow'"),
    ],
)
def test_folders_that_do_not_fit(network, scheduler, message, folder):
    with pytest.raises(InputError, match=message) as caught:
        load_model(folder(network, scheduler))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: (path / "vae").mkdir(), "of latents"),
        (
            lambda path: (path / "unet" / "diffusion_pytorch_model.safetensors").unlink(),
            "it has no diffusion_pytorch_model",
        ),
        (lambda path: (path / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"{"), "is damaged"),
        (lambda path: (path / "unet" / "config.json").write_text("{"), "config.json is damaged"),
        (lambda path: (path / "unet" / "config.json").write_text("[" * 100_000), "config.json is damaged"),
        (lambda path: (path / "scheduler" / "scheduler_config.json").write_text("[]"), "it is no object"),
        (
            lambda path: (path / "scheduler" / "scheduler_config.json").unlink(),
            "it has no scheduler_config.json; give the folder",
        ),
    ],
)
def test_damaged_folders(change, message, folder):
    path = folder()
    change(path)
    with pytest.raises(InputError, match=message):
        read_checkpoint(path)


# The commands, and the table of what loads.


@pytest.mark.filterwarnings("ignore:.*is taken for")
@pytest.mark.parametrize("name", ["adm", "vp", "edm2", "diffusers"])
def test_the_commands_take_them(name, write, folder, tmp_path, run):
    path = folder() if name == "diffusers" else write(name)
    code, out, _ = run("model", "inspect", path, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["format"] in FORMATS
    assert facts["resolution"] == 8
    assert run("model", "convert", path, tmp_path / "out.safetensors")[0] == 0
    for source, place in ((path, "one"), (tmp_path / "out.safetensors", "two")):
        words = ("--model", source, "--plan", "2", "--seeds", "0-1", "--device", "cpu", "--out", tmp_path / place)
        code, _, err = run("generate", *words)
        assert code == 0, err
    first, second = (sorted((tmp_path / place).rglob("*.png")) for place in ("one", "two"))
    assert len(first) == 2
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_the_table_in_the_documentation_is_what_loads():
    page = (Path(__file__).parents[2] / "docs" / "files.md").read_text()
    table = page.split("| format | files |")[1].split("\n\n")[0]
    rows = dict(re.findall(r"^\| `(.+?)` \| (.+) \|$", table, re.MULTILINE))
    assert rows.keys() == set(FORMATS)
    openai = {adm.GUIDED: set(), adm.IMPROVED: set()}
    for names, kwargs in adm.PUBLISHED.items():
        openai[adm.IMPROVED if "residual_resampling" in kwargs else adm.GUIDED] |= set(names)
    for project, names in {**openai, "score_sde": set(chain(*score_sde.PUBLISHED))}.items():
        assert set(re.findall(r"`([^`]+)`", rows[project])) == names
