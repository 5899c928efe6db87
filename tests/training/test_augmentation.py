"""What each label does to an image, against matrices made another way, and how often each is drawn."""

from math import cos, pi, sin

import pytest
import torch
from scipy import stats

from restart_sampling.training.augmentation import LABELS, draw_labels, transform

SIZE = 32


def labels(**values):
    """One image's labels by name."""
    names = ("flip", "upside", "scale", "cos", "sin", "along", "across", "right", "down")
    row = torch.zeros(1, LABELS)
    for name, value in values.items():
        row[0, names.index(name)] = value
    return row


def picture():
    return torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_no_labels_leave_every_pixel():
    assert torch.equal(transform(picture(), labels()), picture())


def test_flips_move_pixels_and_change_none():
    assert torch.equal(transform(picture(), labels(flip=1)), picture().flip(3))
    assert torch.equal(transform(picture(), labels(upside=1)), picture().flip(2))
    assert torch.equal(transform(picture(), labels(flip=1, upside=1)), picture().flip(2, 3))


def test_a_quarter_turn_and_whole_pixels_are_exact():
    turned = transform(picture(), labels(cos=-1, sin=1))  # with the vertical axis down, a positive angle is clockwise
    torch.testing.assert_close(turned, picture().rot90(-1, (2, 3)), rtol=0, atol=1e-4)
    moved = transform(picture(), labels(right=4 / SIZE, down=-2 / SIZE))
    torch.testing.assert_close(moved[..., :-2, 4:], picture()[..., 2:, :-4], rtol=0, atol=1e-4)
    torch.testing.assert_close(moved[..., :-2, 3], picture()[..., 2:, 0], rtol=0, atol=1e-4)  # a mirror at the edge


def test_the_edge_mirrors():
    moved = transform(picture(), labels(right=0.5))
    torch.testing.assert_close(moved[..., : SIZE // 2], picture()[..., : SIZE // 2].flip(3), rtol=0, atol=1e-4)


def test_all_at_once_is_the_product_of_the_matrices():
    """On a picture of the coordinates, which cubic interpolation all but keeps, each pixel says where it came from."""
    scale, angle, stretch, axis, right, down = 0.3, 0.7, -0.25, 2.0, 0.05, -0.1
    rows = labels(
        scale=scale,
        cos=cos(angle) - 1,
        sin=sin(angle),
        along=stretch * cos(2 * axis),
        across=stretch * sin(2 * axis),
        right=right,
        down=down,
    )
    y, x = torch.meshgrid(*2 * [(torch.arange(SIZE) + 0.5) / SIZE * 2 - 1], indexing="ij")
    came_from = transform(torch.stack([x, y])[None], rows)[0]

    def rotation(radians):
        return torch.tensor([[cos(radians), -sin(radians)], [sin(radians), cos(radians)]])

    stretching = rotation(axis) @ torch.diag(torch.tensor([2.0**stretch, 2.0**-stretch])) @ rotation(-axis)
    forth = stretching @ rotation(angle) * 2**scale
    places = torch.stack([x, y]).flatten(1) - 2 * torch.tensor([[right], [down]])
    expected = torch.linalg.solve(forth, places).reshape(2, SIZE, SIZE)
    middle = slice(8, -8)
    assert expected[:, middle, middle].abs().max() < 1 - 2 / SIZE  # the edge plays no part there
    torch.testing.assert_close(came_from[:, middle, middle], expected[:, middle, middle], rtol=0, atol=0.005)


def test_stretching_by_a_negative_number_is_stretching_across():
    """The labels of the two are the same, so the network is never told one thing of two different pictures."""
    axis, stretch = 0.4, 0.3
    along = [stretch * cos(2 * axis), stretch * sin(2 * axis)]
    across = [-stretch * cos(2 * (axis + pi / 2)), -stretch * sin(2 * (axis + pi / 2))]
    assert along == pytest.approx(across)


def test_each_is_drawn_as_often_and_as_far_as_it_should():
    count, probability = 40_000, 0.3
    generator = torch.Generator().manual_seed(0)
    flipped = torch.rand(count, generator=generator) < 0.5
    drawn = draw_labels(flipped, probability, generator)
    assert drawn.shape == (count, LABELS)
    assert torch.equal(drawn[:, 0], flipped.float())
    assert set(drawn[:, 1].unique().tolist()) == {0.0, 1.0}
    done = torch.stack([drawn[:, 1] != 0, *((drawn[:, at] != 0) for at in (2, 4, 5, 7))])
    expected = torch.tensor([probability / 2, *4 * [probability]])
    assert (done.float().mean(dim=1) - expected).abs().max() < 0.01  # four standard deviations
    together = (done.float() @ done.float().T) / count
    apart = ~torch.eye(5, dtype=torch.bool)
    assert (together - expected.outer(expected))[apart].abs().max() < 0.01  # each by itself
    angle = torch.atan2(drawn[:, 4], drawn[:, 3] + 1)[done[2]]
    for sample, distribution in (
        (drawn[done[1], 2], stats.norm(0, 0.2)),
        (angle, stats.uniform(-pi, 2 * pi)),
        (drawn[done[3], 5:7].square().sum(dim=1) / 0.2**2, stats.chi2(1)),
        (torch.atan2(drawn[:, 6], drawn[:, 5])[done[3]], stats.uniform(-pi, 2 * pi)),
        (drawn[done[4], 7:9].flatten(), stats.norm(0, 1 / 8)),
    ):
        assert stats.kstest(sample.double().numpy(), distribution.cdf).pvalue > 1e-3
    assert torch.equal(draw_labels(flipped, 0.0, generator)[:, 1:], torch.zeros(count, LABELS - 1))
