"""Files as other projects write them, by rules for the names and shapes of their tensors, and without their code.

The weights of a tensor depend on its name alone, so that `golden/foreign.npz` holds no weights: it has what the
projects' own code makes of these weights.
"""

import io
from collections.abc import Iterator
from itertools import count
from zlib import crc32

import numpy as np
import torch
from edm_files import EasyDict, Persistent, pickled

Shapes = dict[str, tuple[int, ...]]


def weight(name: str, shape, seed: int = 0) -> torch.Tensor:
    """Weights of about the scale of a trained network's, so that every layer matters."""
    numbers = np.random.RandomState(crc32(name.encode()) ^ seed).standard_normal(shape).astype(np.float32)
    if len(shape) > 1:
        numbers /= np.sqrt(np.prod(shape[1:], dtype=np.float32))
    elif name.endswith("weight"):  # of a normalisation
        numbers = 1 + 0.2 * numbers
    elif name.endswith(("bias", ".b")):
        numbers *= 0.2
    return torch.from_numpy(np.asarray(numbers))


def weights(shapes: Shapes, seed: int = 0) -> dict[str, torch.Tensor]:
    return {name: weight(name, shape, seed) for name, shape in shapes.items()}


def meta(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Tensors of any size, without numbers."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def saved(content) -> bytes:
    """What torch.save writes, with the attribute that state dicts have."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def state_dict(tensors: dict[str, torch.Tensor]):
    """An OrderedDict as torch's modules give it."""
    module = torch.nn.Module()
    state = module.state_dict()
    state.update(tensors)
    return state


def _layer(name: str, *shape: int, bias: bool = True) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    if bias:
        yield f"{name}.bias", shape[:1]


def adm(
    size: int,
    width: int,
    mult: tuple[float, ...],
    blocks: int,
    attention: tuple[int, ...],
    *,
    classes: int = 0,
    old: bool = False,
    scale_shift: bool = True,
    out: int = 6,
) -> Shapes:
    """guided-diffusion's UNetModel; `old`: improved-diffusion's, which resamples by convolutions."""
    emb = 4 * width

    def block(name, channels, wide):
        yield from _layer(f"{name}.in_layers.0", channels)
        yield from _layer(f"{name}.in_layers.2", wide, channels, 3, 3)
        yield from _layer(f"{name}.emb_layers.1", (1 + scale_shift) * wide, emb)
        yield from _layer(f"{name}.out_layers.0", wide)
        yield from _layer(f"{name}.out_layers.3", wide, wide, 3, 3)
        if channels != wide:
            yield from _layer(f"{name}.skip_connection", wide, channels, 1, 1)

    def attend(name, channels):
        yield from _layer(f"{name}.norm", channels)
        yield from _layer(f"{name}.qkv", 3 * channels, channels, 1)
        yield from _layer(f"{name}.proj_out", channels, channels, 1)

    def resample(name, channels, convolution):
        if old:
            yield from _layer(f"{name}.{convolution}", channels, channels, 3, 3)
        else:
            yield from block(name, channels, channels)

    def all_layers():
        yield from _layer("time_embed.0", emb, width)
        yield from _layer("time_embed.2", emb, emb)
        if classes:
            yield "label_emb.weight", (classes, emb)
        widths = [int(each * width) for each in mult]
        channels, skips, place = widths[0], [widths[0]], count(1)
        yield from _layer("input_blocks.0.0", channels, 3, 3, 3)
        for level, wide in enumerate(widths):
            for _ in range(blocks):
                name = f"input_blocks.{next(place)}"
                yield from block(f"{name}.0", channels, wide)
                if size >> level in attention:
                    yield from attend(f"{name}.1", wide)
                channels = wide
                skips.append(channels)
            if level < len(mult) - 1:
                yield from resample(f"input_blocks.{next(place)}.0", channels, "op")
                skips.append(channels)
        yield from block("middle_block.0", channels, channels)
        yield from attend("middle_block.1", channels)
        yield from block("middle_block.2", channels, channels)
        place = count()
        for level, wide in reversed([*enumerate(widths)]):
            for index in range(blocks + 1):
                name, attends = f"output_blocks.{next(place)}", size >> level in attention
                yield from block(f"{name}.0", channels + skips.pop(), wide)
                if attends:
                    yield from attend(f"{name}.1", wide)
                channels = wide
                if level and index == blocks:
                    yield from resample(f"{name}.{1 + attends}", channels, "conv")
        yield from _layer("out.0", channels)
        yield from _layer("out.2", out, channels, 3, 3)

    return dict(all_layers())


def score_sde(
    size: int, width: int, mult: tuple[int, ...], blocks: int, attention: tuple[int, ...] = (16,), pyramid: str = "none"
) -> Shapes:
    """score_sde's NCSNpp, without `sigmas`: pyramid "none" is DDPM++; "residual" and "skip" are NCSN++ with Fourier."""
    emb, place = 4 * width, count()

    def module(*names_and_shapes):
        name = f"all_modules.{next(place)}"
        for part, *shape in names_and_shapes:
            yield from _layer(f"{name}.{part}" if part else name, *shape)

    def block(channels, wide, resamples=False):
        skip = [("Conv_2", wide, channels, 1, 1)] if channels != wide or resamples else []
        yield from module(
            ("GroupNorm_0", channels),
            ("Conv_0", wide, channels, 3, 3),
            ("Dense_0", wide, emb),
            ("GroupNorm_1", wide),
            ("Conv_1", wide, wide, 3, 3),
            *skip,
        )

    def attend(channels):
        name = f"all_modules.{next(place)}"
        yield from _layer(f"{name}.GroupNorm_0", channels)
        for part in range(4):
            yield from ((f"{name}.NIN_{part}.W", (channels, channels)), (f"{name}.NIN_{part}.b", (channels,)))

    def all_layers():
        if pyramid != "none":
            yield f"all_modules.{next(place)}.W", (width,)
        yield from module(("", emb, width if pyramid == "none" else 2 * width))
        yield from module(("", emb, emb))
        channels, pyramid_channels, skips = width, 3, [width]
        yield from module(("", width, 3, 3, 3))
        for level, wide in enumerate(each * width for each in mult):
            for _ in range(blocks):
                yield from block(channels, wide)
                channels = wide
                skips.append(channels)
                if size >> level in attention:
                    yield from attend(channels)
            if level < len(mult) - 1:
                yield from block(channels, channels, resamples=True)
                if pyramid == "residual":
                    yield from module(("Conv2d_0", channels, pyramid_channels, 3, 3))
                    pyramid_channels = channels
                elif pyramid == "skip":
                    yield from module(("Conv_0", channels, 3, 1, 1))
                skips.append(channels)
        yield from block(channels, channels)
        yield from attend(channels)
        yield from block(channels, channels)
        for level, wide in reversed([*enumerate(each * width for each in mult)]):
            for _ in range(blocks + 1):
                yield from block(channels + skips.pop(), wide)
                channels = wide
            if size >> level in attention:
                yield from attend(channels)
            if pyramid == "skip" or not level:
                yield from module(("", channels))
                yield from module(("", 3, channels, 3, 3))
            if level:
                yield from block(channels, channels, resamples=True)

    return dict(all_layers())


def edm2(
    size: int, channels: int, classes: int, width: int, mult: tuple[int, ...], blocks: int, attention: tuple[int, ...]
) -> Shapes:
    """EDM2's Precond, with the default widths of the embeddings."""
    emb = width * max(mult)

    def block(name, before, after, *, encodes, attends=False):
        yield f"{name}.emb_gain", ()
        yield f"{name}.conv_res0.weight", (after, after if encodes else before, 3, 3)
        yield f"{name}.emb_linear.weight", (after, emb)
        yield f"{name}.conv_res1.weight", (after, after, 3, 3)
        if before != after:
            yield f"{name}.conv_skip.weight", (after, before, 1, 1)
        if attends:
            yield f"{name}.attn_qkv.weight", (3 * after, after, 1, 1)
            yield f"{name}.attn_proj.weight", (after, after, 1, 1)

    def all_layers():
        yield "unet.out_gain", ()
        yield from ((f"unet.emb_fourier.{name}", (width * mult[0],)) for name in ("freqs", "phases"))
        yield "unet.emb_noise.weight", (emb, width * mult[0])
        if classes:
            yield "unet.emb_label.weight", (emb, classes)
        now, skips = width * mult[0], []
        for level, wide in enumerate(each * width for each in mult):
            name = f"unet.enc.{size >> level}x{size >> level}"
            if level:
                yield from block(f"{name}_down", now, now, encodes=True)
            else:
                yield f"{name}_conv.weight", (now, channels + 1, 3, 3)
            skips.append(now)
            for index in range(blocks):
                yield from block(f"{name}_block{index}", now, wide, encodes=True, attends=size >> level in attention)
                now = wide
                skips.append(now)
        for level, wide in reversed([*enumerate(each * width for each in mult)]):
            name = f"unet.dec.{size >> level}x{size >> level}"
            if level == len(mult) - 1:
                yield from block(f"{name}_in0", now, now, encodes=False, attends=True)
                yield from block(f"{name}_in1", now, now, encodes=False)
            else:
                yield from block(f"{name}_up", now, now, encodes=False)
            for index in range(blocks + 1):
                before = now + skips.pop()
                yield from block(
                    f"{name}_block{index}", before, wide, encodes=False, attends=size >> level in attention
                )
                now = wide
        yield "unet.out_conv.weight", (channels, now, 3, 3)
        yield from ((f"logvar_fourier.{name}", (128,)) for name in ("freqs", "phases"))
        yield "logvar_linear.weight", (1, 128)

    return dict(all_layers())


def edm2_snapshot(tensors: dict[str, torch.Tensor], **kwargs) -> bytes:
    """A pickle as EDM2's training and its reconstruction of averages write."""
    tree: dict = {}
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = tensor

    def module(name, node):
        state = {"training": False, "_parameters": {}, "_buffers": {}, "_modules": {}}
        for key, value in node.items():
            kind = "_modules" if isinstance(value, dict) else "_buffers" if "fourier" in name else "_parameters"
            state[kind][key] = module(key, value) if isinstance(value, dict) else value
        if name in ("enc", "dec"):
            container = torch.nn.ModuleDict()
            container.__dict__["_modules"] = state["_modules"]
            return container
        own = {"sigma_data": 0.5, "_init_args": (), "_init_kwargs": kwargs} if not name else {}
        return Persistent({"": "Precond", "unet": "UNet"}.get(name, "MPConv"), {**state, **own}, "# EDM2's networks")

    arrays = {"scale": np.ones(4, np.float32), "bias": np.zeros(4, np.float32)}
    encoder = Persistent("StabilityVAEEncoder", {**arrays, "_vae": None}, "# EDM2's encoders")
    data = {"encoder": encoder, "dataset_kwargs": EasyDict(path="img64.zip"), "loss_fn": None}
    return pickled({**data, "ema": module("", tree)})
