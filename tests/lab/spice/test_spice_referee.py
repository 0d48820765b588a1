"""ngspice beside this package's own wires and thermal noise: two independent solvers of one circuit."""

import math
import shutil

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from mho.errors import RangeError
from mho.lab.spice import (
    AccessMosfet,
    AccessResistor,
    noise_density,
    noise_reads,
    solve_columns,
    solve_superposition,
)
from mho.physics.thermal import boxcar_bandwidth_Hz, johnson_sigma_A
from mho.physics.wires import effective_conductance, port_conductance
from mho.rng import uniforms
from mho.units import BOLTZMANN_J_PER_K

pytestmark = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")


G_MAX = 25.0


def tile(rows: int, cols: int) -> Tensor:
    return 1.0 + (G_MAX - 1.0) * uniforms((rows, cols), 0, "g", rows, cols).double()


def vectors(n: int, rows: int) -> Tensor:
    """All positive, so that no current is small by cancellation and each may be judged by its own size."""
    return 0.2 * uniforms((n, rows), 0, "x", n, rows).double()


def worst(got: Tensor, expected: Tensor) -> float:
    return float((got / expected - 1.0).abs().max())


@pytest.mark.parametrize(
    ("ohm", "n"),
    [(1.0, 2), *(pytest.param(ohm, 8, marks=pytest.mark.slow) for ohm in (0.35, 5.0, 50.0))],
)
def test_wires_of_a_64_by_64_tile_agree(ohm: float, n: int) -> None:
    g, x = tile(64, 64), vectors(n, 64)
    found = solve_columns(g, x, wire_ohm=ohm)
    assert worst(found, x @ effective_conductance(g, ohm)) < 1e-6
    assert worst(found, x @ effective_conductance(g, 1.01 * ohm)) > 1e-6  # a wire 1 % off is seen
    assert worst(found, x @ g) > 1e-2  # and so is a tile without wires


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 5), (5, 1), (9, 7), (16, 10)])
@pytest.mark.parametrize("ohm", [0.0, 1e-3, 2.0, 1e4])
def test_effective_conductances_agree_one_by_one(rows: int, cols: int, ohm: float) -> None:
    g = tile(rows, cols)
    assert worst(solve_superposition(g, wire_ohm=ohm), effective_conductance(g, ohm)) < 1e-9


def test_upside_down_is_another_circuit() -> None:
    """Drivers at the left, grounds at the bottom: a netlist with either end moved would differ."""
    g = tile(9, 7)
    for moved in (g.flip(0), g.flip(1)):
        exact = effective_conductance(moved, 100.0)
        back = exact.flip(0) if torch.equal(moved, g.flip(0)) else exact.flip(1)
        assert worst(solve_superposition(g, wire_ohm=100.0), back) > 1e-3


def test_open_cells_agree() -> None:
    g = tile(8, 6)
    g[2, 3] = g[:, 5] = g[7] = 0.0
    found, exact = solve_superposition(g, wire_ohm=50.0), effective_conductance(g, 50.0)
    assert float((found - exact).abs().max()) < 1e-9 * G_MAX
    assert float(found[2, 3]) > 0.0  # the current of an open cell comes over other lines
    assert torch.equal(solve_columns(g, vectors(2, 8))[:, 5], torch.zeros(2, dtype=torch.float64))


def test_each_vector_of_a_batch_is_itself() -> None:
    """The sweep meets every vector exactly, signs and order included, whatever stands beside it."""
    g = tile(6, 5)
    x = 2.0 * vectors(40, 6) - 0.2
    together = solve_columns(g, x, wire_ohm=3.0)
    exact = x @ effective_conductance(g, 3.0)
    assert float((together - exact).abs().max()) < 1e-10 * float(exact.abs().max())
    alone = torch.cat([solve_columns(g, x[k : k + 1], wire_ohm=3.0) for k in (0, 17, 39)])
    assert float((together[[0, 17, 39]] - alone).abs().max()) < 1e-10 * float(exact.abs().max())


@pytest.mark.parametrize("ohm", [0.0, 20.0])
def test_an_access_resistance_is_a_smaller_conductance(ohm: float) -> None:
    g, x = tile(7, 5), vectors(3, 7)
    in_series = 1.0 / (1.0 / g + 3e3 * 1e-6)
    found = solve_columns(g, x, wire_ohm=ohm, access=AccessResistor(ohm=3e3))
    assert worst(found, x @ effective_conductance(in_series, ohm)) < 1e-9
    assert worst(found, x @ effective_conductance(g, ohm)) > 1e-2


def channel_current_uA(g_uS: float, v: float, m: AccessMosfet) -> float:
    """Drain at v, source at the cell, whose other end is grounded: Shichman and Hodges, solved by bisection."""

    def excess(middle: float) -> float:
        over, v_ds = m.gate_V - middle - m.threshold_V, v - middle
        assert v_ds < over  # the linear region is all that is meant here
        return m.kp_uA_per_V2 * m.width_over_length * (over - v_ds / 2) * v_ds - g_uS * middle

    middle = brentq(excess, 0.0, v, xtol=1e-16)
    return g_uS * middle


def test_an_access_transistor_follows_its_law() -> None:
    access = AccessMosfet(gate_V=1.2, bulk_V=-1.0, kp_uA_per_V2=100.0, width_over_length=2.0)
    g = torch.tensor([[20.0], [80.0]], dtype=torch.float64)
    x = torch.tensor([[0.3, 0.0], [0.0, 0.3], [0.3, 0.3]], dtype=torch.float64)
    one, other = (channel_current_uA(float(cell), 0.3, access) for cell in g)
    expected = torch.tensor([[one], [other], [one + other]], dtype=torch.float64)
    assert worst(solve_columns(g, x, access=access), expected) < 1e-6
    # Quadratic, not a resistor: twice the voltage is not twice the current.
    doubled = solve_columns(g, x / 2, access=access) * 2
    assert worst(doubled, expected) > 1e-3


def test_a_transistor_is_not_superposed() -> None:
    with pytest.raises(RangeError, match="superposition with AccessMosfet"):
        solve_superposition(tile(2, 2), access=AccessMosfet(gate_V=2.0))


@pytest.mark.parametrize("kelvin", [250.0, 300.0, 400.0])
def test_thermal_noise_agrees_with_johnson(kelvin: float) -> None:
    g = tile(64, 16)
    density = noise_density(g, temperature_K=kelvin)
    sigma = johnson_sigma_A(g.sum(0) * 1e-6, 1.0, kelvin)
    assert worst(density.sqrt(), sigma) < 1e-5
    assert worst(density.sqrt(), johnson_sigma_A(g.sum(0) * 1e-6, 1.0, 1.05 * kelvin)) > 0.01


def grounds_admittance_S(g_uS: Tensor, ohm: float) -> np.ndarray:
    """Y_jj: current into column ground j at 1 V there, every driver and other ground at 0. Dense, stamped by hand."""
    rows, cols = g_uS.shape
    n = 2 * rows * cols
    a = np.zeros((n, n))
    top, low = np.arange(n).reshape(2, rows, cols)

    def stamp(p: int, q: int | None, siemens: float) -> None:
        a[p, p] += siemens
        if q is not None:
            a[q, q] += siemens
            a[[p, q], [q, p]] -= siemens

    for i in range(rows):
        for j in range(cols):
            stamp(top[i, j], low[i, j], float(g_uS[i, j]) * 1e-6)
            stamp(top[i, j], top[i, j - 1] if j else None, 1 / ohm)
            stamp(low[i, j], low[i + 1, j] if i + 1 < rows else None, 1 / ohm)
    ends = low[-1]
    v = np.linalg.solve(a, np.eye(n)[:, ends] / ohm)
    return np.array([(1.0 - v[end, j]) / ohm for j, end in enumerate(ends)])


def test_noise_behind_wires_is_nyquists() -> None:
    """S = 4 k T Re Y of the whole network, wires included (Nyquist 1928), far from the sum of the cells."""
    g = tile(9, 7)
    ohm = 500.0
    exact = 4.0 * BOLTZMANN_J_PER_K * 300.0 * torch.from_numpy(grounds_admittance_S(g, ohm))
    found = noise_density(g, wire_ohm=ohm)
    assert worst(found, exact) < 2e-6
    assert worst(4.0 * BOLTZMANN_J_PER_K * 300.0 * port_conductance(g, ohm) * 1e-6, exact) < 1e-12
    assert worst(found, johnson_sigma_A(g.sum(0) * 1e-6, 1.0, 300.0) ** 2) > 0.05


@pytest.mark.parametrize("ohm", [0.35, 1.0])
def test_noise_of_a_usual_tile_is_johnsons_of_its_effective_conductances(ohm: float) -> None:
    g = tile(16, 10)
    sigma = johnson_sigma_A(effective_conductance(g, ohm).sum(0) * 1e-6, 1.0, 300.0)
    assert worst(noise_density(g, wire_ohm=ohm).sqrt(), sigma) < 0.01


def test_columns_of_noise_are_those_asked_for() -> None:
    g = tile(5, 4)
    every = noise_density(g)
    assert torch.allclose(noise_density(g, columns=[3, 1]), every[[3, 1]], rtol=1e-12, atol=0.0)
    assert worst(every[[3]], every[[1]]) > 1e-3


T_READ_S = 128e-9


def sigma_uA(density: Tensor) -> Tensor:
    return (density * boxcar_bandwidth_Hz(T_READ_S)).sqrt() * 1e6


def test_noise_in_time_has_the_sigma_of_the_spectrum_and_of_the_formula() -> None:
    """8,000 reads of four columns: 0.4 % of chance, and the 1 % by which a process of ngspice scales its numbers."""
    g = tile(5, 4)
    reads = noise_reads(g, 8000, t_read_s=T_READ_S)
    over_spectrum = float((reads / sigma_uA(noise_density(g))).square().mean().sqrt())
    johnson = johnson_sigma_A(g.sum(0) * 1e-6, boxcar_bandwidth_Hz(T_READ_S), 300.0) * 1e6
    assert over_spectrum == pytest.approx(1.0, abs=0.04)
    assert float((reads / johnson).square().mean().sqrt()) == pytest.approx(1.0, abs=0.04)
    # Each column has its own: relative to one another they are as good as chance allows.
    own = reads.std(0) / johnson
    assert worst(own / own.mean(), torch.ones(4, dtype=torch.float64)) < 0.04
    assert worst(johnson / johnson.mean(), torch.ones(4, dtype=torch.float64)) > 0.1
    # Reads do not lean on one another.
    assert abs(float(torch.corrcoef(torch.stack([reads[:-1].flatten(), reads[1:].flatten()]))[0, 1])) < 0.03


def test_noise_in_time_is_longer_reads_and_colder_tiles_smaller() -> None:
    g = tile(2, 2)
    first = noise_reads(g, 2000, t_read_s=T_READ_S)
    for change, factor in (
        ({"t_read_s": 4 * T_READ_S}, 0.5),
        ({"t_read_s": T_READ_S, "temperature_K": 150.0}, 0.5**0.5),
    ):
        found = noise_reads(g, 2000, **change)  # type: ignore[arg-type]
        assert float(found.std() / first.std()) == pytest.approx(factor, rel=0.08)


def test_columns_behind_common_wires_share_noise_in_time() -> None:
    """Nyquist of the whole network: cov(i_j, i_k) = 2 k T Re Y_jk / t. Driver resistances pull columns apart."""
    g = torch.full((1, 2), 100.0, dtype=torch.float64)
    ohm = 20e3  # wires beyond all measure, so that what is shared is large
    reads = noise_reads(g, 6000, t_read_s=T_READ_S, wire_ohm=ohm)
    exact = sigma_uA(4.0 * BOLTZMANN_J_PER_K * 300.0 * torch.from_numpy(grounds_admittance_S(g, ohm)))
    assert worst(reads.std(0), exact) < 0.05
    # Seen from the grounds: one segment to the first cell's node, another one on to the second; each cell and the
    # end of its column in series.
    branch, first = 1.0 / (1e4 + ohm), 1.0 / ohm
    chain = torch.tensor([[first + branch + first, -first], [-first, first + branch]], dtype=torch.float64)
    mutual = -branch * branch * float(torch.linalg.inv(chain)[0, 1])
    own = [branch - branch**2 * float(torch.linalg.inv(chain)[k, k]) for k in (0, 1)]
    shared = mutual / math.sqrt(own[0] * own[1])
    assert shared < -0.2
    assert float(torch.corrcoef(reads.t())[0, 1]) == pytest.approx(shared, abs=0.06)


def test_noise_in_time_refuses_what_is_no_read() -> None:
    with pytest.raises(RangeError, match="0 reads"):
        noise_reads(tile(2, 2), 0, t_read_s=T_READ_S)
    with pytest.raises(RangeError, match=r"t_read_s = 0.0"):
        noise_reads(tile(2, 2), 1, t_read_s=0.0)
    with pytest.raises(RangeError, match="noise with AccessMosfet"):
        noise_reads(tile(2, 2), 1, t_read_s=T_READ_S, access=AccessMosfet(gate_V=2.0))
