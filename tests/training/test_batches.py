import numpy as np
import pytest
import torch

from restart_sampling.training.augmentation import transform
from restart_sampling.training.batches import _mixed, draw_batch, network_seed
from restart_sampling.training.losses import PARAMETRIZATIONS


@pytest.fixture(params=[None, 0.5], ids=["flips", "augmented"])
def augment(request):
    return request.param


def draw(data, settings, **changes):
    loss = PARAMETRIZATIONS["edm"].loss(settings.build())
    return draw_batch(data, loss, 16, **{"seed": 1, "step": 7, "size": 64, **changes})


def tensors(batch):
    all_of_it = (batch.images, batch.labels, batch.sigma, batch.noise, batch.augment_labels)
    return tuple(tensor for tensor in all_of_it if tensor is not None)


def test_a_batch_depends_on_seed_and_step_alone(data, settings, augment):
    first = draw(data, settings, augment=augment)
    torch.manual_seed(5)
    for mine, other in zip(tensors(first), tensors(draw(data, settings, augment=augment)), strict=True):
        assert torch.equal(mine, other)
    for change in ({"seed": 2}, {"step": 8}):
        for mine, other in zip(tensors(first), tensors(draw(data, settings, augment=augment, **change)), strict=True):
            assert not torch.equal(mine, other)


def test_the_shares_of_the_processes_are_the_whole(data, settings, augment):
    whole = tensors(draw(data, settings, augment=augment))
    shares = [tensors(draw(data, settings, augment=augment, rank=rank, ranks=4)) for rank in range(4)]
    for index, tensor in enumerate(whole):
        # What is read between pixels is rounded otherwise in another place of the batch.
        torch.testing.assert_close(torch.cat([share[index] for share in shares]), tensor, rtol=0, atol=1e-5)
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


def test_augmented_images_are_what_their_labels_say(data, settings):
    plain, augmented = draw(data, settings), draw(data, settings, augment=0.5)
    labels = augmented.augment_labels
    flipped = torch.zeros_like(labels)
    flipped[:, 0] = labels[:, 0]
    for mine, other in zip(tensors(plain), tensors(augmented)[:4], strict=True):
        assert mine is plain.images or torch.equal(mine, other)  # the rest of the batch is the same
    untouched = torch.all(labels == flipped, dim=1)
    assert 0 < untouched.sum() < 20  # of 64, 0.75 / 2**4 of them
    assert torch.equal(plain.images[untouched], augmented.images[untouched])
    unflipped = torch.where(labels[:, :1, None, None] != 0, plain.images.flip(3), plain.images)
    assert torch.equal(augmented.images, transform(unflipped, labels))


def test_seeds_do_not_repeat_not_even_in_the_half_that_the_cpu_takes():
    numbers = [_mixed(seed, step, 0) for seed in range(3) for step in range(2000)]
    assert len({number & 0xFFFFFFFF for number in numbers}) == 6000
    assert len({network_seed(0, step, rank) for step in range(100) for rank in range(4)}) == 400
    bits = np.array([[number >> bit & 1 for bit in range(64)] for number in numbers])
    assert np.all(np.abs(bits.mean(axis=0) - 0.5) < 0.03)
