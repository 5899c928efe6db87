"""What holds on an accelerator: the same numbers as on the CPU, no waiting inside the loop, and the image of a seed."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

import restart_sampling as rs
from restart_sampling.evaluation.collect import Features
from restart_sampling.evaluation.metrics import METRICS, compute_metrics
from restart_sampling.evaluation.reference import Reference
from restart_sampling.evaluation.statistics import Moments, statistics_of
from restart_sampling.models.graphed import GraphedNetwork
from restart_sampling.models.guidance import guided_by_class
from restart_sampling.models.preconditionings import DENOISERS
from restart_sampling.sampling import noise as noise_module
from restart_sampling.sampling.noise import Stream, noise

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True)
def full_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.fixture(scope="module")
def bundled():
    return rs.load_model("cifar10-small", device="cuda")


def images(model, plan, seeds, **options):
    return torch.cat([batch.images for batch in rs.generate(model, plan, seeds, **options)]).int()


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("network_*.npz")), ids=lambda path: path.stem)
def test_golden_networks(file):
    with np.load(file) as data:
        config = json.loads(str(data["config"]))
        state = {key.removeprefix("state/"): torch.from_numpy(data[key]) for key in data.files if "state/" in key}
        x, sigma, labels, out = (torch.from_numpy(data[key]).cuda() for key in ("x", "sigma", "labels", "out"))
    model = DENOISERS[config["class_name"]](**config["init_kwargs"])
    model.load_state_dict(state)
    with torch.no_grad():
        got = model.cuda().eval()(x, sigma, labels if labels.numel() else None)
    assert (got - out).norm() / out.norm() < 1e-4


def test_metrics_are_those_of_the_cpu():
    x, y = (torch.randn(count, 32, generator=torch.Generator().manual_seed(count)) for count in (1500, 1200))
    moments, classes = Moments(32, 10), torch.arange(1500) % 3
    moments.add(x, (torch.arange(1500) % 10).tolist())
    features = Features(x, classes)
    reference = Reference(statistics_of(y), features=y, labels=classes[:1200])
    cpu, gpu = (
        compute_metrics([*METRICS], moments, features, reference, 1, device=torch.device(name))
        for name in ("cpu", "cuda")
    )
    assert cpu.keys() == gpu.keys()
    assert (gpu["precision"], gpu["recall"]) == (cpu["precision"], cpu["recall"])
    for key, value in cpu.items():
        assert gpu[key] == pytest.approx(value, rel=1e-7, abs=1e-9), key


def test_noise_is_that_of_the_cpu():
    seeds = torch.tensor([0, 1, 2**40 + 3])
    torch.testing.assert_close(noise(seeds.cuda(), 5, 1001).cpu(), noise(seeds, 5, 1001), rtol=0, atol=1e-12)


def test_noise_in_one_launch_is_noise_in_many(monkeypatch):
    seeds = torch.tensor([0, 1, 2**40 + 3, 2**63 - 1]).cuda()
    cases = [(draw, count, stream) for draw in (0, 1, 16) for count in (1, 1001, 3072) for stream in Stream]
    fused = [noise(seeds, *case) for case in cases]
    monkeypatch.setattr(noise_module, "_has_triton", lambda: False)
    for case, one in zip(cases, fused, strict=True):
        torch.testing.assert_close(one, noise(seeds, *case), rtol=0, atol=1e-14)


def test_noise_of_a_seed_is_the_same_in_any_batch_bit_for_bit():
    seeds = torch.arange(64).cuda()
    whole = noise(seeds, 3, 3072)
    for size in (1, 7):
        assert torch.equal(torch.cat([noise(part, 3, 3072) for part in seeds.split(size)]), whole)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("kernel", [rs.GaussianNoise, lambda *a, **k: rs.PFGMppNoise(*a, **k, D=256)])
def test_nothing_in_the_loop_waits_for_the_device(bundled, kernel):
    kernel = kernel(range(4), device="cuda")
    x = kernel.start((3, 32, 32), 80.0)
    labels = kernel.labels(10)
    path = rs.Plan.parse("4 [2,1,1.09,3.2] churn=1").path()
    denoise = guided_by_class(bundled, labels, 1.5)
    rs.follow(denoise, x, path, perturb=kernel)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        rs.follow(denoise, x, path, perturb=kernel)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_nothing_in_a_net_of_ones_own_waits_for_the_device():
    alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    y = torch.ones(4, 1, 1, 1, dtype=torch.float16, device="cuda")
    net = rs.from_eps(lambda x, t, y: x * y, alphas_cumprod, clip=True, dtype=torch.float16, device="cuda")
    net = rs.guided(net, 1.5, unconditional={"y": 0 * y})
    first, second = (rs.steps(net, "4 [2,1,1.09,3.2] solver=midpoint", range(4), (3, 8, 8), y=y) for _ in range(2))
    list(first)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(second)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_image_of_a_seed_in_batches_of_1_7_and_64(bundled):
    whole = images(bundled, "cifar10-small-43", range(64), batch_size=64)
    for batch_size in (1, 7):
        difference = (images(bundled, "cifar10-small-43", range(64), batch_size=batch_size) - whole).abs()
        assert difference.max() <= 1
        assert (difference > 0).double().mean() < 1e-3


def test_the_image_of_a_seed_is_that_of_the_cpu(bundled):
    plan = "6 [3,1,1.09,3.2]"
    cpu = images(rs.load_model("cifar10-small"), plan, range(8))
    difference = (images(bundled, plan, range(8)) - cpu).abs()
    assert difference.max() <= 1
    assert (difference > 0).double().mean() < 1e-3


def test_exact_images_have_the_same_bits_at_every_run(bundled):
    first, second = (images(bundled, "4 churn=2", range(64), exact=True) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_draws_nearly_the_same_images(bundled, dtype):
    exact = images(bundled, "cifar10-small-43", range(64))
    model = rs.fast(rs.load_model("cifar10-small", device="cuda"), dtype)
    difference = (images(model, "cifar10-small-43", range(64)) - exact).abs().double()
    assert difference.mean() < (1.5 if dtype == torch.float16 else 6)


@pytest.mark.filterwarnings("ignore")  # of torch.compile's own
def test_a_compiled_network_draws_the_same_images_and_serves_smaller_batches(bundled):
    model = rs.fast(rs.load_model("cifar10-small", device="cuda"), torch.float16, compiled=True)
    eager = rs.fast(rs.load_model("cifar10-small", device="cuda"), torch.float16)
    plan = "6 [3,2,1.09,3.2] solver=dpmpp_2m"  # remembers what earlier calls returned
    compiled = images(model, plan, range(40), batch_size=32, guidance=1.5)
    assert model.model.batch == 64
    difference = (compiled - images(eager, plan, range(40), batch_size=32, guidance=1.5)).abs().double()
    assert difference.mean() < 1.5


SMALL = {"model_channels": 64, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [8]}


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("SongUNet", {}),
        ("SongUNet", {"encoder_type": "residual", "embedding_type": "fourier", "resample_filter": [1, 3, 3, 1]}),
        ("SongUNet", {"encoder_type": "skip", "decoder_type": "skip"}),
        ("DhariwalUNet", {"model_channels": 192}),
        ("DhariwalUNet", {"adaptive_scale": False, "residual_resampling": False}),
    ],
)
def test_the_kernels_between_convolutions_compute_what_torch_does(model_type, options):
    torch.manual_seed(0)
    model = DENOISERS["EDMPrecond"](img_resolution=16, img_channels=3, model_type=model_type, **SMALL | options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    model = model.cuda().eval().requires_grad_(False)
    x = torch.randn(5, 3, 16, 16, device="cuda", dtype=torch.float64) + 3
    sigma = torch.full((5,), 2.0, device="cuda", dtype=torch.float64)
    exact = model(x, sigma)
    eager = (model.half()(x, sigma) - exact).norm() / exact.norm()
    model = rs.fast(model, torch.float16)
    assert (model(x, sigma) - exact).norm() / exact.norm() < 1.5 * eager
    x.requires_grad_()
    assert torch.autograd.grad(model(x, sigma).sum(), x)[0].abs().min() > 0


def test_an_empty_cache_of_kernels_is_filled_before_the_first_call(monkeypatch, tmp_path):
    from triton import knobs

    from restart_sampling.models import kernels

    compiled = []
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(knobs.compilation, "listener", lambda src, **_: compiled.append(src.name))
    for kernel in (kernels._normalize, kernels._add, kernels._resample):
        monkeypatch.setattr(kernel, "device_caches", defaultdict(kernel.create_binder))
    model = rs.fast(rs.load_model("cifar10-small", device="cuda"), torch.float16)
    assert {*compiled} == {"_normalize", "_add", "_resample"}
    compiled.clear()
    x = torch.randn(3, 3, 32, 32, device="cuda", dtype=torch.float64)
    model(x, torch.full((3,), 2.0, device="cuda", dtype=torch.float64))
    assert not compiled


def test_a_graph_draws_the_same_images_and_leaves_other_batches_to_the_network(bundled):
    model = rs.fast(rs.load_model("cifar10-small", device="cuda"), torch.float16)
    expected = images(model, "6 [3,2,1.09,3.2] solver=dpmpp_2m", range(72), batch_size=32)
    model.model = GraphedNetwork(model.model, 32)
    assert torch.equal(images(model, "6 [3,2,1.09,3.2] solver=dpmpp_2m", range(72), batch_size=32), expected)
