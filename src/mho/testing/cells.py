"""Conformance of a memory cell's laws: what the rest of the package relies on, for any technology."""

import math

import torch
from torch import Tensor

from mho.errors import HardwareError
from mho.hardware.cells import Cell
from mho.physics import cells
from mho.rng import normals

AGES_S = (1e-3, 1.0, 25.0, 86_400.0, 31_557_600.0)


def check_cell(cell: Cell) -> None:
    """Raise ``AssertionError`` where the registered laws of ``cell`` break the contract of ``mho.physics.cells``.

    Positive and finite conductances; shape, dtype and inputs kept; t = 0 is programming alone; mean
    drift in one direction; a cell depends on its own normals only; finite gradients; levels inside the
    range; ``static_draws``, ``has_read_noise``, ``scale_noise`` and ``uniform_*`` tell the truth.
    """
    for dtype in (torch.float32, torch.float64):
        target = torch.linspace(cell.g_min_uS, cell.g_max_uS, 33, dtype=dtype).reshape(3, 11)
        xi = normals((3, 11), "check_cell", "programming").to(dtype)
        eta = normals((3, 11), "check_cell", "aging").to(dtype)
        _check_values(cell, target, xi, eta)
        _check_gradient(cell, target, xi, eta)
        _check_truth(cell, target, xi, eta)
    _check_levels(cell)
    _check_scaling(cell)
    _check_uniform(cell)


def _require(condition: bool, cell: Cell, what: str) -> None:
    if not condition:
        raise AssertionError(f"{type(cell).__name__}: {what}")


def _good(cell: Cell, g: Tensor, like: Tensor, what: str) -> None:
    _require(g.shape == like.shape and g.dtype == like.dtype, cell, f"{what} changes shape or dtype")
    _require(bool(torch.isfinite(g).all()), cell, f"{what} is not finite")
    _require(bool((g >= 0).all()), cell, f"{what} is negative")


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def _check_values(cell: Cell, target: Tensor, xi: Tensor, eta: Tensor) -> None:
    inputs = (target, xi, eta)
    before = [t.clone() for t in inputs]
    g0 = cells.program(cell, target, xi)
    _good(cell, g0, target, "program")
    _require(torch.equal(g0, cells.program(cell, target, xi)), cell, "program is not a function of its inputs")
    _require(_close(cells.program(cell, target[1:, 2:], xi[1:, 2:]), g0[1:, 2:]), cell, "program mixes cells")
    _require(_close(cells.program(cell, target, None), target), cell, "program without error misses the target")
    _require(torch.equal(cells.age(cell, g0, target, 0.0, eta), g0), cell, "age at t = 0 is not programming alone")
    empty = target[:0]
    _require(cells.program(cell, empty, xi[:0]).shape == empty.shape, cell, "program refuses an empty tensor")
    _require(cells.age(cell, empty, empty, 1.0, eta[:0]).shape == empty.shape, cell, "age refuses an empty tensor")
    typical = [target]
    for t_s in AGES_S:
        g = cells.age(cell, g0, target, t_s, eta)
        _good(cell, g, target, f"age at {t_s} s")
        cells.age(cell, g0, target, 10 * t_s, eta)
        _require(torch.equal(g, cells.age(cell, g0, target, t_s, eta)), cell, "an age depends on ages read before")
        part = cells.age(cell, g0[1:, 2:], target[1:, 2:], t_s, eta[1:, 2:])
        _require(_close(part, g[1:, 2:]), cell, "age mixes cells")
        sigma = cells.read_sigma_uS(cell, g, target, t_s)
        _require(sigma.dim() == 0 or sigma.shape == g.shape, cell, "read sigma is neither 0-d nor of g's shape")
        _good(cell, sigma, sigma.to(target.dtype), f"read sigma at {t_s} s")
        _require(sigma.dtype == g.dtype, cell, "read sigma changes the dtype")
        typical.append(cells.age(cell, target, target, t_s, None))
    steps = torch.stack(typical).diff(dim=0)
    tiny = 1e-5 * cell.g_max_uS
    _require(bool((steps <= tiny).all() or (steps >= -tiny).all()), cell, "mean drift goes back and forth")
    _require(all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True)), cell, "an input was changed in place")
    for wrong in (-1.0, math.inf, math.nan):
        try:
            cells.age(cell, g0, target, wrong, eta)
        except HardwareError:
            continue
        raise AssertionError(f"{type(cell).__name__}: age accepts t_s = {wrong}")


def _check_gradient(cell: Cell, target: Tensor, xi: Tensor, eta: Tensor) -> None:
    leaf = target.clone().requires_grad_()
    g = cells.age(cell, cells.program(cell, leaf, xi), leaf, 86_400.0, eta)
    total = g.sum() + cells.read_sigma_uS(cell, g, leaf, 86_400.0).sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    _require(bool(torch.isfinite(gradient).all()), cell, "a gradient is not finite")
    _require(bool((gradient != 0).any()), cell, "no gradient reaches the target")


def _check_truth(cell: Cell, target: Tensor, xi: Tensor, eta: Tensor) -> None:
    draws = cells.static_draws(cell)
    _require(draws <= {"programming", "aging"}, cell, f"static_draws names {set(draws)}")
    programs = not torch.equal(cells.program(cell, target, xi), cells.program(cell, target, -xi))
    _require(programs == ("programming" in draws), cell, "static_draws is wrong about programming")
    late = AGES_S[-1]
    ages = not torch.equal(cells.age(cell, target, target, late, eta), cells.age(cell, target, target, late, -eta))
    _require(ages == ("aging" in draws), cell, "static_draws is wrong about aging")
    noisy = bool((cells.read_sigma_uS(cell, target, target, 86_400.0) > 0).any())
    _require(noisy == cells.has_read_noise(cell), cell, "has_read_noise is wrong")
    _require(cells.measured_until_s(cell) > 0, cell, "measured_until_s is not positive")


def _check_levels(cell: Cell) -> None:
    grid = torch.linspace(cell.g_min_uS, cell.g_max_uS, 1001, dtype=torch.float64, requires_grad=True)
    levels = cells.quantize_levels(cell, grid)
    (gradient,) = torch.autograd.grad(levels.sum(), grid)
    _require(bool((gradient == 1).all()), cell, "quantize_levels stops the gradient")
    if cell.bits is None:
        _require(torch.equal(levels, grid), cell, "quantize_levels without bits is not the identity")
        return
    tiny = 1e-9 * cell.g_max_uS
    inside = (levels >= cell.g_min_uS - tiny).all() and (levels <= cell.g_max_uS + tiny).all()
    _require(bool(inside), cell, "a level is outside g_min .. g_max")
    _require(_close(cells.quantize_levels(cell, levels), levels), cell, "quantize_levels is not idempotent")
    count = len(torch.unique(levels.detach().mul(1 / cell.g_max_uS).round(decimals=9)))
    _require(count == min(2**cell.bits, 1001) or cell.bits > 9, cell, f"{count} levels from {cell.bits} bits")


def _check_scaling(cell: Cell) -> None:
    quiet = cells.scale_noise(cell, 0.0)
    _require(type(quiet) is type(cell), cell, "scale_noise changes the technology")
    _require(not cells.static_draws(quiet) and not cells.has_read_noise(quiet), cell, "scale_noise(0) leaves noise")
    _require(cells.scale_noise(cell, 1.0) == cell, cell, "scale_noise(1) changes the cell")
    try:
        cells.scale_noise(cell, -1.0)
    except HardwareError:
        return
    raise AssertionError(f"{type(cell).__name__}: scale_noise accepts a negative factor")


def _check_uniform(cell: Cell) -> None:
    span = cell.g_max_uS - cell.g_min_uS
    target = torch.linspace(-span, span, 17, dtype=torch.float64)
    sigma = cells.uniform_programming_sigma(cell)
    if sigma is not None:
        g = cells.program(cell, target, torch.ones_like(target), signed=True)
        _require(_close(g, target + sigma * span), cell, "uniform_programming_sigma is not what program does")
    read = cells.uniform_read_sigma(cell)
    if read is not None:
        said = cells.read_sigma_uS(cell, target, target, 1.0)
        _require(said.dim() == 0 and math.isclose(float(said), read * span, rel_tol=1e-6), cell, "uniform_read_sigma")
