"""Equilibrium propagation against the true gradient, by implicit differentiation and by unrolled relaxation."""

import math

import pytest
import torch
from torch import Tensor

from mho.ebm.eqprop import Nudging, Variant, eqprop_gradient
from mho.ebm.hopfield import (
    Clip,
    Conv,
    CrossEntropy,
    Dense,
    Dynamics,
    HopfieldNet,
    Identity,
    Layer,
    MeanSquares,
    Sigmoid,
    clamp,
)
from mho.ebm.implicit import implicit_gradient
from mho.ebm.relax import Relaxation
from mho.errors import InputError
from mho.rng import stream, uniforms

TIGHT = Relaxation(4000, 1e-11, 10)
S, WIDE = Sigmoid(), Clip(-1.0, 2.0)
NETS: dict[str, tuple[tuple[int, ...], tuple[Layer, ...], int | None]] = {
    "dense": ((6,), (Dense(units=12), Dense(units=8), Dense(units=3, activation=WIDE)), None),
    "dense, readout": ((6,), (Dense(units=12), Dense(units=8)), 3),
    "dense, smooth": (
        (6,),
        (Dense(units=12, activation=S), Dense(units=8, activation=S), Dense(units=3, activation=Identity())),
        None,
    ),
    "dense, smooth, readout": ((6,), (Dense(units=12, activation=S), Dense(units=8, activation=S)), 3),
    "conv, average": (
        (2, 6, 6),
        (Conv(channels=3, pool="average"), Conv(channels=4, padding=0), Dense(units=3, activation=WIDE)),
        None,
    ),
    "conv, max": ((2, 8, 8), (Conv(channels=3, pool="max"), Conv(channels=4, pool="max")), 3),
    "conv, soft, smooth": (
        (2, 4, 4),
        (
            Conv(channels=3, activation=S),
            Conv(channels=4, pool="soft", activation=S),
            Dense(units=3, activation=Identity()),
        ),
        None,
    ),
    "residual": (
        (2, 6, 6),
        (Conv(channels=3), Conv(channels=3), Conv(channels=3, skip=1), Conv(channels=4, stride=2, skip=2)),
        3,
    ),
}
SMOOTH = ("dense, smooth", "dense, smooth, readout", "conv, soft, smooth")


def case(name: str) -> tuple[HopfieldNet, Tensor, Tensor]:
    shape, layers, readout = NETS[name]
    net = HopfieldNet(shape, layers, readout=readout, gain=0.8, seed=1).double()
    with torch.no_grad():
        for key, value in net.named_parameters():
            if key.endswith("bias"):
                value += 0.2
    x = uniforms((4, *shape), 0, "x").double()
    return net, x, torch.tensor([0, 1, 2, 1])


def flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


def compare(found: dict[str, Tensor], true: dict[str, Tensor]) -> tuple[float, float]:
    """Cosine, and relative error."""
    assert found.keys() == true.keys()
    a, b = flat(found), flat(true)
    return float(a @ b / a.norm() / b.norm()), float((a - b).norm() / b.norm())


@pytest.mark.parametrize("name", NETS)
def test_gradient_tends_to_the_true_one(name: str) -> None:
    net, x, y = case(name)
    true = implicit_gradient(net, x, y, free=TIGHT)
    for variant in ("centred", "positive", "negative"):
        found = eqprop_gradient(net, x, y, nudging=Nudging(variant, 1e-3), free=TIGHT).gradients
        cosine, error = compare(found, true)
        assert cosine > 0.999, (variant, cosine)
        assert error < (1e-4 if variant == "centred" else 0.02), (variant, error)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize(
    ("variant", "order"), [("positive", 1.0), ("negative", 1.0), ("centred", 2.0), ("holomorphic", 4.0)]
)
def test_error_falls_with_the_order_of_the_variant(name: str, variant: Variant, order: float) -> None:
    net, x, y = case(name)
    true = implicit_gradient(net, x, y, free=TIGHT)
    nudges = torch.tensor([0.04, 0.02, 0.01], dtype=torch.float64)
    errors = [
        compare(eqprop_gradient(net, x, y, nudging=Nudging(variant, float(b), 4), free=TIGHT).gradients, true)[1]
        for b in nudges
    ]
    slopes = torch.tensor(errors, dtype=torch.float64).log().diff() / nudges.log().diff()
    assert float((slopes - order).abs().max()) < 0.15 * order, (errors, slopes)


@pytest.mark.parametrize("name", ["dense, smooth", "conv, average"])
def test_implicit_gradient_is_that_of_unrolled_relaxation(name: str) -> None:
    """The oracle's oracle: autograd through 120 steps s <- phi(-d(E - G)/ds), from the energy alone."""
    net, x, y = case(name)
    values = {key: p.detach().clone().requires_grad_() for key, p in net.named_parameters()}
    rest = clamp(net, x).run(net.initial(x), TIGHT, "free").states
    states = [s.detach().requires_grad_() for s in rest]
    for _ in range(120):
        interaction = net.energy(states, x, values).sum() - sum(
            layer.activation.potential(s).sum() for layer, s in zip(net.described, states, strict=True)
        )
        slopes = torch.autograd.grad(interaction, states, create_graph=True)
        states = [layer.activation.apply(-slope) for layer, slope in zip(net.described, slopes, strict=True)]
    loss = MeanSquares().loss(states[-1], y, values).mean()
    unrolled = dict(zip(values, torch.autograd.grad(loss, list(values.values())), strict=True))
    _, error = compare(unrolled, implicit_gradient(net, x, y, free=TIGHT))
    assert error < 1e-5


def test_holomorphic_with_two_points_is_centred() -> None:
    net, x, y = case("dense")
    a = eqprop_gradient(net, x, y, nudging=Nudging("holomorphic", 0.1, 2), free=TIGHT).gradients
    b = eqprop_gradient(net, x, y, nudging=Nudging("centred", 0.1), free=TIGHT).gradients
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_complex_states_need_an_analytic_energy() -> None:
    net, x, y = case("dense")
    with pytest.raises(InputError, match=r"layers\.0: Clip is not analytic"):
        eqprop_gradient(net, x, y, nudging=Nudging("holomorphic", 0.1, 4), free=TIGHT)
    layers = (Conv(channels=2, activation=S), Conv(channels=2, pool="max", activation=S))
    pooled = HopfieldNet((1, 4, 4), layers, readout=2).double()
    with pytest.raises(InputError, match="max pooling is not analytic"):
        eqprop_gradient(pooled, uniforms((2, 1, 4, 4), 0).double(), y[:2], nudging=Nudging("holomorphic", 0.1, 4))


def test_the_rule_is_local() -> None:
    """A weight's gradient is a product of what its two ends see: it does not change with other examples' order."""
    net, x, y = case("dense")
    how = Nudging("centred", 0.2)
    whole = eqprop_gradient(net, x, y, nudging=how, free=TIGHT).gradients
    parts = [eqprop_gradient(net, x[i : i + 1], y[i : i + 1], nudging=how, free=TIGHT).gradients for i in range(len(x))]
    for name, value in whole.items():
        assert torch.allclose(value, torch.stack([p[name] for p in parts]).mean(0), atol=1e-9)


def test_nudged_states_start_from_the_free_one() -> None:
    net, x, y = case("dense, smooth")
    far = eqprop_gradient(net, x, y, nudging=Nudging("centred", 0.5), free=TIGHT)
    near = eqprop_gradient(net, x, y, nudging=Nudging("centred", 1e-9), free=TIGHT)
    assert near.steps - near.free.steps < far.steps - far.free.steps


def test_averaged_reads_find_the_gradient_through_noise() -> None:
    """Noise of the states at a temperature: the mean over examples and reads still points the right way."""
    net = HopfieldNet((6,), (Dense(units=12, activation=Clip(-9, 9)), Dense(units=3, activation=Clip(-9, 9))), gain=0.5)
    x = uniforms((1, 6), 0, "x").expand(200, 6).contiguous()
    y = torch.zeros(200, dtype=torch.int64)
    true = implicit_gradient(net.double(), x[:1].double(), y[:1], free=TIGHT)
    hot = Dynamics(temperature=1e-3, settle=20, reads=40)
    found = eqprop_gradient(
        net.float(), x, y, nudging=Nudging("centred", 0.5), dynamics=hot, generator=stream(0, "hot")
    ).gradients
    cosine, _ = compare({k: v.double() for k, v in found.items()}, true)
    assert cosine > 0.98


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda: Nudging("central"), "Did you mean 'centred'"),
        (lambda: Nudging(strength=0.0), "positive"),
        (lambda: Nudging("holomorphic", points=3), "even number"),
    ],
)
def test_impossible_nudgings_are_refused(bad, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        bad()


def test_networks_and_costs_that_do_not_fit_are_refused() -> None:
    net, x, y = case("dense")
    with pytest.raises(InputError, match="nudge = -1"):
        eqprop_gradient(net, x, y, nudging=Nudging("centred", 1.0), free=TIGHT)
    with pytest.raises(InputError, match="the network has no readout"):
        clamp(net, x, cost=CrossEntropy())
    sig = HopfieldNet((6,), (Dense(units=3, activation=S),)).double()
    with pytest.raises(InputError, match="no closed form"):
        eqprop_gradient(sig, x, y, nudging=Nudging("positive", 0.1))
    with pytest.raises(InputError, match=r"layers\.1: skip = 1"):
        HopfieldNet((6,), (Dense(units=3), Dense(units=3, skip=1)))
    with pytest.raises(InputError, match=r"layers\.1: a convolution after"):
        HopfieldNet((6,), (Dense(units=3), Conv(channels=2)))
    with pytest.raises(InputError, match="do not divide"):
        HopfieldNet((1, 5, 5), (Conv(channels=2, pool="max"),))
    with pytest.raises(InputError, match="input"):
        clamp(net, x[:, :3])
    assert math.isfinite(float(eqprop_gradient(net, x, y, nudging=Nudging("centred", 0.9), free=TIGHT).loss))
