"""What the saturating neuron takes away, as a law and on converted networks."""

import pytest
import torch
from small_networks import NOISY, calibrated, mlp
from torch import Tensor

import mho
from mho.errors import HardwareError
from mho.hardware import Adc, Hardware, Mapping, Neuron, Tile
from mho.nn.site import analog_layers
from mho.objectives.neuron import in_a_following_range, lost, lost_energy, saturated_share
from mho.objectives.observe import observed
from mho.physics import neuron as law

HARD = Neuron(gain_pos=1.0, gain_neg=0.4, offset=0.02, low=-0.2, high=0.7)
SOFT = Neuron(gain_pos=1.0, gain_neg=0.4, offset=0.02, low=-0.2, high=0.7, soft=True)


def test_a_hard_neuron_loses_nothing_in_its_linear_range_and_the_excess_beyond() -> None:
    u = torch.tensor([-2.0, -0.5, 0.0, 0.6, 0.9], dtype=torch.float64)
    # z = 0.4 u + 0.02 below 0, u + 0.02 above; bounds -0.2 and 0.7.
    torch.testing.assert_close(lost(u, HARD), torch.tensor([-0.58, 0.0, 0.0, 0.0, 0.22], dtype=torch.float64))


def test_unequal_gains_alone_lose_nothing() -> None:
    u = torch.linspace(-1, 1, 21)
    assert bool((lost(u, Neuron(gain_neg=0.0, low=0.0)) == 0).all())
    assert bool((lost(u, Neuron(gain_neg=0.3)) == 0).all())


def test_a_symmetric_line_loses_what_the_gain_of_the_negative_side_lacks() -> None:
    u = torch.tensor([-2.0, -0.5, 0.0, 0.6, 0.9], dtype=torch.float64)
    # z = u + 0.02; the neuron gives -0.2 (saturated), -0.18, 0.02, 0.62, 0.7.
    found = lost(u, HARD, "symmetric")
    torch.testing.assert_close(found, torch.tensor([-1.78, -0.3, 0.0, 0.0, 0.22], dtype=torch.float64))
    torch.testing.assert_close(found - lost(u, HARD), 0.6 * u.clamp(max=0.0))


def test_a_symmetric_line_costs_nothing_more_where_gains_are_equal() -> None:
    u = torch.linspace(-1, 1, 21, dtype=torch.float64)
    assert bool((lost(u, Neuron(gain_pos=0.7, gain_neg=0.7), "symmetric") == 0).all())
    for soft in (False, True):
        equal = Neuron(gain_pos=1.2, gain_neg=1.2, offset=0.05, low=-0.3, high=0.6, soft=soft)
        assert torch.equal(lost(u, equal, "symmetric"), lost(u, equal))


def test_line_minus_loss_is_the_neuron() -> None:
    u = torch.linspace(-2, 2, 101, dtype=torch.float64)
    for spec in (HARD, SOFT):
        line = torch.where(u >= 0, u, 0.4 * u) + 0.02
        torch.testing.assert_close(line - lost(u, spec), law.transfer(u, spec, None, None))
    assert float(lost(u, SOFT).square().mean()) > float(lost(u, HARD).square().mean())


def test_saturated_share_of_uniform_signals() -> None:
    u = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    # Saturated above 0.68 and below -0.55.
    assert saturated_share(u, HARD) == pytest.approx((0.32 + 0.45) / 2, abs=1e-4)


def test_gradient_of_the_lost_energy() -> None:
    u = torch.tensor([-1.3, -0.4, 0.21, 0.5, 1.1], dtype=torch.float64, requires_grad=True)
    for spec in (HARD, SOFT):
        for line in ("own", "symmetric"):
            assert torch.autograd.gradcheck(lambda a, spec=spec, line=line: lost(a, spec, line).square().mean(), u)


def _energy(hw: Hardware, x: Tensor) -> tuple[torch.nn.Module, Tensor]:
    torch.manual_seed(0)
    model = calibrated(mlp().eval(), hw, x)
    with observed(model) as seen:
        model(x)
    return model, lost_energy(seen.products)


def test_it_sees_the_products_of_the_network_in_units_of_the_adc_range() -> None:
    hw = Hardware(name="n", mapping=Mapping(scheme="signed"), adc=Adc(bits=8, range_sigma=1.5), neuron=HARD)
    torch.manual_seed(2)
    x = torch.randn(50, 6)
    model, found = _energy(hw, x)
    digital, squares = mho.to_digital(model), []
    h = x
    for (_, layer), linear in zip(analog_layers(model), (digital[0], digital[2]), strict=True):  # type: ignore[index]
        u = h @ linear.weight.T / layer.weight_ranges[1]
        squares.append(lost(u, HARD).square().flatten())
        h = torch.relu(layer(h))
    torch.testing.assert_close(found, torch.cat(squares).mean())
    assert float(found.detach()) > 1e-3


def test_every_tile_has_neurons_of_its_own() -> None:
    hw = NOISY.replace(neuron=SOFT, tile=Tile(rows=3))
    torch.manual_seed(2)
    model, found = _energy(hw, torch.randn(50, 6))
    with observed(model) as seen:
        model(torch.randn(50, 6))
    counts = [sum(1 for _ in product.parts()) for product in seen.products]
    assert counts == [2, 3]
    assert bool(torch.isfinite(found))


def test_hardware_without_a_neuron_is_refused() -> None:
    with pytest.raises(HardwareError, match=r"no analog neuron in the hardware .* \(noisy\).*Fix: .*neuron = 0"):
        _energy(NOISY, torch.randn(5, 6))


@pytest.mark.parametrize("range_sigma", [None, 2.5])
def test_a_following_range_makes_the_loss_blind_to_scale(range_sigma: float | None) -> None:
    signal = torch.tensor([[-1.3, -0.4, 0.21], [0.5, 1.1, -0.7]], dtype=torch.float64)

    def energy(scale: Tensor) -> Tensor:
        u = scale * signal
        return lost(in_a_following_range(u, range_sigma), SOFT).square().mean()

    one = torch.ones((), dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(energy(one), lost(signal, SOFT).square().mean())
    (slope,) = torch.autograd.grad(energy(one), one)
    assert abs(float(slope)) < 1e-12
    (fixed,) = torch.autograd.grad(lost(one * signal, SOFT).square().mean(), one)
    assert float(fixed) > 0.01  # what a range that stays would say


def test_the_gradient_in_a_following_range_is_that_of_the_rescaled_signal() -> None:
    signal = torch.tensor([-1.3, -0.4, 0.21, 0.5, 1.1], dtype=torch.float64)
    rms = float(signal.square().mean().sqrt())

    def rescaled(a: Tensor) -> Tensor:
        return lost(a * rms / a.square().mean().sqrt(), SOFT).square().mean()

    a, b = signal.clone().requires_grad_(), signal.clone().requires_grad_()
    (found,) = torch.autograd.grad(lost(in_a_following_range(a, 2.5), SOFT).square().mean(), a)
    (wanted,) = torch.autograd.grad(rescaled(b), b)
    torch.testing.assert_close(found, wanted)
    silent = torch.zeros(3, dtype=torch.float64)
    assert in_a_following_range(silent, None) is silent
