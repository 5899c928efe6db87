"""A second detector for CIFAR-10: a plain convolutional classifier, to confirm what a search found by another one.

    python benchmarks/cifar10_detector.py cifar10-train.tar.xz --test cifar10-test.tar.xz --out plain.torchscript.pt

The network has no shortcuts: six convolutions with batch norm and GELU, 3.2 million weights. Its features are the 384
means over the last map. The file is a detector to every command: `--detector plain.torchscript.pt --trust-detector`.
"""

import time
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restart_sampling.images.image_set import read_images

WIDTHS = ((64, 128), (256, 256), (384, 384))
"""Of the convolutions, by resolution."""
PAD = 4
"""Pixels that an image is shifted by, at most."""
HOLE = 8
"""Side of the square that is cut out of an image."""


class PlainDetector(nn.Module):
    """A classifier with the call convention of NVIDIA's Inception file.

    Args:
        classes: that it tells apart.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for place, widths in enumerate(WIDTHS):
            layers += [nn.MaxPool2d(2)] if place else []
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.GELU()]
                channels = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        """Returns the features [B, 384], or the scores [B, classes], of uint8 images [B, 3, H, W]."""
        features = self.body(images.float() / 127.5 - 1).mean((2, 3))
        return features if return_features else self.head(features)


def read(path: Path, device: torch.device) -> tuple[Tensor, Tensor]:
    """Reads images uint8 [N, 3, 32, 32], and their classes int64 [N]."""
    images = read_images(path)
    assert images.labels is not None
    pixels = np.concatenate(list(images.batches(1000)))
    return torch.from_numpy(pixels).to(device), torch.from_numpy(images.labels).to(device)


def vary(images: Tensor) -> Tensor:
    """Mirrors, shifts and cuts a hole into images [B, C, H, W], each in its own way."""
    count, _, height, width = images.shape
    device = images.device

    def draw(end: int) -> Tensor:
        return torch.randint(end, (count, 1), device=device)

    rows, columns = (torch.arange(side, device=device) for side in (height, width))
    columns_taken = torch.where(draw(2) > 0, columns.flip(0), columns) + draw(2 * PAD + 1)
    rows_taken = rows + draw(2 * PAD + 1)
    padded = F.pad(images.float(), (PAD,) * 4, mode="reflect").to(images.dtype)
    each = torch.arange(count, device=device)[:, None, None]
    moved = padded[each, :, rows_taken[:, :, None], columns_taken[:, None, :]].permute(0, 3, 1, 2)
    in_rows, in_columns = (
        (places >= (corner := draw(side - HOLE + 1))) & (places < corner + HOLE)
        for places, side in ((rows, height), (columns, width))
    )
    hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return moved.masked_fill(hole, 127)


def train(
    detector: PlainDetector, images: Tensor, labels: Tensor, epochs: int, batch: int, rate: float, seed: int
) -> None:
    """Trains by SGD with Nesterov's momentum, smoothed labels and a rate of one cycle; in bfloat16 on CUDA."""
    device = images.device
    steps = len(images) // batch
    optimizer = torch.optim.SGD(
        detector.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=device.type == "cuda"
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps, pct_start=0.2)
    order = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    for epoch in range(epochs):
        losses = torch.zeros((), device=device)
        for chosen in torch.randperm(len(images), generator=order)[: steps * batch].to(device).view(steps, batch):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                scores = detector(vary(images[chosen]))
                loss = F.cross_entropy(scores.float(), labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            losses += loss.detach()
        click.echo(
            f"epoch {epoch + 1} of {epochs}: loss {losses.item() / steps:.3f}, {time.perf_counter() - start:.0f} s"
        )


@torch.no_grad()
def accuracy(detector: PlainDetector, images: Tensor, labels: Tensor) -> float:
    """Returns the share of images whose class is told rightly."""
    scores = torch.cat([detector(images[start : start + 500]) for start in range(0, len(images), 500)])
    return (scores.argmax(1) == labels).double().mean().item()


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--test", required=True, type=click.Path(path_type=Path), help="Images that training does not see.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The TorchScript file.")
@click.option("--epochs", default=40, show_default=True, type=click.IntRange(1))
@click.option("--batch", default=512, show_default=True, type=click.IntRange(2))
@click.option("--lr", "rate", default=0.2, show_default=True, help="Highest learning rate.")
@click.option("--seed", default=1, show_default=True)
@click.option("--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True)
def main(data: Path, test: Path, out: Path, epochs: int, batch: int, rate: float, seed: int, device: str) -> None:
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = True
    images, labels = read(data, torch.device(device))
    detector = PlainDetector(int(labels.max()) + 1).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    train(detector, images, labels, epochs, batch, rate, seed)
    detector.eval()
    torch.jit.script(detector.to("cpu", memory_format=torch.contiguous_format)).save(out)
    share = accuracy(detector.to(device), *read(test, torch.device(device)))
    click.echo(f"{share:.2%} of {test} are told rightly: {out}")


if __name__ == "__main__":
    main()
