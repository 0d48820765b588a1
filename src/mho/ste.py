"""Gradients where the arithmetic has none: rounding, and bounds.

Both functions are compositions of ordinary torch operations, so that ``torch.compile``, ``vmap``,
``torch.export``, forward mode and double backward work without rules of our own.
"""

import torch
from torch import Tensor


def straight_through(value: Tensor, proxy: Tensor) -> Tensor:
    """``value`` in the forward pass, the gradient of ``proxy`` in the backward pass.

    The forward result is ``value`` to the last bit wherever ``proxy`` is finite (an added exact 0;
    the sign of a zero may change). NaN in either stays NaN; an infinite ``proxy`` gives NaN.
    ``value`` and ``proxy`` broadcast and have one dtype.
    """
    return value.detach() + (proxy - proxy.detach())


def round_ste(x: Tensor) -> Tensor:
    """round(x), half to even, with the gradient of the identity (straight-through estimator).

    Bengio, Leonard, Courville 2013 (arXiv:1308.3432). Any shape, floating dtype, finite x; NaN stays NaN
    and an infinite x gives NaN.
    """
    return straight_through(torch.round(x), x)


def clamp(x: Tensor, lo: Tensor | float, hi: Tensor | float) -> Tensor:
    """min(max(x, lo), hi) with its exact gradient.

    d/dx is 1 for lo <= x <= hi and 0 outside; a bound that is a tensor gets the gradient of the
    elements which it holds (x < lo, x > hi). ``lo <= hi`` is the caller's duty. NaN stays NaN.
    """
    if isinstance(lo, Tensor) or isinstance(hi, Tensor):
        low = lo if isinstance(lo, Tensor) else torch.as_tensor(lo, dtype=x.dtype, device=x.device)
        high = hi if isinstance(hi, Tensor) else torch.as_tensor(hi, dtype=x.dtype, device=x.device)
        return torch.clamp(x, low, high)
    return torch.clamp(x, lo, hi)
