"""The weights of a network that are conductances, and what each of them is to hold."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from mho.crossbar.array import full_scale, program, to_conductances
from mho.errors import ConversionError
from mho.hardware.spec import Hardware
from mho.nn.site import BOUND, Site, analog_layers


@dataclass(frozen=True, eq=False)
class AnalogWeight:
    """One weight matrix on hardware. ``bound``: its fixed full scale, ``None`` for max|w|."""

    weight: Tensor
    site: Site
    bound: Tensor | None

    @property
    def hw(self) -> Hardware:
        return self.site.hw

    @property
    def w_max(self) -> Tensor:
        """The weight at full-scale conductance, detached: 0-d or [out, 1, ...]."""
        return full_scale(self.weight, self.hw, self.bound).to(self.weight.dtype)

    def normalised(self) -> Tensor:
        """w / w_max, clipped to [-1, 1]: what is beyond full scale cannot be held."""
        return (self.weight / self.w_max).clamp(-1.0, 1.0)

    def held(self) -> tuple[Tensor, ...]:
        """What the array is asked to hold, a bit slice each, in units of the weight and on its levels.

        Gradients pass straight through rounding and clipping.
        """
        return program(self.weight, self.site.op, self.hw.replace(wires=None), None, bound=self.bound).weights

    def targets_uS(self) -> tuple[Tensor, ...]:
        """Target conductances of :meth:`held`, [polarities, *weight.shape] a slice."""
        return tuple(to_conductances(w / self.w_max, self.hw) for w in self.held())


def analog_weights(model: nn.Module) -> Iterator[AnalogWeight]:
    """Every weight of ``model`` on hardware, once (a tied weight is one array)."""
    seen: set[int] = set()
    for _, layer in analog_layers(model):
        for parameter, site in layer.sites.items():
            weight = getattr(layer, parameter)
            if id(weight) not in seen:
                seen.add(id(weight))
                yield AnalogWeight(weight, site, getattr(layer, parameter + BOUND, None))


def required_weights(model: nn.Module, term: str) -> tuple[AnalogWeight, ...]:
    """:func:`analog_weights`, at least one; :class:`ConversionError` for a digital network."""
    found = tuple(analog_weights(model))
    if not found:
        raise ConversionError(
            f"PhysicsInformedLoss: {type(model).__name__} has no weight on analog hardware, and {term!r} is a property "
            f"of one. Way out: mho.convert(model, hardware) first, or {term} = 0."
        )
    return found


__all__ = ["AnalogWeight", "analog_weights", "required_weights"]
