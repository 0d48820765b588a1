"""The true gradient of a cost at rest by implicit differentiation: the oracle of equilibrium propagation.

At rest dE/ds = 0 on the units inside their bounds, so ds/dtheta = -H^-1 d2E/ds dtheta there with H = d2E/ds2, and

    dl/dtheta = partial l/partial theta - a^T d2E/ds dtheta,   H a = dl/ds  on those units, a = 0 on the others.
"""

import torch
from torch import Tensor

from mho.ebm.hopfield.clamped import clamp
from mho.ebm.hopfield.costs import Cost
from mho.ebm.hopfield.network import HopfieldNet
from mho.ebm.relax import Relaxation, States
from mho.errors import InputError

MOST_UNITS = 4096


def implicit_gradient(
    net: HopfieldNet, x: Tensor, y: Tensor, *, cost: Cost | None = None, free: Relaxation | None = None
) -> dict[str, Tensor]:
    """Exact gradient of the mean cost at rest, by parameter name; arguments as of ``eqprop_gradient``.

    A dense solve an example over all its units, by autograd of the energy and not by the couplings' own rules: for
    tests and small networks. Use float64 and a tight tolerance. Where a unit rests exactly on its bound the cost
    has two one-sided derivatives, and this is the one of the bound. Raises :class:`InputError` above 4,096 units an
    example.
    """
    system = clamp(net, x, cost=cost)
    rest = system.run(system.start, free or net.relaxation, "free phase").states
    sizes = [s[0].numel() for s in rest]
    if sum(sizes) > MOST_UNITS:
        raise InputError(
            f"implicit_gradient: {sum(sizes)} units an example, more than {MOST_UNITS}. Way out: eqprop_gradient."
        )
    values = {name: value.detach().clone().requires_grad_() for name, value in net.named_parameters()}
    inside = torch.cat([layer.activation.free(s).flatten(1) for layer, s in zip(net.described, rest, strict=True)], 1)

    def split(flat: Tensor) -> States:
        return [part.reshape(s[:1].shape) for part, s in zip(flat.split(sizes, 1), rest, strict=True)]

    flat = torch.cat([s.flatten(1) for s in rest], 1).detach()
    adjoint = torch.zeros_like(flat)
    held = {name: value.detach() for name, value in values.items()}
    for n in range(len(x)):
        state = flat[n : n + 1]
        hessian = torch.autograd.functional.hessian(
            lambda s, n=n: net.energy(split(s), x[n : n + 1], held).sum(), state
        )
        hessian = hessian.reshape(flat.shape[1], flat.shape[1])
        seen = state.clone().requires_grad_()
        last = split(seen)[-1]
        (slope,) = torch.autograd.grad(system.cost.loss(last, y[n : n + 1], held).sum(), seen)
        moving = inside[n]
        adjoint[n, moving] = torch.linalg.solve(hessian[moving][:, moving], slope[0, moving])
    with torch.enable_grad():
        states = [part.reshape(s.shape) for part, s in zip(flat.split(sizes, 1), rest, strict=True)]
        states = [s.detach().requires_grad_() for s in states]
        slopes = torch.autograd.grad(net.energy(states, x, values).sum(), states, create_graph=True)
        along = torch.cat([slope.flatten(1) for slope in slopes], 1)
        total = system.cost.loss(states[-1], y, values).sum() - (along * adjoint).sum()
        found = torch.autograd.grad(total, list(values.values()), allow_unused=True)
    return {
        name: (torch.zeros_like(value) if grad is None else grad / len(x))
        for (name, value), grad in zip(values.items(), found, strict=True)
    }


__all__ = ["implicit_gradient"]
