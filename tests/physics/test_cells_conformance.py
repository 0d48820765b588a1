"""The public conformance suite passes for every preset and catches broken laws."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from mho.errors import HardwareError
from mho.hardware import GenericCell, load_hardware, preset_names
from mho.physics import cells
from mho.testing import check_cell


@pytest.mark.parametrize("preset", preset_names())
def test_preset(preset: str) -> None:
    check_cell(load_hardware(preset).cell)


@pytest.mark.parametrize(
    "cell",
    [
        GenericCell(g_min_uS=2.0, bits=4, programming_noise_rel=0.1, read_noise_rel=0.1),
        GenericCell(sigma_table=((0.0, 0.0), (25.0, 1.0)), drift_nu=0.03, drift_nu_d2d=0.01),
    ],
)
def test_dials(cell: GenericCell) -> None:
    check_cell(cell)


@dataclass(frozen=True, kw_only=True)
class Broken(GenericCell):
    """A generic cell whose laws are replaced one by one."""


Law = Callable[..., object]


@contextmanager
def law_of_broken(law: Law, replacement: Law) -> Iterator[None]:
    law.register(Broken, replacement)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        law.register(Broken, law.dispatch(GenericCell))  # type: ignore[attr-defined]


def negative(cell: Broken, g: Tensor, xi: Tensor | None, *, signed: bool = False) -> Tensor:
    return g if xi is None else g + cell.programming_noise * 25 * xi


def in_place(cell: Broken, g: Tensor, xi: Tensor | None, *, signed: bool = False) -> Tensor:
    return g if xi is None or g.requires_grad else g.add_(xi.abs())


def redrawn(cell: Broken, g: Tensor, xi: Tensor | None, *, signed: bool = False) -> Tensor:
    return g if xi is None else (g + torch.randn_like(g)).clamp_min(0)


def mixing(cell: Broken, g: Tensor, xi: Tensor | None, *, signed: bool = False) -> Tensor:
    return g if xi is None else (g + 0.1 * g.sum() * xi).clamp_min(0)


def promoted(cell: Broken, g: Tensor, xi: Tensor | None, *, signed: bool = False) -> Tensor:
    return g.double() if xi is None else (g.double() + xi).clamp_min(0)


def not_zero_at_zero(cell: Broken, g: Tensor, target: Tensor, t_s: float, xi: Tensor | None) -> Tensor:
    return g * 0.99


def back_and_forth(cell: Broken, g: Tensor, target: Tensor, t_s: float, xi: Tensor | None) -> Tensor:
    return g if t_s == 0 else g * (0.5 if t_s == 25.0 else 0.9)


def deaf(cell: Broken, g: Tensor, target: Tensor, t_s: float, xi: Tensor | None) -> Tensor:
    return g


@pytest.mark.parametrize(
    ("law", "replacement", "message"),
    [
        (cells.program, negative, "negative"),
        (cells.program, in_place, "in place|function of its inputs"),
        (cells.program, redrawn, "function of its inputs"),
        (cells.program, mixing, "mixes"),
        (cells.program, promoted, "dtype"),
        (cells.age, not_zero_at_zero, "t = 0"),
        (cells.age, back_and_forth, "back and forth"),
        (cells.age, deaf, "accepts t_s"),
        (cells.static_draws, lambda cell: frozenset({"aging"}), "static_draws"),
        (cells.has_read_noise, lambda cell: True, "has_read_noise"),
        (cells.scale_noise, lambda cell, factor: cell, "scale_noise"),
        (cells.uniform_programming_sigma, lambda cell: 0.2, "uniform_programming_sigma"),
    ],
)
def test_broken_laws_are_caught(law: Law, replacement: Law, message: str) -> None:
    check_cell(Broken(programming_noise=0.1))
    with law_of_broken(law, replacement), pytest.raises(AssertionError, match=message):
        check_cell(Broken(programming_noise=0.1))


@pytest.mark.parametrize("preset", ["pcm-joshi2020", "reram-wan2022", "photonic-mzi"])
def test_laws_compile_without_a_break_and_agree(preset: str) -> None:
    cell = load_hardware(preset).cell

    def chain(target: Tensor, xi: Tensor, t_s: float) -> Tensor:
        g = cells.age(cell, cells.program(cell, cells.quantize_levels(cell, target), xi), target, t_s, xi)
        return g + cells.read_sigma_uS(cell, g, target, t_s)

    torch.compiler.reset()  # all presets share one code object and its limit of recompilations
    compiled = torch.compile(chain, fullgraph=True, backend="eager")
    target, xi = torch.linspace(0, cell.g_max_uS, 20), torch.linspace(-2, 2, 20)
    for t_s in (0.0, 1.0, 3600.0, 1e6):
        torch.testing.assert_close(compiled(target, xi, t_s), chain(target, xi, t_s))


@pytest.mark.parametrize("preset", preset_names())
def test_chips_can_be_a_leading_axis(preset: str) -> None:
    cell = load_hardware(preset).cell
    target = torch.linspace(cell.g_min_uS, cell.g_max_uS, 6)
    xi = torch.linspace(-2, 2, 18).reshape(3, 6)
    together = cells.age(cell, cells.program(cell, target, xi).expand(3, 6), target, 100.0, xi)
    for chip in range(3):
        alone = cells.age(cell, cells.program(cell, target, xi[chip]), target, 100.0, xi[chip])
        torch.testing.assert_close(together[chip], alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("preset", preset_names())
def test_short_dtypes_are_kept_and_stay_finite(preset: str, dtype: torch.dtype) -> None:
    cell = load_hardware(preset).cell
    target = torch.linspace(cell.g_min_uS, cell.g_max_uS, 9, dtype=dtype)
    xi = torch.linspace(-2, 2, 9)
    g = cells.age(cell, cells.program(cell, target, xi), target, 1e5, xi)
    sigma = cells.read_sigma_uS(cell, g, target, 1e5)
    assert g.dtype == sigma.dtype == dtype
    assert torch.isfinite(g).all() and torch.isfinite(sigma).all()


@pytest.mark.parametrize("factor", [-1.0, float("nan"), float("inf")])
def test_impossible_factors(factor: float) -> None:
    with pytest.raises(HardwareError, match="factor"):
        cells.scale_noise(load_hardware("pcm-hermes").cell, factor)
