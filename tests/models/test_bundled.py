"""The models that come with the package: each with its card and a default plan, and trained, not only loadable."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import restart_sampling as rs
from restart_sampling.base.files import sha256
from restart_sampling.cli.sampler_options import pick_plan
from restart_sampling.models.by_name import BUNDLED
from restart_sampling.models.default_plans import DEFAULT_PLANS
from restart_sampling.models.read_checkpoint import read_checkpoint
from restart_sampling.models.resolve import resolve
from restart_sampling.sampling.net_plan import net_path

# Class, number of classes, D.
FACTS = {
    "cifar10-small": ("EDMPrecond", 10, None),
    "cifar10-vp-small": ("VPPrecond", 0, None),
    "cifar10-pfgmpp-small": ("EDMPrecond", 0, 2048),
}


@pytest.mark.parametrize("name", BUNDLED)
def test_each_says_what_it_is(name):
    checkpoint = read_checkpoint(resolve(name))
    kwargs = checkpoint.init_kwargs
    assert (checkpoint.class_name, kwargs["label_dim"], checkpoint.D) == FACTS[name]
    assert (kwargs["img_resolution"], kwargs["img_channels"]) == (32, 3)
    assert {tensor.dtype for tensor in load_file(resolve(name)).values()} == {torch.int8, torch.float16, torch.float32}
    assert sha256(resolve(name)) in resolve(name).with_suffix(".md").read_text()
    assert "CIFAR-10" in resolve(name).with_suffix(".md").read_text()


def test_they_load_without_torch_compile():
    code = "import sys, restart_sampling as rs; rs.load_model('cifar10-small'); print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_each_has_a_default_plan_that_fits():
    assert DEFAULT_PLANS.keys() == BUNDLED.keys()
    for name in BUNDLED:
        plan = pick_plan(None, (), name)
        assert net_path(rs.load_model(name), plan).nfe(*plan.solvers) in (19, 20)


@pytest.fixture(scope="module")
def drawn():
    """Images of the same seeds by both unconditional models, -1 to 1."""
    images = {}
    for name in ("cifar10-vp-small", "cifar10-pfgmpp-small"):
        batches = rs.generate(rs.load_model(name), "8 solver=unipc:p=3", range(4), batch_size=4)
        images[name] = torch.cat([batch.images for batch in batches]).double() / 127.5 - 1
    return images


def test_vp_and_pfgmpp_draw_the_same_images_of_the_same_seeds(drawn):
    """The ODE of the data is one, whatever the parametrization; two trained networks have to be close to it."""
    first, second = (images.flatten(1) for images in drawn.values())
    pairs = zip(first, second, strict=True)
    assert min(torch.corrcoef(torch.stack(pair))[0, 1].item() for pair in pairs) > 0.85
    strangers = zip(first, second.roll(1, dims=0), strict=True)
    assert max(torch.corrcoef(torch.stack(pair))[0, 1].item() for pair in strangers) < 0.7


@pytest.mark.parametrize(("sigma", "error"), [(0.1, 0.06), (0.5, 0.18), (2.0, 0.36)])
def test_each_removes_noise(sigma, error, drawn):
    clean = drawn["cifar10-pfgmpp-small"]
    noise = torch.randn(clean.shape, dtype=clean.dtype, generator=torch.Generator().manual_seed(0))
    for name in BUNDLED:
        out = rs.load_model(name)(clean + sigma * noise, torch.full((len(clean),), sigma, dtype=torch.float64))
        assert (out - clean).std() < error, name
