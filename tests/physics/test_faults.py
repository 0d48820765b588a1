"""Stuck cells and dead lines: shares, priority, gradients."""

import pytest
import torch
from scipy import stats

from mho.errors import InputError
from mho.hardware.spec import Faults
from mho.physics import faults
from mho.rng import uniforms


def _in_binomial(count: int, n: int, p: float) -> bool:
    low, high = stats.binom.ppf([5e-6, 1 - 5e-6], n, p)
    return bool(low <= count <= high)


def test_shares_are_the_described_ones_and_a_mutant_is_seen() -> None:
    n = 100_000
    on, off = faults.stuck_masks(uniforms((n,), 0, "stuck"), Faults(stuck_on=0.2, stuck_off=0.3))
    for mask, share in ((on, 0.2), (off, 0.3)):
        assert _in_binomial(int(mask.sum()), n, share)
        assert not _in_binomial(int(mask.sum()), n, 1.05 * share)
    assert not (on & off).any()


def test_stuck_cells_sit_at_the_ends_and_healthy_ones_are_untouched() -> None:
    g = torch.linspace(2.0, 9.0, 8)
    u = torch.tensor([0.0, 0.05, 0.1, 0.15, 0.29, 0.3, 0.6, 0.999])
    got = faults.stuck(g, u, Faults(stuck_on=0.1, stuck_off=0.2), 1.0, 10.0)
    assert torch.equal(got, torch.cat([torch.tensor([10.0, 10.0, 1.0, 1.0, 1.0]), g[5:]]))
    assert torch.equal(g, torch.linspace(2.0, 9.0, 8))


def test_all_or_nothing() -> None:
    g, u = torch.rand(50, 4, generator=torch.Generator().manual_seed(0)), uniforms((50, 4), 1, "u")
    assert torch.equal(faults.stuck(g, u, Faults(), 0.0, 1.0), g)
    assert (faults.stuck(g, u, Faults(stuck_on=1.0), 0.0, 1.0) == 1.0).all()
    assert (faults.stuck(g, u, Faults(stuck_off=1.0), 0.25, 1.0) == 0.25).all()


def test_a_larger_share_keeps_the_stuck_cells_of_a_smaller_one() -> None:
    u = uniforms((10_000,), 2, "u")
    small, _ = faults.stuck_masks(u, Faults(stuck_on=0.01))
    large, _ = faults.stuck_masks(u, Faults(stuck_on=0.02))
    assert (large | ~small).all() and large.sum() > small.sum()


def test_dead_lines_carry_no_current() -> None:
    g = torch.ones(2, 3, 4)
    u_rows = torch.tensor([[0.05, 0.5, 0.9], [0.9, 0.9, 0.9]])
    u_cols = torch.tensor([[0.9, 0.9, 0.19, 0.9], [0.9, 0.9, 0.9, 0.2]])
    got = faults.dead_lines(g, u_rows, u_cols, Faults(dead_rows=0.1, dead_cols=0.2))
    expected = torch.ones(2, 3, 4)
    expected[0, 0] = 0
    expected[0, :, 2] = 0
    assert torch.equal(got, expected)
    assert torch.equal(faults.dead_lines(g, u_rows, u_cols, Faults()), g)


def test_share_of_dead_lines() -> None:
    n = 100_000
    spec = Faults(dead_rows=0.25)
    alive = faults.alive_lines(uniforms((n,), 3, "rows"), torch.tensor([0.5]), spec)
    dead = int((~alive).sum())
    assert _in_binomial(dead, n, 0.25) and not _in_binomial(dead, n, 0.25 * 1.05)


def test_gradient_reaches_healthy_cells_only() -> None:
    g = torch.full((2, 2), 5.0, requires_grad=True)
    u = torch.tensor([[0.0, 0.9], [0.9, 0.9]])
    spec = Faults(stuck_on=0.1, dead_cols=0.1)
    out = faults.dead_lines(
        faults.stuck(g, u, spec, 0.0, 10.0), torch.tensor([0.9, 0.9]), torch.tensor([0.9, 0.0]), spec
    )
    out.sum().backward()
    assert g.grad is not None and torch.equal(g.grad, torch.tensor([[0.0, 0.0], [1.0, 0.0]]))


def test_draws_of_the_wrong_shape_are_refused() -> None:
    g = torch.ones(3, 4)
    with pytest.raises(InputError, match="each cell needs a draw"):
        faults.stuck(g, torch.rand(4), Faults(stuck_on=0.1), 0.0, 1.0)
    with pytest.raises(InputError, match="one draw a line"):
        faults.dead_lines(g, torch.rand(4), torch.rand(3), Faults(dead_rows=0.1))
