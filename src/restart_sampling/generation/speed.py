"""What is settled before a run where the user does not say: images at a time, and how the network is launched."""

import time
from collections.abc import Sequence
from math import ceil
from typing import Any, cast

import torch

from restart_sampling.base.ranks import Ranks
from restart_sampling.generation.drawing import Drawing
from restart_sampling.generation.net_drawing import NetDrawing
from restart_sampling.generation.pace import fitting
from restart_sampling.models.compiled import CompiledNetwork, CompileTime, compile_network
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.models.graphed import GraphedNetwork

_SAVED = 0.45  # of the time of a large batch, by compiling: 0.43 to 0.52 were measured, of three networks


def settle(
    drawing: NetDrawing, ranks: Ranks, *, may_compile: bool, calls: float = 0.0, seconds: float = 0.0
) -> str | None:
    """Finds how many images pay at a time, and has the network compiled where that pays. All processes call this.

    A network with kernels of its own is not compiled; its calls become a graph.

    Args:
        drawing: one of those to come; the others share its net and its pace.
        ranks: the processes.
        may_compile: whether the user leaves it to us.
        calls: of the denoiser that are to come, each for one image, of all processes.
        seconds: that are to come, where those are known and the calls are not.

    Returns:
        What was decided of compiling, for the user; None: there was nothing to decide.
    """
    net, pace = drawing.net, drawing.pace
    images = calls / drawing.nfe
    pace.measure(drawing.call, net.device, seconds or images / ranks.size)
    pace.at_once = min(ranks.gather(pace.at_once))  # they draw equal shares
    long = seconds or images > pace.at_once * ranks.size
    if net.device.type != "cuda" or not long:
        return None
    model = cast(Denoiser, net)
    if getattr(net, "fused", False):
        model.model = GraphedNetwork(model.model, pace.at_once * (drawing.network_evaluations // drawing.nfe))
        return None
    if not may_compile:
        return None
    call_seconds = next(fitting(range(pace.at_once), pace, lambda images: _seconds(drawing, images)))
    batch = pace.at_once * (drawing.network_evaluations // drawing.nfe)
    image_seconds = call_seconds * drawing.nfe / ranks.size
    after = images_to_pay_off(CompileTime(model.model, batch).expected(), image_seconds)
    images = seconds / image_seconds or images
    compiling, after = ranks.gather((images >= after, after))[0]
    if not compiling:
        return f"not compiled, which pays off after about {after:,} images"
    compile_network(model, batch)
    return f"compiling, pays off after about {after:,} images"


def speed_of(drawing: Drawing) -> dict[str, Any]:
    """Makes JSON for the record, of what changes no more of the images than their rounding.

    How many were drawn at a time, where that was not a batch, and whether the network was compiled without being asked.
    """
    network = getattr(getattr(drawing, "net", None), "model", None)
    compiled = isinstance(network, CompiledNetwork) and not network.asked_for
    at_once = drawing.pace.at_once
    return {
        **({"images_at_once": at_once} if at_once != drawing.batch else {}),
        **({"compiled": True} if compiled else {}),
    }


def images_to_pay_off(compile_seconds: float, image_seconds: float) -> int:
    """Counts the images, to two digits, after which compiling has earned its time back.

    Args:
        compile_seconds: that it takes.
        image_seconds: that an image takes without it.
    """
    images = compile_seconds / (_SAVED * image_seconds)
    digit = 10 ** max(len(str(int(images))) - 2, 0)
    return ceil(images / digit) * digit


def _seconds(drawing: NetDrawing, images: Sequence[int]) -> float:
    """Measures the seconds of a call for an image, in a batch of so many, after a call to warm up."""
    drawing.call(len(images))
    torch.cuda.synchronize(drawing.net.device)
    start = time.perf_counter()
    drawing.call(len(images))
    torch.cuda.synchronize(drawing.net.device)
    return (time.perf_counter() - start) / len(images)
