"""Where a parameter meets the hardware, and what may stand behind that place.

A layer holds parameters and asks its substrate for products. It does not know whether the substrate
is the surrogate of training, a virtual chip or a device.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mho.crossbar.array import Array, is_ideal
from mho.crossbar.ops import Op
from mho.hardware.spec import Hardware

RANGES = "_ranges"
BOUND = "_bound"


@dataclass(frozen=True)
class Site:
    """One weight matrix on analog hardware.

    ``name``: the parameter's full name in the digital model, which with a chip's seed determines its
    cells; ``backward``: whether the backward pass runs through an ideal or a noisy array.
    """

    name: str
    op: Op
    hw: Hardware
    backward: Literal["ideal", "noisy"] = "ideal"
    learned_ranges: bool = False
    clip_sigma: float | None = None

    @property
    def is_ideal(self) -> bool:
        """Whether a product here is the digital one to the last bit."""
        return self.clip_sigma is None and is_ideal(self.hw)


Programmed = dict[str, Array]
"""Arrays by parameter name, as programmed for one forward pass of one layer."""


class Substrate(Protocol):
    """What computes the products of a converted network.

    ``simulated``: products are computed from descriptions (not by a device), so that an ideal
    description means the digital product.
    """

    simulated: bool

    def mvm(
        self,
        site: Site,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ranges: Tensor,
        bound: Tensor | None,
        training: bool,
        programmed: Programmed,
    ) -> Tensor:
        """y = x W^T + bias as the hardware of ``site`` computes it.

        ``programmed``: what a layer keeps during one forward pass, so that a weight that is read many
        times (at each time step) is programmed once.
        """
        ...


class AnalogLayer(nn.Module, ABC):
    """What every converted layer has: its sites by parameter name, and the substrate they share."""

    sites: dict[str, Site]
    substrate: Substrate

    @abstractmethod
    def to_digital(self) -> nn.Module:
        """The torch layer that this one was made from, with the same parameters."""

    def bounds(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of a weight and its fixed bound."""
        for parameter, site in self.sites.items():
            if site.clip_sigma is not None:
                yield getattr(self, parameter), getattr(self, parameter + BOUND)

    def digital_twin(self) -> nn.Module | None:
        """The torch layer where none of this layer's matrices meets anything analog, else ``None``.

        torch fuses a whole LSTM or attention into kernels that round in another order than products
        one by one: only its own layer equals it to the last bit.
        """
        ideal = self.substrate.simulated and not is_traced()
        if not ideal or not all(site.is_ideal for layer in self.modules() for site in _sites(layer)):
            return None
        return self.to_digital()


def _sites(module: nn.Module) -> Iterable[Site]:
    return module.sites.values() if isinstance(module, AnalogLayer) else ()


def is_traced() -> bool:
    """Under torch.compile, torch.export or a functorch transform, where Python values do not exist."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


def attach(layer: AnalogLayer, parameter: str, site: Site) -> None:
    """Put ``layer.<parameter>`` on hardware: register its site, converter ranges and bound.

    The ranges [input, ADC] start at 0, "not known": a calibration or the first training batch sets
    them. They are a buffer, or a parameter where they are learned. The bound is a buffer holding
    clip_sigma * std(weight), fixed from now on: re-estimated at each step it would shrink for ever.
    """
    weight = getattr(layer, parameter)
    unknown = torch.zeros(2, device=weight.device, dtype=torch.float32)
    if site.learned_ranges:
        layer.register_parameter(parameter + RANGES, nn.Parameter(unknown))
    else:
        layer.register_buffer(parameter + RANGES, unknown)
    if site.clip_sigma is not None:
        layer.register_buffer(parameter + BOUND, fixed_bound(weight, site))
    layer.sites[parameter] = site
    if len(layer.sites) == 1:
        layer.register_load_state_dict_pre_hook(_digital_keys_suffice)


def fixed_bound(weight: Tensor, site: Site) -> Tensor:
    """clip_sigma standard deviations of the weight: 0-d, or [out] with one scale a column."""
    assert site.clip_sigma is not None
    w = weight.detach().float()
    std = w.flatten(1).std(1) if site.hw.mapping.per_column else w.std()
    return (site.clip_sigma * std).clamp_min(torch.finfo(torch.float32).tiny)


def _digital_keys_suffice(module: nn.Module, state_dict: dict, prefix: str, *_: object) -> None:
    """A digital model's state dict loads into the converted one.

    What only the analog layer has is then set anew: ranges to "not known" (they belonged to other
    weights), the bound from the loaded weights.
    """
    assert isinstance(module, AnalogLayer)
    for parameter, site in module.sites.items():
        key = prefix + parameter
        if key not in state_dict:
            continue
        if key + RANGES not in state_dict:
            state_dict[key + RANGES] = torch.zeros_like(getattr(module, parameter + RANGES))
        if site.clip_sigma is not None and key + BOUND not in state_dict:
            state_dict[key + BOUND] = fixed_bound(state_dict[key], site)


def product(
    layer: AnalogLayer, parameter: str, x: Tensor, bias: Tensor | None, programmed: Programmed | None = None
) -> Tensor:
    """x times ``layer.<parameter>`` on whatever the layer's substrate is.

    A layer that reads a weight more than once in its forward pass gives one dict to all of its products.
    """
    return layer.substrate.mvm(
        layer.sites[parameter],
        x,
        getattr(layer, parameter),
        bias,
        getattr(layer, parameter + RANGES),
        getattr(layer, parameter + BOUND, None),
        layer.training,
        {} if programmed is None else programmed,
    )


def analog_layers(model: nn.Module) -> Iterator[tuple[str, AnalogLayer]]:
    """Every converted layer of ``model`` with its name."""
    for name, module in model.named_modules():
        if isinstance(module, AnalogLayer):
            yield name, module


@contextmanager
def substituted(model: nn.Module, by: Callable[[AnalogLayer], Substrate]) -> Iterator[None]:
    """Within the block each analog layer's products are computed by ``by(layer)``; afterwards by what did it before."""
    layers = [layer for _, layer in analog_layers(model)]
    before = [layer.substrate for layer in layers]
    try:
        for layer in layers:
            layer.substrate = by(layer)
        yield
    finally:
        for layer, substrate in zip(layers, before, strict=True):
            layer.substrate = substrate


@runtime_checkable
class Bounded(Protocol):
    """A module that holds weights with a fixed bound."""

    def bounds(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of a weight and its bound, 0-d or one an output."""
        ...


def bounded_parameters(model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of a weight and its fixed bound, of analog layers and of stochastic ones."""
    for module in model.modules():
        if isinstance(module, Bounded):
            yield from module.bounds()


@torch.no_grad()
def project_(model: nn.Module) -> None:
    """Clamp each bounded weight to its bound, in place: what a conductance cannot hold is given up.

    Called after an optimiser's step. Without it the forward pass clips all the same (and lets
    gradients through), only the weights may then wander out of range. No-op on digital models. Under FSDP2
    each rank clamps its own shard.
    """
    for weight, bound in bounded_parameters(model):
        limit = (
            bound.reshape(-1, *([1] * (weight.dim() - 1))).to(weight.dtype) if bound.dim() else bound.to(weight.dtype)
        )
        held, limit = _held_here(weight, limit)
        held.clamp_(-limit, limit)


def _held_here(weight: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """What this rank holds of a weight and of its limit, which is whole on each rank."""
    if type(weight) in (Tensor, nn.Parameter):
        return weight, limit
    from torch.distributed.tensor import DTensor, distribute_tensor  # slow to import, and rarely needed

    if not isinstance(weight, DTensor):
        return weight, limit
    whole = limit.expand(weight.shape)
    mine = distribute_tensor(whole, weight.device_mesh, weight.placements, src_data_rank=None)  # sends nothing
    return weight.to_local(), mine.to_local()
