import numpy as np
import torch

from restart_sampling.training.batches import _mixed, draw_batch, network_seed
from restart_sampling.training.losses import PARAMETRIZATIONS


def draw(data, settings, **changes):
    loss = PARAMETRIZATIONS["edm"].loss(settings.build())
    return draw_batch(data, loss, 16, **{"seed": 1, "step": 7, "size": 64, **changes})


def tensors(batch):
    return (batch.images, batch.labels, batch.sigma, batch.noise)


def test_a_batch_depends_on_seed_and_step_alone(data, settings):
    first = draw(data, settings)
    torch.manual_seed(5)
    for mine, other in zip(tensors(first), tensors(draw(data, settings)), strict=True):
        assert torch.equal(mine, other)
    for change in ({"seed": 2}, {"step": 8}):
        for mine, other in zip(tensors(first), tensors(draw(data, settings, **change)), strict=True):
            assert not torch.equal(mine, other)


def test_the_shares_of_the_processes_are_the_whole(data, settings):
    whole = tensors(draw(data, settings))
    shares = [tensors(draw(data, settings, rank=rank, ranks=4)) for rank in range(4)]
    for index, tensor in enumerate(whole):
        assert torch.equal(torch.cat([share[index] for share in shares]), tensor)
        assert len(shares[0][index]) == 16


def test_images_are_those_of_the_set_half_of_them_flipped(settings):
    from restart_sampling.training.training_set import TrainingSet

    pixels = torch.randint(256, (10, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = draw(TrainingSet(pixels, torch.arange(10), ""), settings, size=1000)
    assert batch.images.dtype == torch.float32
    plain = pixels[batch.labels].float() / 127.5 - 1
    flipped = (batch.images - plain.flip(3)).flatten(1).abs().amax(dim=1) < 1e-6
    as_they_are = (batch.images - plain).flatten(1).abs().amax(dim=1) < 1e-6
    assert torch.all(flipped ^ as_they_are)
    assert 440 < flipped.sum() < 560  # four standard deviations of a fair coin
    counts = batch.labels.bincount(minlength=10)
    assert counts.min() > 60  # of 100 each
    assert plain.amin() == -1
    assert plain.amax() == 1


def test_seeds_do_not_repeat_not_even_in_the_half_that_the_cpu_takes():
    numbers = [_mixed(seed, step, 0) for seed in range(3) for step in range(2000)]
    assert len({number & 0xFFFFFFFF for number in numbers}) == 6000
    assert len({network_seed(0, step, rank) for step in range(100) for rank in range(4)}) == 400
    bits = np.array([[number >> bit & 1 for bit in range(64)] for number in numbers])
    assert np.all(np.abs(bits.mean(axis=0) - 0.5) < 0.03)
