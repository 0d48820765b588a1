"""Wire resistance against a dense nodal solution written independently, element by element."""

import numpy as np
import pytest
import torch

from mho.errors import InputError
from mho.hardware.spec import Wires
from mho.physics import wires
from mho.rng import uniforms

Array = np.ndarray


def dense(g_S: Array, ohm: float) -> tuple[Array, Array]:
    """(G_eff, node voltages for 1 V on each row) by stamping resistors into a full matrix, in siemens."""
    rows, cols = g_S.shape
    n = 2 * rows * cols
    a, b = np.zeros((n, n)), np.zeros((n, rows))

    def top(i: int, j: int) -> int:
        return 2 * (i * cols + j)

    def low(i: int, j: int) -> int:
        return 2 * (i * cols + j) + 1

    def stamp(p: int, q: int, siemens: float) -> None:
        a[p, p] += siemens
        a[q, q] += siemens
        a[p, q] -= siemens
        a[q, p] -= siemens

    for i in range(rows):
        for j in range(cols):
            stamp(top(i, j), low(i, j), g_S[i, j])
            if j + 1 < cols:
                stamp(top(i, j), top(i, j + 1), 1 / ohm)
            if i + 1 < rows:
                stamp(low(i, j), low(i + 1, j), 1 / ohm)
        a[top(i, 0), top(i, 0)] += 1 / ohm
        b[top(i, 0), i] = 1 / ohm
    for j in range(cols):
        a[low(rows - 1, j), low(rows - 1, j)] += 1 / ohm
    v = np.linalg.solve(a, b)
    return np.stack([v[low(rows - 1, j)] / ohm for j in range(cols)], axis=1), v


def array(rows: int, cols: int, top_uS: float = 25.0, *path: str | int) -> torch.Tensor:
    return top_uS * uniforms((rows, cols), 0, "g", *path).double()


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 6), (6, 1), (5, 7), (7, 5), (12, 12)])
@pytest.mark.parametrize("ohm", [0.35, 50.0, 1e4])
def test_agrees_with_the_dense_solution(rows: int, cols: int, ohm: float) -> None:
    g = array(rows, cols, 25.0, rows, cols)
    exact, _ = dense(g.numpy() * 1e-6, ohm)
    got = wires.effective_conductance(g, ohm).numpy() * 1e-6
    assert np.abs(got / exact - 1).max() < 1e-9


def test_cells_at_zero_and_far_apart() -> None:
    g = array(8, 9)
    g[2], g[:, 3], g[5, 5] = 0.0, 0.0, 1e-4
    exact, _ = dense(g.numpy() * 1e-6, 20.0)
    got = wires.effective_conductance(g, 20.0).numpy() * 1e-6
    assert np.abs(got - exact).max() < 1e-9 * exact.max()
    assert (wires.effective_conductance(torch.zeros(3, 4), 1.0) == 0).all()


def test_one_cell_is_a_series_circuit() -> None:
    got = wires.effective_conductance(torch.tensor([[100.0]], dtype=torch.float64), 500.0)
    assert float(got) == pytest.approx(1e6 / (1e4 + 2 * 500.0), rel=1e-12)


def test_nodal_matrix_keeps_kirchhoffs_law() -> None:
    """A node with no driver and no ground leaks nothing: its row adds up to zero."""
    rows, cols = 6, 4
    matrix = wires._nodal_matrix(array(rows, cols).numpy() * 1e-6 * 3.0)
    leaks = np.asarray(matrix.sum(axis=1)).ravel()
    expected = np.zeros(2 * rows * cols)
    expected[np.arange(rows) * cols] = 1.0
    expected[rows * cols + (rows - 1) * cols + np.arange(cols)] = 1.0
    assert np.abs(leaks - expected).max() < 1e-14
    assert abs(matrix - matrix.T).max() == 0.0


def test_current_in_is_current_out() -> None:
    """Drivers' currents, from the node voltages of the dense oracle, leave through the columns of G_eff."""
    ohm, g = 30.0, array(6, 8)
    _, v = dense(g.numpy() * 1e-6, ohm)
    drive = np.linspace(0.1, 0.3, 6)
    heads = np.array([2 * i * 8 for i in range(6)])
    into = ((drive - (v @ drive)[heads]) / ohm).sum()
    out = (drive @ (wires.effective_conductance(g, ohm).numpy() * 1e-6)).sum()
    assert out == pytest.approx(into, rel=1e-10)


def test_reciprocity() -> None:
    """Exchanging drivers and grounds turns the array over, and the same matrix comes back."""
    g = array(5, 8)
    turned = g.T.flip(0, 1).contiguous()
    a, b = wires.effective_conductance(g, 40.0), wires.effective_conductance(turned, 40.0)
    assert torch.allclose(b, a.T.flip(0, 1), rtol=1e-11, atol=0)


def test_no_resistance_is_the_identity_and_the_limit() -> None:
    g = array(6, 6)
    assert torch.equal(wires.effective_conductance(g, 0.0), g)
    assert torch.equal(wires.with_wires(g, Wires(wire_ohm=0.0)), g)
    assert torch.equal(wires.with_wires(g, None), g)
    assert torch.allclose(wires.effective_conductance(g, 1e-6), g, rtol=1e-8)


def test_far_cells_lose_most() -> None:
    got = wires.effective_conductance(torch.full((16, 16), 20.0), 5.0)
    assert (got[:, 1:] < got[:, :-1]).all()  # farther from the drivers
    assert (got[:-1] < got[1:]).all()  # farther from the grounds (row 0 is at the top)


@pytest.mark.parametrize(("n", "loss"), [(64, 0.012), (128, 0.046)])
def test_published_mean_losses(n: int, loss: float) -> None:
    g = array(n, n)
    got = wires.effective_conductance(g, 0.35)
    assert 1 - float(got.sum() / g.sum()) == pytest.approx(loss, rel=0.05)


def test_batches_dtype_and_no_mutation() -> None:
    g = 25.0 * uniforms((2, 3, 4, 5), 1, "g")
    before = g.clone()
    got = wires.effective_conductance(g, 10.0)
    assert got.shape == g.shape and got.dtype == torch.float32 and torch.equal(g, before)
    assert torch.equal(got[1, 2], wires.effective_conductance(g[1, 2], 10.0))
    assert torch.equal(torch.vmap(lambda x: wires.effective_conductance(x, 10.0))(g), got)
    assert wires.effective_conductance(torch.empty(0, 4, 5), 10.0).shape == (0, 4, 5)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_active_or_broken_cells_are_refused(bad: float) -> None:
    g = array(3, 3)
    g[1, 1] = bad
    with pytest.raises(InputError, match="passive"):
        wires.effective_conductance(g, 1.0)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="rows, cols"):
        wires.effective_conductance(torch.ones(3), 1.0)
    with pytest.raises(InputError, match="wire_ohm"):
        wires.first_order(torch.ones(3, 3), -1.0)
    with pytest.raises(InputError, match="all conductances are 0"):
        wires.first_order_error(torch.zeros(3, 3), 1.0)


def test_first_order_is_the_derivative_at_zero_resistance() -> None:
    g = array(7, 9)
    ohm = 1e-2
    slope = (wires.effective_conductance(g, ohm) - g) / ohm
    cheap = (wires.first_order(g, ohm) - g) / ohm
    assert torch.allclose(cheap, slope, rtol=1e-3, atol=1e-9)
    # Half the resistance, a quarter of the error: what is left out is of second order.
    coarse, fine = wires.first_order_error(g, 8.0), wires.first_order_error(g, 4.0)
    assert coarse.rms / fine.rms == pytest.approx(4.0, rel=0.1)


def test_first_order_against_explicit_sums() -> None:
    g, ohm = array(3, 4), 100.0
    expected = torch.empty_like(g)
    for i in range(3):
        for j in range(4):
            column = sum(min(3 - i, 3 - k) * float(g[k, j]) for k in range(3))
            row = sum(min(j + 1, m + 1) * float(g[i, m]) for m in range(4))
            expected[i, j] = 1 - ohm * 1e-6 * (column + row)
    assert torch.allclose(wires.first_order_factor(g, ohm), expected, rtol=1e-12)


def test_first_order_error_is_stated() -> None:
    found = wires.first_order_error(array(64, 64), 0.35)
    assert found.exact_loss == pytest.approx(0.0122, rel=0.02)
    assert abs(found.first_order_loss - found.exact_loss) < 3e-4
    assert 0 < found.rms < found.worst < 1e-3


def test_gradients_of_both_models() -> None:
    g = array(6, 5).requires_grad_()
    exact = wires.with_wires(g, Wires(wire_ohm=20.0))
    assert torch.equal(exact.detach(), wires.effective_conductance(g.detach(), 20.0))
    (gradient,) = torch.autograd.grad(exact.sum(), g)
    assert torch.allclose(gradient, (exact / g).detach().clamp(max=1.0))
    assert torch.autograd.gradcheck(lambda x: wires.with_wires(x, Wires(wire_ohm=20.0, model="first_order")), (g,))


def test_gradient_of_a_cell_near_zero_stays_bounded() -> None:
    g = array(6, 6)
    g[2, 2], g[3, 3] = 0.0, 1e-12
    g.requires_grad_()
    (gradient,) = torch.autograd.grad(wires.with_wires(g, Wires(wire_ohm=1e3)).sum(), g)
    assert gradient.isfinite().all() and (gradient > 0).all() and (gradient <= 1).all()


def test_compiles_in_one_graph_and_passes_opcheck() -> None:
    g = (25.0 * uniforms((4, 4), 2, "g")).requires_grad_()
    spec = Wires(wire_ohm=10.0)
    compiled = torch.compile(lambda x: wires.with_wires(x, spec), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(g), wires.with_wires(g, spec))
    torch.library.opcheck(wires._solve, (g.detach(), 10.0))


def test_the_port_of_a_column_sees_its_cells_without_wires_and_more_than_its_signal_with() -> None:
    g = array(12, 7).double()
    assert torch.equal(wires.port_conductance(g, 0.0), g.sum(0))
    exact, signal = wires.port_conductance(g, 200.0), wires.effective_conductance(g, 200.0).sum(0)
    assert bool((exact > signal).all()) and bool((exact < g.sum(0)).all())
    # One column has no detours: its port is one over (ladder resistance), the sum of what its drivers send.
    alone = g[:, :1]
    torch.testing.assert_close(
        wires.port_conductance(alone, 200.0), wires.effective_conductance(alone, 200.0).sum(0), rtol=1e-10, atol=0.0
    )
    with pytest.raises(InputError, match="one tile"):
        wires.port_conductance(g[None], 1.0)
