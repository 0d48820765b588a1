"""How much noise each layer may have: its cost in loss against its price in energy.

    J(s) = sum_l 1/2 h_l s_l^2 + lambda kappa n_l / s_l^2,     s_l = (2 lambda kappa n_l / h_l)^(1/4)

h_l: trace of the Hessian of the loss for noise of unit variance at each output of layer l (the loss rises by h/2 s^2);
kappa n_l / s_l^2: energy of n_l outputs whose noise is thermal, where averaging longer, or more current, costs
energy in proportion to 1 / s^2. On the loss alone the best s is 0; this is the legitimate reason to learn it.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Literal

import torch
from torch import Tensor, nn

from mho.errors import InputError
from mho.nn.stochastic import StochasticResidual, probing

Loss = Callable[[Tensor, Tensor], Tensor]


def noise_budget(n: Tensor, h: Tensor, kappa: float, lam: float) -> Tensor:
    """s_l = (2 lambda kappa n_l / h_l)^(1/4), the minimum of :func:`budget_objective`, in units of the output.

    ``n`` [layers]: outputs (conversions) of each layer for one input; ``h`` [layers]: from
    :func:`noise_curvature`, loss a squared unit of output; ``kappa``: J times squared unit of output; ``lam``:
    loss a joule. All above 0, else :class:`InputError`: a layer with h <= 0 would take any noise.
    """
    _check_layers(n, h)
    _check_price(kappa, lam)
    return (2 * lam * kappa * n / h) ** 0.25


def noise_energy(s: Tensor, n: Tensor, kappa: float) -> Tensor:
    """sum_l kappa n_l / s_l^2, J for one input: what the levels ``s`` [layers] cost."""
    if not bool((s.detach() > 0).all()):
        raise InputError(
            "noise_energy: a level s is not above 0, its energy has no bound. Way out: s = exp(parameter)."
        )
    return (kappa * n / s.square()).sum()


def budget_objective(s: Tensor, n: Tensor, h: Tensor, kappa: float, lam: float) -> Tensor:
    """J(s) = sum_l 1/2 h_l s_l^2 + lambda kappa n_l / s_l^2, in units of the loss. Arguments as for noise_budget."""
    _check_layers(n, h)
    _check_price(kappa, lam)
    return (0.5 * h * s.square()).sum() + lam * noise_energy(s, n, kappa)


def _check_layers(n: Tensor, h: Tensor) -> None:
    if n.shape != h.shape:
        raise InputError(
            f"noise budget: n has shape {tuple(n.shape)}, h {tuple(h.shape)}. Way out: one number a layer."
        )
    for name, values, way_out in (
        ("n", n, "count the outputs of the layer"),
        ("h", h, "leave out a layer whose noise the loss does not see, or average h over more data"),
    ):
        bad = [(i, v) for i, v in enumerate(values.detach().reshape(-1).tolist()) if not 0 < v < float("inf")]
        if bad:
            raise InputError(
                f"noise budget: {name}[{bad[0][0]}] = {bad[0][1]:.4g}: must be finite and above 0. Way out: {way_out}."
            )


def _check_price(kappa: float, lam: float) -> None:
    for name, value in (("kappa", kappa), ("lam", lam)):
        if not 0 < value < float("inf"):
            raise InputError(f"noise budget: {name} = {value!r}: must be finite and above 0.")


def noise_layers(model: nn.Module) -> Mapping[str, StochasticResidual]:
    """The stochastic residual layers of ``model`` by name; raises :class:`InputError` where there is none."""
    found = {name: m for name, m in model.named_modules() if isinstance(m, StochasticResidual)}
    if not found:
        raise InputError(
            f"{type(model).__name__}: no StochasticResidual layer, no place where noise enters. Way out: build the "
            "network with such layers."
        )
    return found


def noise_curvature(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    *,
    method: Literal["difference", "hutchinson"] = "difference",
    step: float = 0.05,
    probes: int = 8,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """h_l of each :class:`StochasticResidual` layer of ``model``: d E[loss] / d (s_l^2 / 2) at s_l = 0.

    "difference": mean over ``probes`` of [L(+s v) + L(-s v) - 2 L(0)] / s^2 with v ~ N(0, I) and s = ``step`` times
    the rms of the tensor that the noise is added to; sees kinks (ReLU) that lie within s. "hutchinson": mean
    of v^T H v with v = +-1, by double backward: the limit s -> 0, in which a ReLU has no curvature of its own.
    ``loss(model(x), y)`` is a mean over independent samples. The model is measured in eval mode, one layer at
    a time, and left as it was; parameters are not touched. ``generator``: of the probes, on the
    CPU; ``None``: torch's own.
    """
    if method not in ("difference", "hutchinson"):
        raise InputError(f"noise_curvature: method = {method!r}: must be 'difference' or 'hutchinson'.")
    if probes < 1 or not 0 < step < float("inf"):
        raise InputError(f"noise_curvature: probes = {probes!r}, step = {step!r}: at least 1, and above 0.")
    layers = noise_layers(model)
    modes = {m: m.training for m in model.modules()}
    model.eval()
    try:
        if method == "difference":
            with torch.no_grad():
                return {n: _difference(model, m, x, y, loss, step, probes, generator) for n, m in layers.items()}
        return {n: _hutchinson(model, m, x, y, loss, probes, generator) for n, m in layers.items()}
    finally:
        for module, mode in modes.items():
            module.training = mode


def _difference(
    model: nn.Module,
    layer: StochasticResidual,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    step: float,
    probes: int,
    generator: torch.Generator | None,
) -> float:
    bases: list[Tensor] = []

    def record(base: Tensor) -> Tensor:
        bases.append(base)
        return base

    with probing(layer, record):
        middle = loss(model(x), y)
    if not bases:
        raise InputError("noise_curvature: a StochasticResidual layer is not used by the model's forward.")
    rms = torch.stack([b.square().mean() for b in bases]).mean().sqrt()
    size = step * torch.where(rms > 0, rms, torch.ones_like(rms))
    total = 0.0
    for _ in range(probes):
        draws = [torch.randn(b.shape, generator=generator).to(b) for b in bases]
        for sign in (1.0, -1.0):
            left = iter(draws)
            with probing(layer, lambda base, s=sign, left=left: base + s * size * next(left)):  # type: ignore[misc]
                total += float(loss(model(x), y) - middle)
    return total / probes / float(size) ** 2


def _hutchinson(
    model: nn.Module,
    layer: StochasticResidual,
    x: Tensor,
    y: Tensor,
    loss: Loss,
    probes: int,
    generator: torch.Generator | None,
) -> float:
    leaves: list[Tensor] = []

    def attach(base: Tensor) -> Tensor:
        leaves.append(torch.zeros_like(base).requires_grad_())
        return base + leaves[-1]

    with ExitStack() as stack, torch.enable_grad():
        stack.enter_context(probing(layer, attach))
        value = loss(model(x), y)
        if not leaves:
            raise InputError("noise_curvature: a StochasticResidual layer is not used by the model's forward.")
        slopes = torch.autograd.grad(value, leaves, create_graph=True)
        total = 0.0
        for _ in range(probes):
            signs = [(torch.randint(0, 2, s.shape, generator=generator) * 2 - 1).to(s) for s in slopes]
            along = torch.stack([(s * v).sum() for s, v in zip(slopes, signs, strict=True)]).sum()
            if not along.requires_grad:
                return 0.0  # the loss is linear in this layer's output
            bent = torch.autograd.grad(along, leaves, retain_graph=True, materialize_grads=True)
            total += sum(float((b * v).sum()) for b, v in zip(bent, signs, strict=True))
    return total / probes
