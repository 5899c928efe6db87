"""The bundled pipeline on a device: compiled, in half precision, in batches; on the CPU as far as that can be seen."""

from contextlib import contextmanager, nullcontext

import pytest
import torch
from scheduler_runs import FLOW_PLAN, PLAN, start
from tiny_pipelines import SD

from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler
from restart_sampling.text_to_image.drawing import Request, prepare
from restart_sampling.text_to_image.pipeline import load_pipeline
from restart_sampling.text_to_image.samplers import Sampler

CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
)
SAMPLERS = ["restart:6 [3,2,0.5,2.0]", "restart-dpmpp:6 [3,1,0.5,2.0]"]
PROMPTS = [f"a photo of a {what}" for what in ("red truck", "green frog", "white dog", "blue ship")] * 2


@pytest.fixture(scope="module")
def bundled():
    loaded = {}

    def bundled(device, dtype):
        if (device, dtype) not in loaded:
            loaded[device, dtype] = load_pipeline("tiny-text-to-image", torch.device(device), dtype)
        return loaded[device, dtype]

    return bundled


def prepared(model, sampler, batch):
    return prepare(model, Request(Sampler.parse(sampler), 3.0), PROMPTS, batch)


def pictures(drawing):
    return torch.cat([batch.images for batch in drawing.draw(range(len(PROMPTS)))]).int()


@contextmanager
def unsynchronized(device):
    """In the body nothing may wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("solver", ["heun", "dpmpp_2m", "sde_dpmpp_2m"])
@pytest.mark.parametrize("seeded", [True, False])
@pytest.mark.parametrize("class_", [RestartScheduler, FlowMatchRestartScheduler])
def test_steps_in_half_precision_wait_for_nothing_and_end_near_those_in_float32(class_, seeded, solver, dtype, device):
    """The first of a run alone waits, to look for edits of the timesteps."""
    flow = class_ is FlowMatchRestartScheduler
    settings = {"restart": FLOW_PLAN if flow else PLAN, "solver": solver, "restart_budget": "extra"}
    ends = []
    for precision, watched in ((torch.float32, nullcontext), (dtype, unsynchronized)):  # the first compiles the noise
        scheduler = class_(**settings) if flow else class_(**SD, **settings)
        scheduler.set_timesteps(12, device=device)
        generator = torch.Generator(device).manual_seed(1) if seeded else None

        def step(timestep, x, scheduler=scheduler, generator=generator):
            output = torch.tanh(scheduler.scale_model_input(x, timestep))
            return scheduler.step(output, timestep, x, generator=generator).prev_sample

        first, *others = scheduler.timesteps
        x = step(first, start(scheduler.sigmas[0].item()).to(device, dtype).to(precision))
        with watched(device):
            for timestep in others:
                x = step(timestep, x)
        assert scheduler.path.rises
        assert x.dtype == precision
        ends.append(x.float())
    assert (ends[1] - ends[0]).norm() < 4 * torch.finfo(dtype).eps * ends[0].norm()


@pytest.mark.parametrize(
    ("device", "dtype", "most", "mean"),
    [
        pytest.param("cpu", torch.float32, 1, 1e-3, marks=pytest.mark.slow),
        pytest.param("cuda", torch.float32, 1, 1e-3, marks=CUDA.marks),
        pytest.param("cuda", torch.float16, 255, 1.0, marks=CUDA.marks),
    ],
)
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.usefixtures("one_thread")
def test_a_picture_in_a_batch_is_that_of_a_batch_of_its_own(sampler, device, dtype, most, mean, bundled):
    """Up to rounding, of which half precision has more."""
    one, eight = (pictures(prepared(bundled(device, dtype), sampler, batch)) for batch in (1, 8))
    difference = (one - eight).abs()
    assert difference.max() <= most
    assert difference.double().mean() < mean


@pytest.mark.parametrize("device", [CUDA])
def test_as_many_pictures_are_drawn_at_a_time_as_pay(device):
    model = load_pipeline("tiny-text-to-image", torch.device(device), torch.float32)
    drawing = prepare(model, Request(Sampler.parse("ddim:4"), 3.0), "a red truck")
    found = torch.cat([batch.images for batch in drawing.draw(range(600))]).int()
    assert model.pace.at_once == 512
    few = prepare(model, Request(Sampler.parse("ddim:4"), 3.0), "a red truck", 16)
    own = torch.cat([batch.images for batch in few.draw(range(600))]).int()
    assert (found - own).abs().double().mean() < 0.1


@pytest.mark.filterwarnings("ignore")  # of torch.compile's own
@pytest.mark.parametrize(
    ("device", "dtype", "backend"),
    [
        pytest.param("cpu", torch.float32, "eager", marks=pytest.mark.slow),
        pytest.param("cuda", torch.float16, "inductor", marks=CUDA.marks),
        pytest.param("cuda", torch.bfloat16, "inductor", marks=CUDA.marks),
    ],
)
def test_a_compiled_network_is_compiled_once_and_draws_the_same_pictures(device, dtype, backend, bundled):
    """No step asks for it anew, whatever the solver and the restarts."""
    model = bundled(device, dtype)
    drawings = [prepared(model, sampler, 8) for sampler in SAMPLERS]
    eager = [pictures(drawing) for drawing in drawings]
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    model.network.forward = torch.compile(model.network.forward, backend=backend, dynamic=False)
    try:
        pictures(drawings[0])
        with torch.compiler.set_stance("fail_on_recompile"):
            compiled = [pictures(drawing) for drawing in drawings]
    finally:
        del model.network.forward
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    for one, other in zip(compiled, eager, strict=True):
        assert (one - other).abs().double().mean() < 1.5
