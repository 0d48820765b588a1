"""Weights of a Hopfield network as cells that are written in pulses."""

import torch
from torch import nn

from mho.crossbar.ops import LinearOp
from mho.ebm.hopfield.network import HopfieldNet
from mho.errors import HardwareError, InputError
from mho.hardware.spec import Hardware
from mho.nn.site import BOUND, AnalogLayer, Site
from mho.train import AchievableUpdates
from mho.train.achievable_rules import Rule


def written_on_cells(
    net: HopfieldNet, optimizer: torch.optim.Optimizer, hw: Hardware, *, rule: Rule = "pulses", seed: int = 0
) -> AchievableUpdates:
    """``optimizer`` with its steps on the couplings of ``net`` written as the ``update`` of ``hw`` can.

    A coupling's full scale (``bound_sigma``) lies at the nearer bound of its cell; weights that start beyond it are
    set to it. Biases step digitally. ``rule``, ``seed`` and errors as of :class:`mho.train.AchievableUpdates`. Raises
    :class:`InputError` for a network without full scales, :class:`HardwareError` for a hardware without ``update``.
    """
    if hw.update is None:
        raise HardwareError(
            f"{hw.name}: update: it does not say how its cells answer to pulses. Fix: a table [update] in its file."
        )
    if not net.full_scales:
        raise InputError(
            "written_on_cells: the network has no full scales, of which a pulse is a share. Fix: bound_sigma=3.0."
        )
    layers = [_Written(holder, f"layers.{number}", hw) for number, holder in enumerate(net.layers)]
    cells = nn.ModuleDict({"layers": nn.ModuleList(layers)})
    if net.readout is not None:
        cells["readout"] = _Written(net.readout, "readout", hw)
    return AchievableUpdates(optimizer, hw, model=cells, rule=rule, outside="clamp", seed=seed)


class _Written(AnalogLayer):
    """The parameters of one layer that stand on cells, the very tensors, with their full scales."""

    def __init__(self, holder: nn.Module, where: str, hw: Hardware) -> None:
        super().__init__()
        self.sites = {}
        for name, weight in holder.named_parameters():
            bound = getattr(holder, name + BOUND, None)
            if bound is None:
                continue
            self.register_parameter(name, weight)
            self.register_buffer(name + BOUND, bound)
            matrix = weight.flatten(1)
            self.sites[name] = Site(f"{where}.{name}", LinearOp(matrix.shape[1], matrix.shape[0]), hw)

    def to_digital(self) -> nn.Module:
        raise InputError("a layer of a Hopfield network has no torch layer. Way out: HopfieldNet.values().")


__all__ = ["written_on_cells"]
