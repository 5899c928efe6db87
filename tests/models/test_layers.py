import pytest
import torch
import torch.nn.functional as F

from restart_sampling.models.layers import Resample, group_norm


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    images = 5 + 2 * torch.randn(3, 16, 6, 4, generator=generator)
    return images.to(memory_format=torch.channels_last).requires_grad_()


def result_and_gradients(run, images, *parameters):
    images.grad = None
    for each in parameters:
        each.grad = None
    result = run(images)
    weights = torch.randn(result.shape, generator=torch.Generator().manual_seed(1))
    (result * weights).sum().backward()
    return [result.detach(), *(each.grad.clone() for each in (images, *parameters))]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_training_step_normalises_as_torch_does_and_keeps_the_layout(images):
    norm = group_norm(16, 1e-6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    compiled = torch.compile(norm, backend="aot_eager")
    torch_norm = lambda x: F.group_norm(x, 4, norm.weight, norm.bias, 1e-6)  # noqa: E731
    parameters = (norm.weight, norm.bias)
    for right, found in zip(
        result_and_gradients(torch_norm, images, *parameters),
        result_and_gradients(compiled, images, *parameters),
        strict=True,
    ):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
    assert compiled(images).is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_in_channels_last_is_normalised_in_float32(images):
    norm = group_norm(16, 1e-6).bfloat16()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    rounded = images.detach().bfloat16()
    right = F.group_norm(rounded.float(), 4, norm.weight.float(), norm.bias.float(), 1e-6)
    found = norm(rounded)
    assert torch.equal(found, right.bfloat16())
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_doubling_gives_the_same_pixels_and_sums_their_gradients(images):
    up = Resample("up", (1, 1))
    compiled = torch.compile(up, backend="aot_eager")
    (right, gradient), (found, sums) = (result_and_gradients(run, images) for run in (up, compiled))
    assert torch.equal(found, right)
    torch.testing.assert_close(sums, gradient)
    assert compiled(images).is_contiguous(memory_format=torch.channels_last)
