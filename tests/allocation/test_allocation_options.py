"""Repeats, DAC bits and single channels: the plan against all choices there are, settings in noise and joules,
refusals."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

import mho
from mho.allocation import (
    Load,
    Price,
    Setting,
    Shares,
    allocate,
    applied,
    harm,
    loads,
    plan,
    sensitivities,
    spent_J,
    today,
)
from mho.allocation.load import quietest
from mho.allocation.prices import refuse_channels
from mho.costs.allocation import read_times
from mho.errors import HardwareError, InputError
from mho.hardware import Hardware, load_hardware
from mho.nn.site import analog_layers
from mho.physics.averaging import repeated_read

near = pytest.approx


def layer(seed: int, *, dac: bool = False, shares: Shares | None = None, static: bool = False) -> Load:
    rng = np.random.default_rng(seed)
    white, rounding, sampled, dac_nats = (float(v) for v in rng.uniform(0.05, 1.0, 4))
    array, conversion, read = (float(v) for v in rng.uniform(0.2, 2.0, 3))
    adc = {b: conversion * (0.4 + 4.0 ** (b - 6)) for b in range(4, 9)}
    prices = {
        d: Price(array * d / 6, {b: e * d / 6 for b, e in adc.items()}, read * 2.0 ** (d - 6), 0.3 * static, 0.1 * d)
        for d in (4, 5, 6, 7)
    }
    own = prices.pop(6)
    return Load(
        f"l{seed}", white, rounding, 0.01, 6, own.array_J, own.adc_J, sampled=sampled, dac=dac_nats, dac_bits=6,
        read_J=own.read_J, time_J=own.time_J, once_J=own.once_J, by_dac=prices if dac else {}, shares=shares,
    )  # fmt: skip


def choices(load: Load, reads: tuple[float, ...], repeats: int) -> list[Setting]:
    dacs = list(load.prices) if load.by_dac else [None]
    return [
        Setting(load.name, f, b, d, m)
        for f, b, d, m in itertools.product(reads, load.adc_J, dacs, range(1, repeats + 1))
    ]


def cheapest(known: list[Load], budget: float, reads: tuple[float, ...], repeats: int) -> float:
    """All combinations of all choices, joules of the best within the budget."""
    tables = []
    for load in known:
        every = choices(load, reads, repeats)
        tables.append(([spent_J([load], [s]) for s in every], [harm([load], [s]) for s in every]))
    joules, nats = np.array(tables[0][0]), np.array(tables[0][1])
    for more_J, more_nats in tables[1:]:
        joules = np.add.outer(joules, np.array(more_J)).ravel()
        nats = np.add.outer(nats, np.array(more_nats)).ravel()
        order = np.argsort(joules)  # what costs more and harms more is never better
        joules, nats = joules[order], nats[order]
        kept = nats <= np.minimum.accumulate(nats)
        joules, nats = joules[kept], nats[kept]
    return float(joules[nats <= budget].min())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("allowed", [0.8, 1.5, 4.0])
def test_whole_choices_are_close_to_the_best_there_is(seed: int, allowed: float) -> None:
    known = [layer(10 * seed + i, dac=True) for i in range(3)]
    budget = allowed * harm(known, today(known))
    found = plan(known, budget, reads=(1.0, 1.0), repeats=4)
    assert harm(known, found) <= budget * (1 + 1e-9)
    best = cheapest(known, budget, (1.0,), 4)
    assert best * (1 - 1e-9) <= spent_J(known, found) <= 1.06 * best


@pytest.mark.parametrize("seed", range(4))
def test_with_read_times_too_nothing_on_a_fine_grid_is_cheaper(seed: int) -> None:
    known = [layer(10 * seed + i) for i in range(2)]
    budget = 1.5 * harm(known, today(known))
    found = plan(known, budget, reads=(1 / 4, 4.0), repeats=3)
    assert harm(known, found) <= budget * (1 + 1e-9)
    best = cheapest(known, budget, tuple(float(f) for f in np.geomspace(1 / 4, 4, 161)), 3)
    assert spent_J(known, found) <= 1.02 * best


def shares(seed: int, columns: str, count: int = 5) -> Shares:
    rng = np.random.default_rng(seed)
    parts = [v / v.sum() for v in rng.lognormal(0, 1.0, (4, count))]
    return Shares(columns, *(tuple(float(x) for x in v) for v in parts))  # type: ignore[arg-type]


def test_windows_of_channels_are_the_closed_form() -> None:
    # One layer without converters: s_c ~ (n_c / h_c)^(1/4), at the loss of today, channel by channel.
    part = shares(3, "timed")
    known = [Load("a", 2.0, 0.0, 0.0, None, 3.0, {}, shares=part)]
    (found,) = plan(known, 2.0, reads=(1e-6, 1e6))
    wanted = read_times([3.0 * a for a in part.array], [2.0 * w for w in part.white], [1.0] * 5)
    assert [found.read * w for w in found.column_windows] == near(list(wanted.factors), rel=1e-6)
    assert max(found.column_windows) == 1.0
    assert spent_J(known, today(known)) / spent_J(known, [found]) == near(wanted.saved, rel=1e-6)
    whole = [replace(known[0], shares=None)]
    assert spent_J(known, [found]) < spent_J(whole, plan(whole, 2.0, reads=(1e-6, 1e6)))


@pytest.mark.parametrize("time_J", [0.0, 0.5, 5.0])
def test_windows_under_static_power_are_what_an_optimiser_finds(time_J: float) -> None:
    part = shares(5, "timed")
    known = [Load("a", 2.0, 0.0, 0.0, None, 3.0, {}, time_J=time_J, shares=part)]
    (found,) = plan(known, 2.0, reads=(1e-6, 1e6))
    a, w = 3.0 * np.array(part.array), 2.0 * np.array(part.white)
    # The longest window as a variable of its own: smooth, where max is not.
    done = minimize(
        lambda z: np.sum(a * np.exp(z[:5])) + time_J * np.exp(z[5]),
        np.zeros(6),
        constraints=[
            {"type": "eq", "fun": lambda z: np.sum(w * np.exp(-z[:5])) - 2.0},
            {"type": "ineq", "fun": lambda z: z[5] - z[:5]},
        ],
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    assert spent_J(known, [found]) == near(float(done.fun), rel=1e-5)
    assert [found.read * x for x in found.column_windows or (1.0,) * 5] == near(list(np.exp(done.x[:5])), rel=2e-2)


@pytest.mark.parametrize("seed", range(4))
def test_reads_of_channels_are_close_to_the_best_there_is(seed: int) -> None:
    load = replace(layer(seed, shares=shares(seed, "masked", 4)), dac=0.05)
    least = harm([load], [quietest(load, 1.0, 4)])
    budget = least + 0.4 * (harm([load], today([load])) - least)
    (found,) = plan([load], budget, reads=(1.0, 1.0), repeats=4)
    assert harm([load], [found]) <= budget * (1 + 1e-9)
    best = math.inf
    for bits, counts in itertools.product(load.adc_J, itertools.product(range(1, 5), repeat=4)):
        most = max(counts)
        own = () if min(counts) == most else counts
        other = Setting(load.name, 1.0, bits, repeats=most, column_repeats=own)
        if harm([load], [other]) <= budget:
            best = min(best, spent_J([load], [other]))
    assert best * (1 - 1e-9) <= spent_J([load], [found]) <= 1.15 * best


def test_repeats_are_the_way_out_where_a_longer_read_is_none() -> None:
    sampled = Load("a", 0.0, 1e-6, 0.0, 8, 1.0, {8: 1.0}, sampled=1.0)
    (found,) = plan([sampled], 0.3, reads=(1 / 8, 8.0), repeats=8)
    assert found.repeats == 4 and found.read == 1 / 8
    white = replace(sampled, sampled=0.0, white=1.0)  # a longer read does it and converts once
    (found,) = plan([white], 0.3, reads=(1 / 8, 8.0), repeats=8)
    assert found.repeats == 1 and found.read == near(1 / 0.3, rel=1e-3)
    (found,) = plan([white], 0.3, reads=(1 / 8, 1.0), repeats=8)  # as long as it can be
    assert found.repeats == 4 and found.read <= 1.0


def test_cells_whose_energy_knows_no_time_are_read_as_today() -> None:
    (found,) = plan([Load("sram", 0.0, 1.0, 0.0, 6, 0.0, {6: 1.0})], 2.0)
    assert found.read == 1.0


def test_alike_is_never_cheaper_and_differs_between_layers_in_nothing() -> None:
    known = [layer(i, dac=True) for i in range(3)]
    budget = 2.0 * harm(known, today(known))
    same, each = (plan(known, budget, repeats=3, uniform=u) for u in (True, False))
    assert len({(s.read, s.bits, s.dac_bits, s.repeats) for s in same}) == 1
    assert harm(known, same) <= budget * (1 + 1e-9) and spent_J(known, each) <= spent_J(known, same)


def test_loads_and_shares_check_their_numbers() -> None:
    with pytest.raises(InputError, match=r"shares of white: 2 numbers that add up to 0\.9"):
        Shares("timed", (0.5, 0.5), (0.5, 0.4), (0.5, 0.5), (0.5, 0.5))
    with pytest.raises(InputError, match=r"by_dac\[4\] prices ADCs of \[5\] bits"):
        Load("a", 1.0, 1.0, 0.0, 6, 1.0, {6: 1.0}, dac_bits=6, by_dac={4: Price(1.0, {5: 1.0})})
    with pytest.raises(InputError, match="repeats = 0"):
        plan([layer(0)], 1.0, repeats=0)


# --- networks --------------------------------------------------------------------------------------------------------


def trained(hw: Hardware) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(192) % 4
    x = torch.randn(4, 12, generator=generator)[y] + 0.6 * torch.randn(192, 12, generator=generator)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    optimiser = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimiser.step()
    return mho.calibrate(mho.convert(net, hw), [x]), x, y


def timed(columns: str = "timed", **cell: float) -> Hardware:
    hw = load_hardware("generic-channel")
    return hw.replace(
        cell=replace(hw.cell, **{"read_noise": 0.05} | cell), readout=replace(hw.readout, columns=columns)
    )


def test_rounding_of_inputs_moves_all_outputs_together() -> None:
    # One layer: the rise of the loss for errors of half a step at most on each input that is not 0.
    analog, x, y = trained(timed())
    layer = dict(analog_layers(analog))["2"]
    with torch.no_grad():  # a network that is less sure: labels drawn from its prediction then differ
        layer.weight *= 0.2
        layer.bias *= 0.2
    first = sensitivities(analog, [(x, y)] * 30)
    with torch.no_grad():
        h = nn.functional.relu(
            nn.functional.linear(x, *(dict(analog.named_parameters())[k] for k in ("0.weight", "0.bias")))
        )
        lsb = float(layer.weight_ranges[0]) / 31
        generator, rise = torch.Generator().manual_seed(1), 0.0
        whole = nn.functional.linear(h, layer.weight, layer.bias)
        for _ in range(400):
            e = (torch.rand(h.shape, generator=generator) - 0.5) * lsb * (h != 0)
            moved = nn.functional.linear(e, layer.weight)
            pair = [nn.functional.cross_entropy(whole + s * moved, y) for s in (1, -1)]
            rise += float(sum(pair) / 2 - nn.functional.cross_entropy(whole, y)) / 400
    assert first[1].dac == near(rise, rel=0.15)


def test_channels_add_up_to_their_layer() -> None:
    analog, x, y = trained(timed())
    whole, split = (sensitivities(analog, [(x, y)], channels=c) for c in (False, True))
    for one, each in zip(whole, split, strict=True):
        assert each.channels is not None and replace(each, channels=None) == one
        for part in ("white", "sampled", "rounding"):
            assert sum(getattr(each.channels, part)) == near(getattr(one, part), rel=1e-6, abs=1e-12)
    # The cells' share is that of the energy: one channel alone draws it.
    known = loads(analog, x, split)
    report = {r.name: r for r in mho.energy(analog, x).layers}
    for load in known:
        assert load.array_J == near(report[load.name].energy_J["array"].typical)
        others = tuple(1.0 if c == 0 else 1e-9 for c in range(len(load.shares.array)))
        alone = applied(analog, [Setting(load.name, 1.0, None, column_windows=others)])
        drawn = next(r for r in mho.energy(alone, x).layers if r.name == load.name).energy_J["array"].typical
        assert drawn == near(load.array_J * load.shares.array[0], rel=1e-6)


@pytest.mark.parametrize("name", ["generic-channel", "sram-charge", "pcm-hermes", "photonic-mzi", "reram-wan2022"])
def test_the_plan_is_priced_as_the_network_that_it_makes(name: str) -> None:
    analog, x, y = trained(load_hardware(name))
    known = loads(analog, x, sensitivities(analog, [(x, y)]), dac=True)
    chosen = [Setting(k.name, 2.0, (k.bits or 8) - 1, (k.dac_bits or 8) - 1, 3) for k in known]
    joules = []
    for settings in (today(known), chosen):
        report = mho.energy(applied(analog, settings), x)
        assert report.total_J is not None
        joules.append(report.total_J.typical)
    added = spent_J(known, chosen) - spent_J(known, today(known))
    if name == "photonic-mzi":  # conversions hide a part of longer reads, of which the plan sees the first bit
        assert 0 < joules[1] - joules[0] <= added
    else:
        assert joules[1] - joules[0] == near(added, rel=1e-6)


def test_the_harm_of_settings_is_what_the_network_that_they_make_has() -> None:
    analog, x, y = trained(timed())
    known = loads(analog, x, sensitivities(analog, [(x, y)], channels=True), dac=True)
    rng = np.random.default_rng(0)
    chosen = [
        Setting(k.name, 0.5, 5, 5, 1, tuple(float(v) for v in np.append(rng.uniform(0.1, 1, len(k.shares.array) - 1),
        1.0))) for k in known
    ]  # fmt: skip
    twin = applied(analog, chosen)
    plain = applied(twin, [])
    for _, module in analog_layers(
        plain
    ):  # sensitivities start from one plain read: columns go into the noise of cells
        for site in module.sites.values():
            assert site.hw.readout.column_windows
    # Second-order harm by source, from the variances of the network that was made.
    from mho.allocation.sensitivity import _batch, _Probe
    from mho.nn.site import substituted
    from mho.rng import stream

    sums, probe = {}, _Probe()
    with substituted(twin.eval(), lambda _: probe):
        _batch(twin, probe, x, stream(0, "allocation", "labels"), False, sums)
    measured = sum(float(v[k].sum()) for v in sums.values() for k in ("white", "sampled", "frozen", "rounding", "dac"))
    assert measured / len(x) == near(harm(known, chosen), rel=1e-3)


def test_allocate_takes_channels_repeats_and_dacs_within_its_points() -> None:
    hw = timed()
    assert hw.cost is not None
    hw = hw.replace(cost=replace(hw.cost, drive=replace(hw.cost.drive, bits=6)))
    analog, x, y = trained(hw)
    settings = {"points": 1.5, "chips": 4, "halvings": 2}
    whole = allocate(analog, [(x, y)], **settings)
    each = allocate(analog, [(x, y)], per="channel", repeats=2, dac=True, **settings)
    assert each.accuracy_after >= each.accuracy_before - 1.5
    assert all(s.dac_bits is not None for s in each.settings) and any(s.column_windows for s in each.settings)
    assert each.saved() > 1 and whole.saved() > 1
    again = mho.evaluate(each.apply(analog), [(x, y)], chips=4, seed=1_000_003)
    assert float(again.accuracy().mean()) == near(each.accuracy_after)
    nn.functional.cross_entropy(each.apply(analog).train()(x), y).backward()


def test_reads_of_channels_on_a_readout_that_masks() -> None:
    analog, x, y = trained(timed("masked", read_noise=0.3))
    found = allocate(analog, [(x, y)], points=2.0, chips=3, halvings=1, per="channel", repeats=4, reads=(1.0, 1.0))
    assert all(not s.column_windows and s.read == 1.0 for s in found.settings)
    sites = [s for _, m in analog_layers(found.apply(analog)) for s in m.sites.values()]
    assert [s.hw.readout.repeats for s in sites] == [s.repeats for s in found.settings]


def test_a_readout_that_cannot_is_refused_and_says_what_it_had_to_do() -> None:
    analog, x, y = trained(load_hardware("generic-channel"))
    with pytest.raises(HardwareError, match=r"reads all columns of a tile together.*an integrator with its own stop"):
        allocate(analog, [(x, y)], per="channel")
    with pytest.raises(HardwareError, match="columns have no time of their own"):
        applied(analog, [Setting("0.weight", 1.0, 6, column_windows=(0.5,) * 8)])
    refuse_channels("fc", timed("masked"))
    with pytest.raises(InputError, match="per = 'column'"):
        allocate(analog, [(x, y)], per="column")
    with pytest.raises(InputError, match="with uniform=True"):
        allocate(analog, [(x, y)], per="channel", uniform=True)
    again, x, y = trained(repeated_read(load_hardware("generic-channel"), 2))
    with pytest.raises(InputError, match=r"0\.weight: its reads are repeated"):
        sensitivities(again, [(x, y)])
