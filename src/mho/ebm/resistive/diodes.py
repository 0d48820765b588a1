"""The voltage of one node that has resistors and a diode."""

import torch
from torch import Tensor

from mho.ebm.relax import RelaxationError
from mho.physics.diodes import Shockley

_MOST_STEPS = 60


def into_node_uA(diode: Shockley, v: Tensor, signs: Tensor) -> Tensor:
    """Current that the diode of a node brings into it: signs * i(bias - signs * v). Falls with v for both signs."""
    return signs * diode.current_uA(diode.bias_V - signs * v)


def node_voltage(v_linear: Tensor, total_uS: Tensor, signs: Tensor, diode: Shockley) -> Tensor:
    """The voltage at which G (v_linear - v) + into_node(v) = 0, elementwise.

    ``v_linear``: where the node would be without its diode, ``total_uS``: the sum G of its conductances. In y = signs v
    the left side is convex and falling, so Newton's method from a point left of the root climbs to it without
    overshooting; the start is the better of two lower bounds. Raises :class:`RelaxationError` with the largest
    remaining step where it does not come to rest (numbers that are not finite).
    """
    unit, leak = diode.unit_V, diode.saturation_uA
    target = signs * v_linear
    # y >= target - leak / G always. If the diode conducts (y < bias), exp((bias - y) / unit) <= demand / leak besides.
    demand = (total_uS * (diode.bias_V - target) + leak).clamp_min(leak)
    knee = diode.bias_V - unit * torch.log(demand / leak)
    y = torch.maximum(target - leak / total_uS, torch.minimum(knee, torch.full_like(knee, diode.bias_V)))
    # What rounding leaves of a step: that of the voltages which are subtracted from one another.
    near = 4.0 * torch.finfo(y.dtype).eps * (target.abs() + abs(diode.bias_V) + unit)
    step = y
    for _ in range(_MOST_STEPS):
        forward = diode.bias_V - y
        step = (total_uS * (target - y) + diode.current_uA(forward)) / (total_uS + diode.slope_uS(forward))
        y = y + step
        if bool((step.abs() <= near).all()):
            return signs * y
    worst = float(step.abs().max())
    raise RelaxationError(
        f"Shockley node: Newton's last step is {worst:.3g} V after {_MOST_STEPS} steps (driving voltages up to "
        f"{float(v_linear.abs().max()):.3g} V). Fix: finite conductances and inputs; float64 for a "
        "diode of very small n k T / q."
    )


__all__ = ["Shockley", "into_node_uA", "node_voltage"]
