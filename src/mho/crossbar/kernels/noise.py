"""Standard normals, and a tensor with normal noise, in one pass."""

import math

import torch

from mho.crossbar.kernels import reference
from mho.crossbar.kernels.layout import check_same_layout, check_seed, check_sigma, check_tensor, flat, written
from mho.crossbar.kernels.native import native
from mho.errors import InputError


def normal_(out: torch.Tensor, seed: int) -> torch.Tensor:
    """Fill ``out`` in place with independent standard normals and return it.

    Element i, in the order of memory, depends on ``(seed, i)`` alone: not on the number of threads, the length, or
    the machine. ``out``: any dense float32 CPU tensor; ``seed``: 0 <= seed < 2**64. |z| <= 6.66 (a tail of 3e-11).

    Raises :class:`mho.errors.InputError` for any other tensor or seed.
    Source: Box and Muller, Ann. Math. Stat. 29 (1958); xoshiro128++: Blackman and Vigna, ACM TOMS 47(4) (2021).
    """
    check_tensor("out", out)
    check_seed(seed)
    kernels = native()
    if kernels.library is None:
        flat(out.detach()).copy_(reference.normals(out.numel(), seed))
        return out
    kernels.library.mho_normal(out.data_ptr(), out.numel(), seed, kernels.parallel, torch.get_num_threads())
    return written(out)


def add_normal(
    base: torch.Tensor,
    sigma: float,
    seed: int,
    out: torch.Tensor | None = None,
    lo: float = -math.inf,
    hi: float = math.inf,
) -> torch.Tensor:
    """``out = clamp(base, lo, hi) + sigma z``, z the numbers of :func:`normal_`; ``out`` may be ``base``.

    ``base``, ``out``: dense float32 CPU tensors of one shape and layout; ``sigma``: >= 0, in the units of ``base``.
    NaN stays NaN. Raises :class:`mho.errors.InputError` for other tensors, seeds, sigmas, or lo > hi.
    """
    check_tensor("base", base)
    check_seed(seed)
    check_sigma(sigma)
    if not lo <= hi:
        raise InputError(f"mho.crossbar.kernels.add_normal: lo {lo} must not be above hi {hi}")
    if out is None:
        out = torch.empty_like(base, requires_grad=False)
    else:
        check_tensor("out", out)
        check_same_layout("base", base, "out", out)
    kernels = native()
    if kernels.library is None:
        flat(out.detach()).copy_(reference.add_normal(flat(base.detach()), sigma, seed, lo, hi))
        return out
    kernels.library.mho_add_normal(
        base.data_ptr(),
        out.data_ptr(),
        base.numel(),
        sigma,
        lo,
        hi,
        seed,
        kernels.parallel,
        torch.get_num_threads(),
    )
    return written(out)
