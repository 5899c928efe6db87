"""Milliseconds a step of `train` on one device, for one or more ways to run the network, and the profile of the first.

    python benchmarks/training_speed.py --batch 256 --networks kernels,compiled --profile profile.txt

The images are random: the time does not depend on them. "start" is the time to the first step, with all compiling;
"host" is the time to hand the steps to the device, which is the whole where the host cannot keep up.
"""

import argparse
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from restart_sampling.base.numerics import full_float32
from restart_sampling.base.ranks import Ranks
from restart_sampling.training.settings import Settings
from restart_sampling.training.trainer import NetworkRuns, Trainer
from restart_sampling.training.training_set import TrainingSet


def make_trainer(options: argparse.Namespace, device: torch.device, network: NetworkRuns) -> Trainer:
    settings = Settings(
        parametrization="edm",
        D=None,
        resolution=32,
        image_channels=3,
        label_dim=10,
        channels=options.channels,
        channel_mult=(1, 2, 2),
        blocks=2,
        attention=None,
        dropout=0.0,
        augment=options.augment,
        images=10**9,
        minutes=None,
        batch=options.batch,
        lr=1e-3,
        ema_images=500_000,
        seed=0,
        dtype="bfloat16" if device.type == "cuda" else "float32",
        data_images=2000,
    )
    generator = torch.Generator(device).manual_seed(0)
    images = torch.randint(256, (2000, 3, 32, 32), generator=generator, device=device).byte()
    data = TrainingSet(images, torch.randint(10, (2000,), generator=generator, device=device), "")
    return Trainer(settings, data, Ranks(0, 1, device), network=network)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--augment", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--networks", default="kernels", help="kernels, compiled or plain, with commas between")
    parser.add_argument("--profile", type=Path, help="where to write the profile of three steps of the first")
    options = parser.parse_args()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")

    def wait() -> None:
        if cuda:
            torch.cuda.synchronize()

    for network in options.networks.split(","):
        torch._dynamo.reset()
        with torch.backends.cudnn.flags(enabled=True, benchmark=True), full_float32():
            begin = time.perf_counter()
            trainer = make_trainer(options, device, network)
            trainer.step(0.01)
            wait()
            start = time.perf_counter() - begin
            for _ in range(10):
                trainer.step(0.02)
            trainer.end_round()
            begin = time.perf_counter()
            for _ in range(options.steps):
                trainer.step(0.05)
            host = (time.perf_counter() - begin) / options.steps
            wait()
            step = (time.perf_counter() - begin) / options.steps
            print(
                f"{network:16} start {start:.1f} s, {1000 * step:.2f} ms a step (host {1000 * host:.2f}), "
                f"{options.batch / step:.0f} images a second, loss {trainer.end_round().loss:.4f}",
                flush=True,
            )
            if options.profile:
                with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
                    for _ in range(3):
                        trainer.step(0.05)
                    wait()
                order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
                options.profile.write_text(profiled.key_averages().table(sort_by=order, row_limit=60), "utf-8")
                options.profile = None


if __name__ == "__main__":
    main()
