"""Variance of a cell over chips: closed forms, and samples of the very laws that program the chips."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

from mho.crossbar.ops import LinearOp
from mho.crossbar.variance import cell_moments
from mho.hardware import Environment, Faults, GenericCell, Hardware, Mapping, load_hardware
from mho.hardware.load import preset_names
from mho.nn.site import Site
from mho.objectives.weight_noise import has_weight_noise, weight_variance
from mho.objectives.weights import AnalogWeight
from mho.physics import cells

PRESETS = [name for name in preset_names() if has_weight_noise(load_hardware(name))]
SIGNED = Mapping(scheme="signed")


def _points(hw: Hardware) -> list[tuple[float, float]]:
    """(target in uS, variance in uS^2) of a cell at the age of the description."""
    moments = cell_moments(hw, hw.environment.t_s)
    return list(zip(moments.targets.tolist(), moments.variance.tolist(), strict=True))


def _weight(w: torch.Tensor, hw: Hardware, bound: float = 1.0) -> AnalogWeight:
    return AnalogWeight(w, Site("w", LinearOp(w.shape[1], w.shape[0]), hw), torch.tensor(bound, dtype=w.dtype))


def test_a_clipped_gaussian_has_the_variance_of_the_half_normal_law() -> None:
    table = dict(_points(Hardware(name="h", cell=GenericCell(programming_noise=0.1))))
    # Far from 0 nothing is clipped; at 0 half of the cells are: Var max(0, n) = 1/2 - 1/(2 pi).
    assert table[25.0] == pytest.approx(6.25, rel=1e-6)
    assert table[0.0] == pytest.approx(6.25 * (0.5 - 0.5 / math.pi), rel=2e-3)


def test_stuck_cells_are_a_mixture() -> None:
    hw = Hardware(name="h", cell=GenericCell(g_max_uS=20.0), faults=Faults(stuck_on=0.1, stuck_off=0.2))
    table = dict(_points(hw))
    mean = 0.7 * 10.0 + 0.1 * 20.0
    assert table[10.0] == pytest.approx(0.7 * 10.0**2 + 0.1 * 20.0**2 - mean**2, rel=1e-9)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("t_s", [0.0, 86400.0])
def test_the_table_is_what_sampling_the_laws_gives(name: str, t_s: float) -> None:
    hw = load_hardware(name).replace(environment=Environment(t_s=t_s), faults=Faults())
    cell, signed, n = hw.cell, hw.mapping.scheme == "signed", 100_000
    generator = torch.Generator().manual_seed(5)
    low, high = stats.chi2.ppf([0.5e-5, 1 - 0.5e-5], n - 1) / (n - 1)
    checked = 0
    for g, variance in _points(hw)[::128]:
        target = torch.full((n,), g, dtype=torch.float64)
        xi = torch.randn(2, n, generator=generator, dtype=torch.float64)
        held = cells.program(cell, target, xi[0], signed=signed)
        held = cells.age(cell, held, target, t_s, xi[1]) if t_s else held
        if variance < 1e-12:
            assert float(held.var()) < 1e-10
            continue
        checked += 1
        # The interval is that of normal samples; other laws (clips, drift exponents) widen it.
        z = (held - held.mean()) / held.std()
        wider = math.sqrt(max(1.0, (float(z.pow(4).mean()) - 1) / 2))
        interval = (1 - (1 - low) * wider - 2e-3, 1 + (high - 1) * wider + 2e-3)
        ratio = float(held.var()) / variance
        assert interval[0] < ratio < interval[1]
        if wider < 1.5:  # sigma 5 % off is seen
            assert not interval[0] < ratio * 1.05**2 < interval[1]
    assert checked >= 2


def test_uniform_noise_is_one_number_and_the_table_agrees_with_it() -> None:
    hw = Hardware(name="h", cell=GenericCell(programming_noise=0.05), mapping=SIGNED)
    w = torch.linspace(-0.9, 0.9, 6, dtype=torch.float64).reshape(2, 3)
    (plain,) = weight_variance(_weight(w, hw, 2.0))
    assert plain.dim() == 0
    assert float(plain) == pytest.approx((0.05 * 2.0) ** 2)
    (tabled,) = weight_variance(_weight(w, hw.replace(cell=GenericCell(programming_noise=0.05, bits=8)), 2.0))
    torch.testing.assert_close(tabled, plain.expand(2, 3))


@pytest.mark.parametrize(("scheme", "cells_of_a_weight"), [("differential", 2.0), ("offset", 4.0)])
def test_mappings_count_their_cells(scheme: str, cells_of_a_weight: float) -> None:
    # g_min far above 0, so that nothing is clipped: two cells a weight, or one whose span is two full scales.
    cell = GenericCell(programming_noise=0.01, g_min_uS=10.0, g_max_uS=30.0)
    hw = Hardware(name="h", cell=cell, mapping=Mapping(scheme=scheme))  # type: ignore[arg-type]
    (variance,) = weight_variance(_weight(torch.tensor([[0.3, -0.7, 0.0]], dtype=torch.float64), hw))
    torch.testing.assert_close(variance, torch.full_like(variance, cells_of_a_weight * 0.01**2))


def test_bit_slices_have_one_variance_each() -> None:
    mapping = Mapping(scheme="signed", slices=2, bits_per_slice=3)
    hw = Hardware(name="h", cell=GenericCell(programming_noise_rel=0.1), mapping=mapping)
    w = torch.tensor([[1.0, 10 / 63]], dtype=torch.float64)  # codes 7|7 and 1|2
    first, second = weight_variance(_weight(w, hw))
    for found, digits in ((first, [[1.0, 1 / 7]]), (second, [[1.0, 2 / 7]])):
        # A square, read linearly between 513 points.
        wanted = (0.1 * torch.tensor(digits, dtype=torch.float64)).square()
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_gradient_of_state_dependent_noise() -> None:
    hw = load_hardware("pcm-joshi2020")
    smooth = hw.replace(cell=replace(hw.cell, bits=None))

    def variance(w: torch.Tensor) -> torch.Tensor:
        return weight_variance(_weight(w, smooth))[0]

    w = torch.tensor([[0.311, -0.517, 0.713, -0.149]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(variance, w, eps=1e-7)
    assert bool((torch.autograd.grad(variance(w).sum(), w)[0] != 0).any())


def test_what_counts_as_weight_noise() -> None:
    aging = Hardware(name="h", cell=GenericCell(drift_nu=0.05, drift_nu_d2d=0.01), mapping=SIGNED)
    assert not has_weight_noise(aging)
    assert has_weight_noise(aging.replace(environment=Environment(t_s=60.0)))
    assert not has_weight_noise(load_hardware("ideal"))
    assert has_weight_noise(load_hardware("ideal").replace(faults=Faults(stuck_off=0.01)))
