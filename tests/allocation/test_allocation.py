"""From a network to cheaper reads: sensitivities against Monte Carlo, settings in noise and joules, the search."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import mho
from mho.allocation import Setting, allocate, applied, loads, sensitivities
from mho.crossbar.array import program
from mho.crossbar.ops import LinearOp
from mho.crossbar.variance import fresh_variance
from mho.errors import HardwareError, InputError
from mho.hardware import load_hardware
from mho.nn.site import analog_layers
from mho.physics.averaging import longer_read

OP = LinearOp(12, 5)


def blobs(count: int = 256, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, 12, generator=generator)
    y = torch.arange(count) % classes
    return centres[y] + 0.6 * torch.randn(count, 12, generator=generator), y


def trained(hidden: int = 0) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    x, y = blobs()
    parts = [nn.Linear(12, hidden), nn.ReLU(), nn.Linear(hidden, 4)] if hidden else [nn.Linear(12, 4)]
    net = nn.Sequential(*parts)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    analog = mho.convert(net, "generic-channel")
    mho.calibrate(analog, [x])
    return analog, x, y


def test_sensitivity_is_the_rise_of_the_loss_under_read_noise() -> None:
    # One layer: the Fisher information is the Hessian, and the second order is all there is for small noise.
    analog, x, y = trained()
    (found,) = sensitivities(analog, [(x, y)] * 40)
    layer = dict(analog_layers(analog))["0"]
    site = layer.sites["weight"]
    array = program(layer.weight, site.op, site.hw, None, exact_wires=False)
    ranges = layer.weight_ranges
    sigma = fresh_variance(x, array, site.op, site.hw, input_range=ranges[0], adc_range=ranges[1]).sqrt()
    with torch.no_grad():
        logits = nn.functional.linear(x, layer.weight, layer.bias)
        p = logits.softmax(1)
        exact = 0.5 * ((p - p.square()) * sigma.square()).sum(1).mean()
        generator = torch.Generator().manual_seed(1)
        rise = 0.0
        for _ in range(400):
            noise = sigma * torch.randn(logits.shape, generator=generator)
            pair = [nn.functional.cross_entropy(logits + s * noise, y) for s in (1, -1)]
            rise += float(sum(pair) / 2 - nn.functional.cross_entropy(logits, y)) / 400
    assert found.white == pytest.approx(float(exact), rel=0.1)
    assert found.white == pytest.approx(rise, rel=0.15)
    assert found.frozen == pytest.approx(0.0, abs=1e-9)


def test_labels_are_not_looked_at_and_the_network_is_left_alone() -> None:
    analog, x, y = trained(hidden=8)
    before = {k: v.clone() for k, v in analog.state_dict().items()}
    assert sensitivities(analog, [(x, y)]) == sensitivities(analog, [(x, torch.zeros_like(y))])
    assert all(torch.equal(v, before[k]) for k, v in analog.state_dict().items())
    assert analog.training


@pytest.mark.parametrize("factor", [0.25, 4.0])
def test_white_noise_falls_with_read_time_and_energy_rises(factor: float) -> None:
    base = load_hardware("generic-channel")
    hw = replace(base, output_noise=0.02, readout=replace(base.readout, thermal=True))
    w, x = torch.randn(5, 12), torch.randn(7, 12)

    def variance(h: mho.Hardware) -> torch.Tensor:
        array = program(w, OP, h, None, exact_wires=False)
        one = torch.tensor(1.0)
        return fresh_variance(x, array, OP, h, input_range=3 * one, adc_range=9 * one)

    longer = longer_read(hw, factor)
    torch.testing.assert_close(variance(longer), variance(hw) / factor)
    analog, inputs, _ = trained()
    then, now = (mho.energy(analog, inputs, h).parts_J for h in (longer_read(base, factor), base))
    assert then["array"].typical == pytest.approx(factor * now["array"].typical)
    assert then["adc"] == now["adc"]


def test_one_over_f_noise_hardly_averages_and_programming_error_never() -> None:
    pcm = load_hardware("pcm-hermes")
    longer = longer_read(pcm, 16.0)
    assert longer.cell.t_read_s == pytest.approx(16 * pcm.cell.t_read_s)
    assert longer_read(load_hardware("generic"), 16.0).cell.programming_noise == 0.10
    with pytest.raises(HardwareError, match="read time factor"):
        longer_read(pcm, 0.0)
    assert longer_read(pcm, 1) is pcm


def test_settings_reach_layers_by_name_in_noise_and_in_joules() -> None:
    analog, x, y = trained(hidden=8)
    twin = applied(analog, [Setting("2.weight", 0.5, 4)])
    sites = {s.name: s for _, layer in analog_layers(twin) for s in layer.sites.values()}
    assert sites["2.weight"].hw.adc.bits == 4
    assert sites["2.weight"].hw.cell.read_noise == pytest.approx(0.01 * 2**0.5)
    assert sites["0.weight"].hw == load_hardware("generic-channel")
    before, after = ({layer.name: layer for layer in mho.energy(net, x).layers} for net in (analog, twin))
    assert after["2.weight"].energy_J["adc"].typical < before["2.weight"].energy_J["adc"].typical
    assert after["0.weight"].energy_J == before["0.weight"].energy_J
    nn.functional.cross_entropy(twin(x), y).backward()
    with pytest.raises(InputError, match=r"no analog parameter '3\.weight'"):
        applied(analog, [Setting("3.weight", 1.0, 6)])


def test_allocate_saves_energy_within_the_points_it_may_lose() -> None:
    analog, x, y = trained(hidden=8)
    found = allocate(analog, [(x, y)], points=1.0, chips=4, halvings=2)
    assert found.accuracy_after >= found.accuracy_before - 1.0
    assert found.saved("array") > 1 and found.saved("array", "adc") > 1
    with pytest.raises(InputError, match=r"part 'dac' has no price: must be one of .*array"):
        found.saved("array", "dac")
    assert found.saved() == pytest.approx(found.before.total_J.typical / found.after.total_J.typical)
    again = mho.evaluate(found.apply(analog), [(x, y)], chips=4, seed=1_000_003)
    assert float(again.accuracy().mean()) == pytest.approx(found.accuracy_after)


@pytest.mark.parametrize("without", ["dac", "adc"])
def test_a_converter_that_is_not_there_needs_no_range(without: str) -> None:
    _, x, y = trained()
    torch.manual_seed(0)
    analog = mho.convert(nn.Linear(12, 4), load_hardware("generic").replace(**{without: None}))
    mho.calibrate(analog, [x])
    (found,) = sensitivities(analog, [(x, y)], channels=True)
    assert found.white > 0 and found.curvature > 0
    assert (found.dac > 0, found.rounding > 0) == (without == "adc", without == "dac")
    assert found.channels is not None and all(value > 0 for value in found.channels.array)


def test_allocate_says_what_it_needs() -> None:
    analog, x, y = trained()
    with pytest.raises(InputError, match="loader is empty"):
        allocate(analog, [])
    with pytest.raises(InputError, match="points"):
        allocate(analog, [(x, y)], points=0)
    with pytest.raises(InputError, match="no analog layer"):
        sensitivities(nn.Linear(12, 4), [(x, y)])
    with pytest.raises(InputError, match="not known"):
        sensitivities(mho.convert(nn.Linear(12, 4), "generic"), [(x, y)])
    digital_in = mho.convert(nn.Linear(12, 4), load_hardware("generic").replace(dac=None))
    with pytest.raises(InputError, match=r"weight: the ADC range .* not known"):
        sensitivities(digital_in, [(x, y)])
    bare = mho.convert(nn.Linear(12, 4), replace(load_hardware("generic"), cost=None))
    mho.calibrate(bare, [x])
    with pytest.raises(HardwareError, match="has no prices"):
        loads(bare, x, sensitivities(bare, [(x, y)]))
