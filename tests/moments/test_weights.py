"""Moments of cells against cells that are drawn."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mho.chips.substrate import fabricate_array
from mho.crossbar.array import slice_factors
from mho.crossbar.ops import LinearOp
from mho.errors import HardwareError
from mho.hardware import Faults, GenericCell, Hardware, Mapping, Wires, load_hardware
from mho.moments import weight_moments
from mho.nn.site import Site
from mho.testing import assert_law, law_holds

N = 100_000
OP = LinearOp(N // 100, 100)
LEVELS = torch.tensor([1.0, 0.55, 0.0, -0.2])
"""The largest weight sets the full scale; each level fills a quarter of the matrix."""


def drawn(hw: Hardware, t_s: float, bound: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(target weights, effective weights of one chip), [100, 1000]."""
    w = LEVELS.repeat_interleave(25)[:, None].expand(100, N // 100).contiguous()
    array = fabricate_array(Site("w", OP, hw), w, bound, 3, t_s)
    return w, sum(f * a for f, a in zip(slice_factors(hw), array.weights, strict=True))  # type: ignore[return-value]


def test_one_additive_normal_is_exact() -> None:
    hw = Hardware(name="additive", cell=GenericCell(programming_noise=0.1), mapping=Mapping(scheme="signed"))
    w, held = drawn(hw, 0.0)
    found = weight_moments(w, OP, hw)
    assert torch.equal(found.mean, w)
    assert found.column_var is not None
    standard = (held - found.mean) / found.var.sqrt()
    assert_law(standard, sigma=1.0, mean=0.0)
    assert not law_holds(standard * 1.05, sigma=1.0, mean=0.0)


def test_a_bound_per_column_clips_and_scales() -> None:
    hw = Hardware(
        name="bound", cell=GenericCell(programming_noise=0.1), mapping=Mapping(scheme="signed", per_column=True)
    )
    bound = torch.full((100,), 0.5)
    w, held = drawn(hw, 0.0, bound)
    found = weight_moments(w, OP, hw, bound=bound)
    assert torch.equal(found.mean, w.clamp(-0.5, 0.5))
    assert torch.allclose(found.var, torch.full_like(w, 0.05**2))
    assert_law((held - found.mean) / found.var.sqrt(), sigma=1.0, mean=0.0)


CASES = {
    "differential, clipped at 0": (Hardware(name="d", cell=GenericCell(programming_noise=0.1)), 0.0),
    "offset, relative": (
        Hardware(name="o", cell=GenericCell(programming_noise_rel=0.1), mapping=Mapping(scheme="offset")),
        0.0,
    ),
    "slices": (
        Hardware(name="s", cell=GenericCell(programming_noise=0.05), mapping=Mapping(slices=2, bits_per_slice=3)),
        0.0,
    ),
    "drift": (Hardware(name="t", cell=GenericCell(drift_nu=0.05, drift_nu_d2d=0.02)), 1e5),
    "stuck": (
        Hardware(name="f", cell=GenericCell(programming_noise=0.02), faults=Faults(stuck_on=0.02, stuck_off=0.05)),
        0.0,
    ),
    "pcm-hermes, a day": (replace(load_hardware("pcm-hermes"), dac=None, adc=None, wires=None), 86400.0),
    "reram-wan2022, a day": (
        replace(load_hardware("reram-wan2022"), dac=None, adc=None, wires=None, neuron=None),
        86400.0,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_other_cells_have_the_moments_of_their_draws(name: str) -> None:
    hw, t_s = CASES[name]
    w, held = drawn(hw, t_s)
    found = weight_moments(w, OP, hw, t_s=t_s)
    for level in LEVELS:
        mine = w == level
        x, mean, var = held[mine].double(), float(found.mean[mine][0]), float(found.var[mine][0])
        count = len(x)
        assert abs(float(x.mean()) - mean) < 5 * float(x.std()) / count**0.5 + 1e-6
        fourth = float((x - x.mean()).pow(4).mean())
        error = 5 * max(fourth - float(x.var()) ** 2, 0.0) ** 0.5 / count**0.5
        assert abs(float(x.var()) - var) < error + 1e-3 * var + 1e-10
        assert var == 0 or abs(1.05**2 * float(x.var()) - var) > error or error > 0.05 * var


def test_errors_of_whole_lines_are_refused_by_name() -> None:
    w = torch.ones(3, 4)
    for part, name in (
        ({"wires": Wires(wire_ohm=1.0)}, "wires.wire_ohm"),
        ({"faults": Faults(dead_rows=0.1)}, "faults.dead_rows"),
        ({"faults": Faults(dead_cols=0.1)}, "faults.dead_cols"),
    ):
        with pytest.raises(HardwareError, match=f"lines: {name} cannot.*Way out: simulate"):
            weight_moments(w, LinearOp(4, 3), Hardware(name="lines", **part))
