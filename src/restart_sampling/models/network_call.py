"""`NetworkCall`: a user's network or function as nets call it, and the modules that it is seen to use."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from inspect import getclosurevars, unwrap
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import whole_number
from restart_sampling.base.numerics import weights_sha256
from restart_sampling.models.thresholding import clipped
from restart_sampling.sampling.net import FunctionNet
from restart_sampling.sampling.solvers.protocol import like

Network = Callable[..., Any]
"""network(x, time, **kwargs) -> a tensor like x, or an output of diffusers that has it as `.sample`."""


_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


class NetworkCall:
    """A network in its dtype, called with states in theirs; for the arguments see `from_eps`."""

    def __init__(
        self,
        network: Network,
        clip: bool | tuple[float, float] = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        identity: str | None = None,
        label_dim: int = 0,
    ) -> None:
        if not callable(network) or isinstance(network, type):
            raise InputError(f"the network is {network!r}; give a torch module or a function, network(x, time)")
        weights = network.parameters() if isinstance(network, nn.Module) else ()
        weight = next(
            (each for each in weights if each.is_floating_point()), torch.empty(0, dtype=torch.float32, device="cpu")
        )
        if identity == "":
            raise InputError("identity is empty; give what tells the weights apart, such as their SHA-256, or None")
        self.network, self.clip, self.identity = network, clip, identity
        self.label_dim = whole_number("label_dim", label_dim)
        if self.label_dim < 0:
            raise InputError(f"label_dim is {label_dim}; give how many classes the network knows, 0 for none")
        self._held: dict[str, nn.Module] = {}
        self._parts: list[dict[str, nn.Module]] = []
        self.dtype = dtype or weight.dtype
        if not (isinstance(self.dtype, torch.dtype) and self.dtype.is_floating_point):
            raise InputError(f"dtype is {dtype!r}; give one of real numbers, such as torch.float16, or None")
        self.device = torch.device(device or weight.device)
        if self.device.type == "meta":
            raise InputError("the network is on the meta device, where weights have no values; load them first")

    def __call__(self, x: Tensor, time: Tensor, /, **kwargs: Any) -> Tensor:
        """Returns the answer in x's dtype. Times that are floats have float32 at least: float16 has no 999.25."""
        if (held := _held(self.network)) != self._held:  # a variable may have got another value
            self._held, self._parts = held, [_parts(*each) for each in held.items()]
        training = [[name for name, module in parts.items() if module.training] for parts in self._parts]
        if training and all(training):  # of several networks, such as one and its average, a call may use one
            name = training[0][0]
            raise InputError(
                f"the network{name and f', its module {name},'} is in training mode, in which dropout is "
                f"random and batches matter; call its eval() first"
            )
        dtype = torch.promote_types(self.dtype, torch.float32) if time.is_floating_point() else time.dtype
        # Copies, because a network may write into its input, and guidance calls two on the same.
        answer = self.network(x.to(self.dtype, copy=True), time.to(dtype, copy=True), **kwargs)
        return like(x, getattr(answer, "sample", answer), "the network")

    def net(self, denoise: Callable[..., Tensor], words: str, **levels: Any) -> FunctionNet:
        """Makes a net of this denoiser, whose identity is that of the network, `words` and the dtype."""

        def identify() -> str | None:
            weights = self.identity
            if weights is None and isinstance(self.network, nn.Module):
                weights = weights_sha256(self.network)
            classes = f", {self.label_dim} classes" if self.label_dim else ""
            return weights and f"{weights} {words} in {self.dtype}{classes}"

        net = FunctionNet(denoise, device=self.device, identify=identify, label_dim=self.label_dim, **levels)
        match self.clip:
            case True:
                return clipped(net)
            case False:
                return net
            case low, high:
                return clipped(net, low, high)
        raise InputError(f"clip is {self.clip!r}; give True for [-1, 1], a range (low, high), or False")


def _held(network: Network) -> dict[str, nn.Module]:
    """Returns the modules that a network is, or that a function is seen to use, by name."""
    held: Mapping[str, Any]
    match unwrap(network) if isinstance(network, FunctionType) else network:
        case nn.Module() as module:
            held = {"": module}
        case partial() as bound:
            held = {"": bound.func, **{str(place): each for place, each in enumerate(bound.args)}, **bound.keywords}
        case MethodType(__name__="forward", __self__=nn.Module() as module):
            held = {"": module}
        case FunctionType() as function:
            held = {}
            with suppress(ValueError):  # a variable that is not set yet
                variables = getclosurevars(function)
                held = {**variables.globals, **variables.nonlocals}
        case other:  # an object, which may hold networks that its call does not use, such as one that is trained
            method = other if isinstance(other, MethodType) else MethodType(type(other).__call__, other)
            own = getattr(method.__self__, "__dict__", {})
            own = {**own, **own.get("_modules", {})}
            code = getattr(unwrap(method.__func__), "__code__", None)
            held = {name: own[name] for name in code.co_names if name in own} if code else {}
    return {name: each for name, each in held.items() if isinstance(each, nn.Module)}


def _parts(name: str, module: nn.Module) -> dict[str, nn.Module]:
    """Lists a module with all modules in it, by name, but for torch's wrappers, whose own mode changes nothing."""
    named = {f"{name}.{inner}".strip("."): each for inner, each in module.named_modules()}
    return {name: each for name, each in named.items() if not isinstance(each, _WRAPPERS)}
