"""Parameters of an energy model as the conductances of a chip.

An energy model has symmetric couplings that are read in both directions, and states instead of layer inputs, so
it does not use the layers of :mod:`mho.nn`. What a chip does to a parameter is the same physics: this module
hands each tensor to :func:`mho.crossbar.program` and returns what the array holds.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mho.crossbar.array import is_ideal, program, slice_factors
from mho.crossbar.noise import Counter, Draw, StaticDraws, draw_static
from mho.crossbar.ops import LinearOp
from mho.errors import HardwareError, InputError
from mho.hardware.spec import Hardware
from mho.rng import derive_seed, normals
from mho.ste import round_ste
from mho.units import seconds


@dataclass(frozen=True, eq=False)
class Cells:
    """One parameter on one chip.

    ``value``: what the array holds, in the shape and units of the parameter. ``read_var``: variance that one read
    of a cell adds, in squared units of the parameter; it broadcasts to ``value``: 0-d when it is the same for all
    cells, [out, 1, ...] when it is the same along a column; ``None`` where reads are noiseless.
    """

    value: Tensor
    read_var: Tensor | None = None


def program_cells(
    parameters: Mapping[str, Tensor],
    hw: Hardware,
    *,
    chip_seed: int | None,
    age: float | str | None = None,
    bounds: Mapping[str, Tensor | float] | None = None,
    digital: Collection[str] = (),
    counter: bool = False,
) -> dict[str, Cells]:
    """Program every parameter on the chip ``chip_seed`` of ``hw``.

    A tensor [out, ...] is one matrix [out, rest] (a kernel [out, in, kh, kw] has in*kh*kw rows); a vector [n] is
    one column of n cells, a number one cell. ``chip_seed=None``: no randomness (levels, wires and mean drift
    remain). ``age``: seconds or text ("1 day") after programming; ``None``: ``hw.environment.t_s``. ``bounds``:
    the fixed full scale of a parameter by name (larger values saturate); without it, max|w|, of each output where
    ``hw.mapping.per_column``. ``digital``: names that are no conductances and stay as they are. ``counter=True``
    draws the same law from counter-based streams: faster, other numbers, for training where each step is another
    chip.

    Everything is differentiable; rounding to levels and saturation pass gradients as in ``mho.crossbar``. A
    chip depends on its seed and the parameters' names alone. Ideal hardware returns the very tensors.

    Raises :class:`InputError` for a tensor that is empty, not floating or not finite, for unknown names in
    ``bounds`` or ``digital``; :class:`HardwareError` for periphery that this module cannot represent.
    """
    refuse_periphery(hw)
    t_s = hw.environment.t_s if age is None else seconds(age)
    limits = dict(bounds or {})
    for what, names in (("bounds", limits), ("digital", digital)):
        unknown = sorted(set(names) - set(parameters))
        if unknown:
            raise InputError(
                f"program_cells: {what} names {unknown[0]!r}, which is no parameter. Known: {sorted(parameters)}."
            )
    ideal = is_ideal(hw)
    found = {}
    for name, wanted in parameters.items():
        _check(name, wanted)
        plain = name in digital or (ideal and name not in limits)
        found[name] = Cells(wanted) if plain else _one(name, wanted, hw, chip_seed, t_s, limits.get(name), counter)
    return found


def programmed(
    parameters: Mapping[str, Tensor],
    hw: Hardware,
    *,
    chip_seed: int | None,
    age: float | str | None = None,
    bounds: Mapping[str, Tensor | float] | None = None,
    digital: Collection[str] = (),
    counter: bool = False,
) -> dict[str, Tensor]:
    """The values that the chip ``chip_seed`` holds instead of the wanted ones; arguments of :func:`program_cells`.

    >>> import torch
    >>> from mho.hardware import load_hardware
    >>> w = {"w": torch.eye(3)}
    >>> programmed(w, load_hardware("ideal"), chip_seed=0)["w"] is w["w"]
    True
    """
    cells = program_cells(parameters, hw, chip_seed=chip_seed, age=age, bounds=bounds, digital=digital, counter=counter)
    return {name: cell.value for name, cell in cells.items()}


def read_noise(x: Tensor, cells: Cells, *, transposed: bool = False) -> Tensor | None:
    """Standard deviation of one read of y = x W^T (``transposed``: y = x W): what is added afresh each time.

    sigma_o = sqrt(sum_i v_oi x_i^2) with v the read variance of a cell. ``x`` [..., in] (transposed: [..., out]);
    the matrix is ``value.flatten(1)``. Returns [..., 1] where all cells have one variance (the same for all
    outputs), else [..., out] (transposed: [..., in]); ``None`` where reads are noiseless.
    """
    variance = cells.read_var
    if variance is None:
        return None
    energy = x.square()
    if variance.dim() == 0:
        return (energy.sum(-1, keepdim=True) * variance).sqrt_()
    matrix = variance.flatten(1) if variance.dim() > 1 else variance.reshape(1, -1)
    if matrix.shape[1] == 1 and cells.value.dim() > 1:  # one variance a column of cells
        if transposed:
            return (energy @ matrix).sqrt_()
        return (energy.sum(-1, keepdim=True) * matrix.t()).sqrt_()
    return (energy @ (matrix if transposed else matrix.t())).sqrt_()


def quantized_states(states: Tensor, bits: int | None, low: float = 0.0, high: float = 1.0) -> Tensor:
    """States on the 2**bits equally spaced levels from ``low`` to ``high``, both included; straight-through.

    ``bits=None`` returns the very tensor. States outside [low, high] saturate, as converters do. Raises
    :class:`InputError` for less than 1 bit or an empty range.

    >>> import torch
    >>> quantized_states(torch.tensor([0.1, 0.6, 2.0]), 1).tolist()
    [0.0, 1.0, 1.0]
    """
    if bits is None:
        return states
    if isinstance(bits, bool) or not isinstance(bits, int) or bits < 1 or not low < high:
        raise InputError(
            f"quantized_states: bits = {bits!r} between {low} and {high}: needs bits >= 1 and low < high. Way out: "
            "bits=None for states that are not converted."
        )
    top = 2**bits - 1
    scaled = (states.clamp(low, high) - low) * (top / (high - low))
    return round_ste(scaled) * ((high - low) / top) + low


def state_bits(hw: Hardware) -> int | None:
    """Bits with which states are converted on ``hw``: the smaller of its DAC's and ADC's; ``None`` without either."""
    bits = [c.bits for c in (hw.dac, hw.adc) if c is not None and c.bits is not None]
    return min(bits) if bits else None


def refuse_periphery(hw: Hardware) -> None:
    """Raise :class:`HardwareError` where ``hw`` describes periphery that parameters alone cannot carry."""
    dac, adc = hw.dac, hw.adc
    found = {
        "neuron": hw.neuron is not None,
        "dac.gain_d2d or dac.inl_lsb": dac is not None and bool(dac.gain_d2d or dac.inl_lsb),
        "adc.gain_d2d, adc.offset_d2d_lsb or adc.inl_lsb": adc is not None
        and bool(adc.gain_d2d or adc.offset_d2d_lsb or adc.inl_lsb),
        "adc.enob": adc is not None and adc.enob is not None,
        "output_noise": hw.output_noise > 0,
        "readout.thermal or readout.fano": hw.readout.thermal or hw.readout.fano > 0,
        "readout.repeats": hw.readout.repeats > 1,
        "readout.column_windows": bool(hw.readout.column_windows),
    }
    for part, there in found.items():
        if there:
            raise HardwareError(
                f"{hw.name}: {part}: an energy model has no column readout that this could act on. Way out: the same "
                "description without it (hw.replace(...)); converter bits, cells, faults and wires are modelled."
            )


def _check(name: str, wanted: Tensor) -> None:
    if not wanted.is_floating_point() or wanted.numel() == 0:
        raise InputError(f"{name}: {tuple(wanted.shape)} {wanted.dtype}: no floating tensor with elements.")
    if not bool(torch.isfinite(wanted.detach().sum())) and not bool(torch.isfinite(wanted.detach()).all()):
        raise InputError(f"{name}: holds NaN or infinity. Way out: load the last good checkpoint.")


def _one(
    name: str,
    wanted: Tensor,
    hw: Hardware,
    chip_seed: int | None,
    t_s: float,
    bound: Tensor | float | None,
    counter: bool,
) -> Cells:
    matrix = wanted.flatten(1) if wanted.dim() > 1 else wanted.reshape(1, -1)
    op = LinearOp(matrix.shape[1], matrix.shape[0])
    limit = None if bound is None else torch.as_tensor(bound, dtype=wanted.dtype, device=wanted.device)
    if limit is not None and not bool((limit > 0).all()):
        raise InputError(f"{name}: bound = {bound!r}: a full scale is positive. Way out: leave it out for max|w|.")
    draws: StaticDraws | None = None
    if chip_seed is not None:

        def source(shape: tuple[int, ...], label: str) -> Draw:
            if counter:
                return Counter(derive_seed(chip_seed or 0, name, label))
            return normals(shape, chip_seed or 0, name, label)

        draws = draw_static(op, hw, matrix.shape, source)
    if draws is not None and wanted.device.type != "cpu":
        draws = StaticDraws(*(d.to(wanted.device) if isinstance(d, Tensor) else d for d in draws))
    array = program(matrix, op, hw, draws, t_s=t_s, bound=limit)
    factors = slice_factors(hw)
    value = _weighted(array.weights, factors).reshape(wanted.shape)
    if array.read_var is None:
        return Cells(value)
    variance = _weighted(array.read_var, tuple(f * f for f in factors)).detach()
    if variance.numel() == 1:
        return Cells(value, variance.reshape(()))
    if variance.shape[1] == 1 and wanted.dim() > 1:
        return Cells(value, variance.reshape(-1, *([1] * (wanted.dim() - 1))))
    return Cells(value, variance.expand_as(matrix).reshape(wanted.shape))


def _weighted(parts: tuple[Tensor, ...], factors: tuple[float, ...]) -> Tensor:
    if len(parts) == 1 and math.isclose(factors[0], 1.0):
        return parts[0]
    total = parts[0] * factors[0]
    for part, factor in zip(parts[1:], factors[1:], strict=True):
        total = total + part * factor
    return total


__all__ = [
    "Cells",
    "program_cells",
    "programmed",
    "quantized_states",
    "read_noise",
    "refuse_periphery",
    "state_bits",
]
