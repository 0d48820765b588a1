"""Equilibrium propagation on resistive networks against implicit differentiation, autograd and theory's orders."""

import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from mho.data import Batches, load_dataset
from mho.ebm.resistive import (
    Layered,
    Learning,
    ResistiveNetwork,
    Shockley,
    Solver,
    conductances_uS,
    ep_gradients,
    evaluate_on_chips,
    implicit_gradients,
    inference_cost,
    on_chip,
    rest,
)
from mho.ebm.resistive.reads import read_currents_uA
from mho.errors import HardwareError, InputError
from mho.hardware import load_hardware
from mho.hardware.cells import GenericCell
from mho.hardware.spec import Adc, Dac, Hardware, Wires
from mho.testing import assert_law
from mho.train import TrainSettings, fit

TIGHT = Solver(tolerance=1e-13)
SIZES = {"inputs": 4, "hidden": (6, 5), "outputs": 3, "rail_V": 1.0, "inner_rail_V": 1.0}
NETS = {
    "ideal diodes": (4.0, None, None),
    "ideal diodes, transformer": (2.0, 2.0, None),
    "Shockley": (4.0, None, Shockley(bias_V=0.3)),
    "Shockley, gains": (3.0, 2.0, Shockley(saturation_A=1e-12)),
}


def sample(name: str) -> tuple[Layered, dict[str, Tensor], Tensor, Tensor]:
    gain, back, diode = NETS[name]
    generator = torch.Generator().manual_seed(3)
    net = Layered(
        inputs=4,
        hidden=(6, 5),
        outputs=3,
        voltage_gain=gain,
        current_gain=back,
        rail_V=1.0,
        inner_rail_V=1.0,
        diode=diode,
    )
    g = {n: 1 + 24 * torch.rand(s, dtype=torch.float64, generator=generator) for n, s in net.shapes.items()}
    x = 2 * torch.randn(8, 4, dtype=torch.float64, generator=generator)
    return net, g, x, torch.randn(8, 3, dtype=torch.float64, generator=generator)


def flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients.values()])


@pytest.mark.parametrize("name", NETS)
def test_ep_points_along_the_true_gradient(name: str) -> None:
    net, g, x, slope = sample(name)
    free = rest(net, g, x, solver=TIGHT)
    true = implicit_gradients(net, g, free, slope)
    for variant in ("centred", "positive", "negative"):
        found = ep_gradients(net, g, free, slope, nudge_uW=1e-3, variant=variant, solver=TIGHT).gradients
        for layer in true:
            cosine = torch.cosine_similarity(found[layer].flatten(), true[layer].flatten(), dim=0)
            assert float(cosine) > 0.999
        assert float((flat(found) - flat(true)).norm() / flat(true).norm()) < 0.02


@pytest.mark.parametrize(("name", "nudge"), [("Shockley", 0.04), ("Shockley, gains", 0.8)])
@pytest.mark.parametrize(("variant", "order"), [("positive", 1.0), ("negative", 1.0), ("centred", 2.0)])
def test_error_falls_with_the_order_of_theory(name: str, nudge: float, variant: str, order: float) -> None:
    net, g, x, slope = sample(name)
    free = rest(net, g, x, solver=TIGHT)
    true = flat(implicit_gradients(net, g, free, slope))
    errors = [
        (flat(ep_gradients(net, g, free, slope, nudge_uW=beta, variant=variant, solver=TIGHT).gradients) - true).norm()
        for beta in (nudge, nudge / 2, nudge / 4)
    ]
    found = [float(torch.log2(a / b)) for a, b in pairwise(errors)]
    assert found == pytest.approx([order, order], abs=0.1)


def test_centred_ep_is_exact_while_no_ideal_diode_flips() -> None:
    net, g, x, slope = sample("ideal diodes")
    free = rest(net, g, x, solver=TIGHT)
    true = flat(implicit_gradients(net, g, free, slope))
    found = ep_gradients(net, g, free, slope, nudge_uW=1e-3, solver=TIGHT)
    assert all(
        bool(((a == 0) == (b == 0)).all()) for a, b in zip(found.high.states, free.states, strict=True)
    )  # no flip
    assert float((flat(found.gradients) - true).norm() / true.norm()) < 1e-9
    one = flat(ep_gradients(net, g, free, slope, nudge_uW=1e-3, variant="positive", solver=TIGHT).gradients)
    assert float((one - true).norm() / true.norm()) > 1e-4


@pytest.mark.parametrize("name", NETS)
def test_implicit_gradient_is_the_derivative_of_the_state(name: str) -> None:
    """Against central differences of the cost at rest, conductance by conductance."""
    net, g, x, slope = sample(name)
    free = rest(net, g, x, solver=TIGHT)
    true = implicit_gradients(net, g, free, slope)
    for layer, (row, col) in {"layer1": (2, 3), "layer2": (1, 0), "layer3": (2, 5)}.items():
        ends = []
        for way in (1e-4, -1e-4):
            moved = {n: v.clone() for n, v in g.items()}
            moved[layer][row, col] += way
            ends.append((slope * rest(net, moved, x, solver=TIGHT).outputs).sum())
        assert float((ends[0] - ends[1]) / 2e-4) == pytest.approx(float(true[layer][row, col]), rel=1e-5, abs=1e-9)


def test_the_rule_is_local() -> None:
    """A resistor's gradient is a function of the voltages at its two ends in the two states alone."""
    net, g, x, slope = sample("Shockley")
    free = rest(net, g, x, solver=TIGHT)
    found = ep_gradients(net, g, free, slope, nudge_uW=0.1, solver=TIGHT)
    a, b = found.high.states, found.low.states
    i, k = 3, 2
    across = [(net.voltage_gain * s[0][:, i] - s[1][:, k]).square() for s in (a, b)]
    own = net.share(2) * 0.5 * ((across[0] - across[1]) / 0.2).sum()
    assert float(found.gradients["layer2"][k, i]) == pytest.approx(float(own), rel=1e-6)


def test_bad_nudging_is_refused() -> None:
    net, g, x, slope = sample("ideal diodes")
    free = rest(net, g, x)
    with pytest.raises(InputError, match=r"nudge_uW = 0\.0 must be above 0"):
        ep_gradients(net, g, free, slope, nudge_uW=0.0)
    with pytest.raises(InputError, match="variant 'sideways' is unknown"):
        ep_gradients(net, g, free, slope, nudge_uW=1.0, variant="sideways")  # type: ignore[arg-type]


def generic(noise: float = 0.08, read: float = 0.0, low: float = 0.0, bits: int | None = None) -> Hardware:
    cell = GenericCell(g_min_uS=low, programming_noise=noise, read_noise=read, bits=bits)
    return Hardware(name="cells", cell=cell)


def test_a_chip_holds_conductances_with_the_programming_error_of_its_cells() -> None:
    w = {"layer1": torch.zeros(400, 250)}
    hw = generic(0.08)
    g = on_chip(w, hw, chip_seed=5)["layer1"]
    deviations = (g - conductances_uS(w, hw)["layer1"]) / (0.08 * 25.0)
    assert_law(deviations.flatten().double(), sigma=1.0)
    with pytest.raises(AssertionError, match="do not follow the law"):
        assert_law(1.05 * deviations.flatten().double(), sigma=1.0)
    assert torch.equal(g, on_chip(w, hw, chip_seed=5)["layer1"])
    assert not torch.equal(g, on_chip(w, hw, chip_seed=6)["layer1"])


def test_conductances_stay_physical_and_on_their_levels() -> None:
    w = {"layer1": torch.linspace(-1, 1, 4000).reshape(40, 100)}
    assert float(on_chip(w, generic(0.2), chip_seed=0)["layer1"].min()) == 0.0
    levels = on_chip(w, generic(0.0, low=5.0, bits=2), chip_seed=0)["layer1"].unique()
    assert torch.allclose(levels.double(), torch.tensor([5.0, 35 / 3, 55 / 3, 25.0]).double(), atol=1e-4)
    ideal = load_hardware("ideal")
    assert torch.equal(on_chip(w, ideal, chip_seed=0)["layer1"], conductances_uS(w, ideal)["layer1"])
    with pytest.raises(HardwareError, match=r"wires of 2\.0 ohm"):
        on_chip(w, generic().replace(wires=Wires(wire_ohm=2.0)), chip_seed=0)


def test_read_noise_moves_outputs_as_fluctuating_conductances_do() -> None:
    """The variance of an output over many reads against explicit draws of every conductance."""
    net = Layered(inputs=3, hidden=(4,), outputs=2, rail_V=1.0, inner_rail_V=1.0)
    generator = torch.Generator().manual_seed(1)
    g = {n: 10 + 10 * torch.rand(s, dtype=torch.float64, generator=generator) for n, s in net.shapes.items()}
    hw, reads = generic(read=0.004), 4000
    x = torch.tensor([[1.0, -0.5, 0.8]], dtype=torch.float64).expand(reads, 3)
    free = rest(net, g, x)
    noise = read_currents_uA(net, g, free, hw, 7)
    assert noise is not None
    seen = rest(net, g, x, injected_uA=noise).outputs.var(0)
    explicit = []
    for _ in range(500):
        moved = {n: v + 0.1 * torch.randn(v.shape, dtype=torch.float64, generator=generator) for n, v in g.items()}
        explicit.append(rest(net, moved, x[:1]).outputs[0])
    assert torch.allclose(seen, torch.stack(explicit).var(0), rtol=0.25)
    assert read_currents_uA(net, g, free, generic(read=0.0), 7) is None


def small(**learning: object) -> ResistiveNetwork:
    net = Layered(inputs=784, hidden=(48,), outputs=10)
    return ResistiveNetwork(net, generic(0.02, read=0.01), temperature_V=0.002, learning=Learning(**learning), seed=4)  # type: ignore[arg-type]


def digits(count: int) -> Batches:
    data = load_dataset("mnist-mini")
    return Batches(data.train_x[:count], data.train_y[:count], 50, mean=(0.0,), std=(1.0,), shuffle=True, seed=2)


def test_the_modules_backward_pass_is_the_gradient_of_its_loss() -> None:
    x, y = next(iter(digits(100)))
    model = small(new_chips=False, read_noise=False, nudge=0.05, solver=Solver(tolerance=1e-6)).double()
    torch.nn.functional.cross_entropy(model(x.double()), y).backward()
    free = model.at_rest(x.double(), model.wanted())
    out = (free.outputs / model.temperature_V).requires_grad_()
    torch.nn.functional.cross_entropy(out, y).backward()
    assert out.grad is not None
    true = implicit_gradients(model.net, model.wanted(), free, out.grad / model.temperature_V)
    for name, w in model.w.items():
        assert w.grad is not None
        assert torch.cosine_similarity(w.grad.flatten(), true[name].flatten(), dim=0) > 0.999
        assert float(w.grad.norm()) == pytest.approx(float(true[name].norm() * 12.5), rel=0.02)


def converting(dac: int | None, adc: int | None, **options: float) -> ResistiveNetwork:
    net = Layered(inputs=784, hidden=(8,), outputs=10)
    hw = generic(0.02).replace(dac=Dac(bits=dac), adc=Adc(bits=adc))
    return ResistiveNetwork(net, hw, temperature_V=0.002, learning=Learning(new_chips=False), seed=4, **options)


def test_sources_have_the_levels_of_the_dac_and_outputs_those_of_the_adc() -> None:
    x, _ = next(iter(digits(100)))
    model = converting(dac=5, adc=3)
    steps = model.volts(x) / (0.2 / 15)  # 2^(5-1) - 1 levels on each side of zero
    assert torch.allclose(steps, steps.round(), atol=1e-4) and len(steps.round().unique()) == 16
    assert bool((model.volts(x)[x.flatten(1) == 0] == 0).all())  # black draws no current
    loose = converting(dac=5, adc=None)
    assert torch.equal(loose.volts(x), model.volts(x))
    assert torch.equal(converting(dac=None, adc=3).volts(x), 0.2 * x.flatten(1))
    volts = torch.linspace(-0.03, 0.03, 999).unsqueeze(1)
    assert loose.read(volts) is volts
    codes = model.read(volts) / (8 * 0.002 / 3)  # 7 levels from -8 to 8 temperatures
    assert torch.allclose(codes, (volts / (8 * 0.002 / 3)).round().clamp(-3, 3), atol=1e-4)
    narrow, free = converting(dac=5, adc=3, output_V=0.001).eval(), loose.eval()(x) / (0.5 / 3)
    assert torch.allclose(narrow(x) / (0.5 / 3), free.round().clamp(-3, 3), atol=1e-3) and len(narrow(x).unique()) > 2
    assert torch.equal(converting(dac=5, adc=3, output_V=1.0).eval()(x), torch.zeros(len(x), 10))
    with pytest.raises(InputError, match=r"output_V = 0\.0"):
        converting(dac=5, adc=3, output_V=0.0)


def test_training_sees_the_codes_and_nudges_the_nodes() -> None:
    """The gradient at saturated codes is that of the loss at the codes, handed to the nodes unclipped."""
    x, y = next(iter(digits(100)))
    model = converting(dac=5, adc=3, output_V=0.0002)
    logits = model(x)
    assert float(logits.detach().abs().max()) == pytest.approx(0.1)  # all at the ends of 0.2 mV over 2 mV
    torch.nn.functional.cross_entropy(logits, y).backward()
    codes, free = logits.detach().requires_grad_(), model.at_rest(x, model.wanted())
    torch.nn.functional.cross_entropy(codes, y).backward()
    assert codes.grad is not None
    true = implicit_gradients(model.net, model.wanted(), free, codes.grad / model.temperature_V)
    for name, w in model.w.items():
        assert w.grad is not None
        assert torch.cosine_similarity(w.grad.flatten(), true[name].flatten(), dim=0) > 0.98


def test_chips_are_judged_by_what_the_adc_reads() -> None:
    model = converting(dac=5, adc=3, output_V=1.0)  # one code for all outputs: the first class is the answer
    data = load_dataset("mnist-mini")
    test = list(Batches(data.test_x[:60], data.test_y[:60], 60, mean=(0.0,), std=(1.0,)))
    found = evaluate_on_chips(model, test, chips=1).data["correct"].to_numpy().flatten()
    assert (found == (data.test_y[:60] == 0).numpy()).all()


def train(
    model: ResistiveNetwork,
    epochs: int,
    count: int,
    checkpoint: object = None,
    resume: bool = False,
    on_step: Callable[[int], None] = lambda step: None,
) -> float:
    plan = TrainSettings(epochs=epochs, optimizer="adamw", lr=0.1, weight_decay=0.0, schedule="constant")

    def after(step: int, loss: float | None) -> None:
        model.project()
        on_step(step)

    history = fit(
        model,
        digits(count),
        recipe=plan,
        checkpoint=checkpoint,  # type: ignore[arg-type]
        resume=resume,
        on_batch=after,
    )
    return history.loss


def test_it_learns_digits_on_new_chips_each_step() -> None:
    model = small(read_noise=False)
    train(model, 3, 1000)
    assert all(float(w.detach().abs().max()) <= 1.0 for w in model.w.values())
    data = load_dataset("mnist-mini")
    test = list(Batches(data.test_x[:500], data.test_y[:500], 250, mean=(0.0,), std=(1.0,)))
    result = evaluate_on_chips(model, test, chips=3, noise_scales=(0.0, 1.0))
    clean = result.clean_accuracy()
    assert clean is not None and float(clean.mean()) > 70.0
    accuracy = result.accuracy().isel(seed=0, age_s=0, bits=0)
    assert float(accuracy.sel(noise_scale=1.0).mean()) > 65.0
    assert accuracy.sel(noise_scale=0.0).to_numpy() == pytest.approx(float(clean.mean()), abs=0.5)


def test_chips_are_judged_at_their_ages() -> None:
    model = small(read_noise=False)
    model.hw = model.hw.replace(cell=replace(model.hw.cell, drift_nu=0.1, drift_nu_d2d=0.05))
    data, told = load_dataset("mnist-mini"), []
    test = list(Batches(data.test_x[:60], data.test_y[:60], 60, mean=(0.0,), std=(1.0,)))
    ages = (model.hw.environment.t_s, "1 year")
    aged = evaluate_on_chips(model, test, chips=2, ages=ages, tell=lambda done, total: told.append((done, total)))
    fresh = evaluate_on_chips(model, test, chips=2)
    assert told[-1] == (4, 4) and aged.data.sizes["age_s"] == 2
    first, later = (aged.data["correct"].isel(age_s=n).to_numpy() for n in (0, 1))
    assert (first == fresh.data["correct"].isel(age_s=0).to_numpy()).all()
    assert (first != later).any()


def test_a_resumed_training_ends_at_the_same_bits(tmp_path: object) -> None:
    """Stopped by Ctrl-C in the second epoch, and gone on with in a fresh module."""
    whole, broken, again = small(), small(), small()
    train(whole, 2, 200)

    def stop(step: int) -> None:
        if step == 6:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(broken, 2, 200, tmp_path, on_step=stop)
    assert int(broken.steps) == 6
    train(again, 2, 200, tmp_path, resume=True)
    for name, w in whole.w.items():
        assert not torch.equal(w, broken.w[name])
        assert torch.equal(w, again.w[name])


def test_energy_an_inference_is_power_times_settling() -> None:
    one = Layered(inputs=1, hidden=(), outputs=1, rail_V=0.0)
    cells = {"layer1": torch.full((1, 4), 2.0)}
    cost = inference_cost(one, cells, rest(one, cells, torch.tensor([[0.5]])))
    assert cost.power_uW == pytest.approx(2 * 2.0 * 0.25)  # the node stays at 0 V, the rails are off
    assert cost.tau_s.typical == pytest.approx(4 * 2.2875e-15 / 8e-6)  # four resistor ends on 8 uS
    assert cost.energy_J.high == pytest.approx(cost.power_uW * 1e-6 * cost.settling_s.high)
    assert cost.energy_J.low < cost.energy_J.typical < cost.energy_J.high
