"""Weights of a Hopfield network as cells that are written in pulses."""

import torch

from mho.ebm.hopfield.network import HopfieldNet
from mho.errors import HardwareError, InputError
from mho.hardware.spec import Hardware
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
    return AchievableUpdates(optimizer, hw, model=net, rule=rule, outside="clamp", seed=seed)


__all__ = ["written_on_cells"]
