"""Converters whose settings are checked once and that are then called often: inference on a fabricated chip.

They compute the bits of :func:`~mho.crossbar.kernels.rounding.quantize` and
:func:`~mho.crossbar.kernels.rounding.adc_` without statistics. The caller vouches for the tensors: dense float32 on
the CPU, and nobody else's (their version counters do not move).
"""

from typing import final

import torch
from torch import Tensor

from mho.crossbar.kernels.layout import check_sigma, flat
from mho.crossbar.kernels.native import native
from mho.crossbar.kernels.rounding import adc_, quantize, scales


@final
class PreparedDac:
    """``quantize(x, r, levels)`` into a new tensor.

    Raises :class:`InputError` for a range or levels without a scale in float32.
    """

    def __init__(self, r: float, levels: float) -> None:
        self._r, self._levels = r, levels
        self._up, self._down = scales(r, levels)

    def __call__(self, x: Tensor) -> Tensor:
        out = torch.empty_like(x, requires_grad=False)
        kernels = native()
        library = kernels.library
        if library is None:
            quantize(x, self._r, self._levels, out, observe=False)
            return out
        numbers = self._r, self._up, self._down, self._levels, None
        library.mho_quantize(
            x.data_ptr(), out.data_ptr(), x.numel(), *numbers, kernels.parallel, torch.get_num_threads()
        )
        return out


@final
class PreparedAdc:
    """``adc_(y, sigma, seed, r, levels)`` in place, then ``y += bias``.

    ``y`` lies in memory as [A, O, P] with ``columns`` = O and ``inner`` = P (1 for rows and for channels last);
    ``sigma_map``: contiguous [A, P] or [A], times ``factors`` [O]; ``bias`` [O]: dense float32.
    Raises :class:`InputError` for a sigma, a range or levels that :func:`adc_` refuses.
    """

    def __init__(self, sigma: float, r: float, levels: float, columns: int, factors: Tensor | None = None) -> None:
        check_sigma(sigma)
        self._sigma, self._r, self._levels = sigma, r, levels
        self._columns, self._factors = columns, factors
        self._up, self._down = scales(r, levels)

    def __call__(self, y: Tensor, seed: int, inner: int, sigma_map: Tensor | None, bias: Tensor | None) -> None:
        kernels = native()
        library = kernels.library
        if library is None:
            shape = None if sigma_map is None else (y.numel() // (self._columns * inner), self._columns, inner)
            factors = None if sigma_map is None else self._factors
            adc_(
                y, self._sigma, seed, self._r, self._levels,
                shape=shape, sigma_map=sigma_map, columns=factors, observe=False,
            )  # fmt: skip
            if bias is not None:
                flat(y).view(-1, self._columns, inner).add_(bias.view(-1, 1))
            return
        maps = None if sigma_map is None else sigma_map.data_ptr()
        columns = None if self._factors is None else self._factors.data_ptr()
        numbers = self._sigma, seed, self._r, self._up, self._down, self._levels, None
        library.mho_adc(
            y.data_ptr(), maps, columns, None if bias is None else bias.data_ptr(), None, y.numel(), self._columns,
            inner, *numbers, kernels.parallel, torch.get_num_threads(),
        )  # fmt: skip
