import pytest
import torch

from restart_sampling.training.ema import EMA
from restart_sampling.training.progress import ROUND_SECONDS, Progress
from restart_sampling.training.schedule import augmentation, ema_decay, learning_rate


def test_learning_rate_warms_up_and_falls_along_a_cosine():
    values = [learning_rate(progress, 2e-3) for progress in (0, 0.025, 0.05, 0.05 + 0.95 / 3, 0.525, 1)]
    assert values == pytest.approx([0, 1e-3, 2e-3, 1.5e-3, 1e-3, 0], abs=1e-12)


def test_augmentation_falls_to_nothing():
    assert [augmentation(progress, 0.2) for progress in (0, 0.25, 1)] == pytest.approx([0.2, 0.15, 0])


@pytest.mark.parametrize("half_life", [500_000, 100_000])
def test_decay_halves_the_past_over_the_half_life(half_life):
    batch = 500
    late = 10**9  # images; far beyond the ramp
    product = 1.0
    for _ in range(half_life // batch):
        product *= ema_decay(late, batch, half_life)
    assert product == pytest.approx(0.5)
    # On the ramp the half-life is a twentieth of the images so far.
    assert ema_decay(20 * batch, batch, half_life) == pytest.approx(0.5)
    assert ema_decay(batch, batch, half_life) == pytest.approx(2**-20)
    assert ema_decay(20 * half_life, half_life, half_life) == pytest.approx(0.5)


def test_average_of_a_known_sequence(settings):
    model = settings.build()
    ema = EMA(model)
    for value, decay in ((1.0, 0.0), (2.0, 0.75), (4.0, 0.5)):
        with torch.no_grad():
            for weight in model.parameters():
                weight.fill_(value)
        ema.update(decay)
    for weight in ema.model.parameters():
        assert torch.all(weight == 2.625)  # 0.5 (0.75 * 1 + 0.25 * 2) + 0.5 * 4
    assert not ema.model.training
    assert not any(weight.requires_grad for weight in ema.model.parameters())


def test_progress_by_images():
    progress = Progress(steps=5, seconds=None)
    assert progress.next_round() == [0.1]  # the pace is not known yet
    progress.advance(1, 60.0)
    assert (progress.seconds, progress.pace) == (0, None)  # the first step compiles and does not count
    assert progress.next_round() == pytest.approx([0.3])
    progress.advance(1, 0.01)
    assert progress.next_round() == pytest.approx([0.5, 0.7, 0.9])
    assert progress.seconds_left() == pytest.approx(0.03)
    progress.advance(3, 0.03)
    assert progress.finished
    assert progress.seconds == pytest.approx(0.04)


def test_progress_by_the_clock():
    progress = Progress(steps=None, seconds=10.0)
    assert progress.next_round() == [0]
    progress.advance(1, 3.0)
    assert progress.next_round() == [0]
    progress.advance(1, 0.5)
    parts = progress.next_round()
    assert len(parts) == ROUND_SECONDS / 0.5
    assert parts == pytest.approx([0.075, 0.125, 0.175, 0.225])
    progress.advance(4, 8.5)
    assert not progress.finished
    assert progress.next_round() == pytest.approx([1.0])  # a step of 2.1 s, and 1 s is left
    progress.advance(1, 2.1)
    assert progress.finished


def test_progress_of_a_resumed_run_goes_on():
    progress = Progress(steps=None, seconds=10.0)
    progress.steps, progress.seconds = 100, 5.0
    assert progress.next_round() == [0.5]
