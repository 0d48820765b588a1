"""The fused operator computes what ``mvm`` computes, forward and backward."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mho.crossbar import fused, fused_weight
from mho.crossbar.array import Array, program
from mho.crossbar.mvm import Observed, mvm
from mho.crossbar.noise import Counter, Noise, draw_static
from mho.crossbar.ops import ConvOp, LinearOp, Op
from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping, Tile


class Case(NamedTuple):
    op: Op
    x: Tensor
    w: Tensor
    bias: Tensor | None


def _case(kind: str, bias: bool) -> Case:
    torch.manual_seed(0)
    if kind == "linear":
        op: Op = LinearOp(24, 7)
        x, w = torch.randn(5, 24), torch.randn(7, 24)
    elif kind == "linear3d":
        op, x, w = LinearOp(24, 7), torch.randn(24, 3, 5).permute(2, 1, 0), torch.randn(7, 24)
    elif kind == "conv1d":
        op = ConvOp(4, 6, (3,), (2,), (1,), (1,), 1)
        x, w = torch.randn(3, 4, 9), torch.randn(6, 4, 3)
    elif kind == "grouped":
        op = ConvOp(4, 6, (3, 3), (1, 1), (1, 1), (1, 1), 2)
        x, w = torch.randn(3, 4, 5, 6), torch.randn(6, 2, 3, 3)
    else:
        op = ConvOp(4, 6, (3, 3), (2, 1), (1, 1), (1, 1), 1)
        x, w = torch.randn(3, 4, 7, 6), torch.randn(6, 4, 3, 3)
        if kind == "channels_last":
            x = x.to(memory_format=torch.channels_last)
        if kind == "transposed":
            x = torch.randn(4, 3, 6, 7).permute(1, 0, 3, 2)
    return Case(op, x, w, torch.randn(op.out_channels if isinstance(op, ConvOp) else 7) if bias else None)


def _array(w: Tensor, op: Op, hw: Hardware, bound: Tensor | None = None) -> Array:
    draws = draw_static(op, hw, w.shape, lambda shape, label: Counter(hash(label) & 0xFFFF))
    return program(w, op, hw, draws, bound=bound)


def _both(
    case: Case, hw: Hardware, noise: Noise, ranges: Tensor, learned: bool
) -> list[tuple[Tensor, Observed, tuple[Tensor | None, ...]]]:
    found = []
    for run in ("mvm", "fused"):
        x, w = case.x.clone(memory_format=torch.preserve_format).requires_grad_(), case.w.clone().requires_grad_()
        bias = None if case.bias is None else case.bias.clone().requires_grad_()
        r = ranges.clone().requires_grad_(learned)
        array = _array(w, case.op, hw)
        if run == "mvm":
            y, seen = mvm(x, array, case.op, hw, noise, input_range=r[0], adc_range=r[1], bias=bias)
        else:
            y, seen = fused.product(x, array, case.op, hw, noise, r, bias, learned=learned)
        weights = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
        inputs = [t for t in (x, w, bias, r if learned else None) if t is not None]
        grads = torch.autograd.grad((y * weights).sum(), inputs, allow_unused=True)
        found.append((y.detach(), seen, grads))
    return found


def _check(case: Case, hw: Hardware, noise: Noise, ranges: Tensor, learned: bool) -> None:
    (y0, seen0, g0), (y1, seen1, g1) = _both(case, hw, noise, ranges, learned)
    assert y0.shape == y1.shape
    rounding = hw.adc is not None and hw.adc.bits is not None
    error, scale = (y0 - y1).abs(), float(y0.abs().max()) + 1e-30
    ties = error > 3e-6 * scale
    assert ties.float().mean() <= (0.02 if rounding else 0.0)  # a code on the other side of a tie, rarely
    for a, b in zip(seen0, seen1, strict=True):
        assert float(a) == pytest.approx(float(b), rel=1e-4)
    for a, b in zip(g0, g1, strict=True):
        zero = torch.zeros(())
        a, b = zero if a is None else a, zero if b is None else b
        # A tie at the clip moves one whole element of the gradient.
        assert ((a - b).abs() > 1e-4 * (a.abs().max() + 1e-6)).float().mean() <= (0.05 if rounding else 0.0)


SPECS = st.builds(
    Hardware,
    name=st.just("random"),
    cell=st.builds(GenericCell, programming_noise=st.sampled_from([0.0, 0.1]), read_noise=st.sampled_from([0.0, 0.02])),
    mapping=st.builds(Mapping, scheme=st.sampled_from(["signed", "differential", "offset"]), per_column=st.booleans()),
    tile=st.builds(Tile, rows=st.sampled_from([None, 9, 18])),
    dac=st.none() | st.builds(Dac, bits=st.sampled_from([None, 4, 8]), range_sigma=st.sampled_from([None, 2.0])),
    adc=st.builds(Adc, bits=st.sampled_from([None, 5, 8]), range_sigma=st.sampled_from([None, 2.0])),
    output_noise=st.sampled_from([0.0, 0.05]),
)
KINDS = ["linear", "linear3d", "conv1d", "conv2d", "grouped", "channels_last", "transposed"]


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS), bias=st.booleans(), hw=SPECS, known=st.booleans(), learned=st.booleans(),
    fresh=st.sampled_from([None, Counter(11), Counter(12, 0.5)]),
)  # fmt: skip
def test_fused_equals_mvm(
    kind: str, bias: bool, hw: Hardware, known: bool, learned: bool, fresh: Counter | None
) -> None:
    case = _case(kind, bias)
    ranges = torch.tensor([1.5, 6.0]) if known else torch.zeros(2)
    _check(case, hw, Noise(fresh), ranges, learned)


NOISY = Hardware(
    name="noisy", cell=GenericCell(read_noise=0.02), mapping=Mapping(scheme="signed"), tile=Tile(rows=18),
    dac=Dac(bits=6), adc=Adc(bits=8), output_noise=0.02,
)  # fmt: skip


@pytest.mark.parametrize("kind", ["linear", "conv2d", "channels_last", "grouped"])
@pytest.mark.parametrize("fresh", [None, Counter(11)])
def test_tiles_under_a_learned_range_that_clips_equal_mvm(kind: str, fresh: Counter | None) -> None:
    hw = NOISY.replace(tile=Tile(rows=9), adc=Adc(bits=8), dac=Dac(bits=8))
    case, ranges = _case(kind, True), torch.tensor([1.0, 0.8])
    _check(case, hw, Noise(fresh), ranges, True)
    (_, _, exact), (_, _, ours) = _both(case, hw, Noise(fresh), ranges, True)
    assert float(exact[-1][1].abs()) > 0.01  # something was clipped, and the range hears of it
    torch.testing.assert_close(ours[-1], exact[-1], rtol=0.02, atol=0.02)


@pytest.mark.parametrize("fresh", [None, Counter(11)])
@pytest.mark.parametrize(("ranges", "known"), [((0.0, 0.0), (False, False)), ((0.7, 0.0), (True, False))])
def test_a_learned_range_that_is_not_known_yet_has_no_gradient(
    fresh: Counter | None, ranges: tuple[float, float], known: tuple[bool, bool]
) -> None:
    hw = NOISY.replace(tile=Tile(), adc=Adc(bits=6, range_sigma=1.0), dac=Dac(bits=6, range_sigma=1.0))
    (_, _, exact), (_, _, ours) = _both(_case("linear", True), hw, Noise(fresh), torch.tensor(ranges), True)
    assert [bool(g != 0) for g in ours[-1]] == list(known)
    torch.testing.assert_close(ours[-1], torch.zeros(2) if exact[-1] is None else exact[-1], rtol=0.02, atol=0.02)


def _fused(case: Case, hw: Hardware = NOISY, ranges: Tensor | None = None) -> Tensor:
    given_ranges = torch.tensor([1.5, 6.0]) if ranges is None else ranges
    array = _array(case.w, case.op, hw)
    y, _ = fused.product(case.x, array, case.op, hw, Noise(Counter(3)), given_ranges, case.bias, learned=True)
    return y


@pytest.mark.parametrize("kind", ["linear", "conv2d", "channels_last", "grouped"])
def test_double_backward_equals_mvm(kind: str) -> None:
    hw = NOISY.replace(adc=Adc(), dac=Dac())
    found = []
    for run in ("mvm", "fused"):
        case = _case(kind, True)
        x, w, ranges = case.x.requires_grad_(), case.w.requires_grad_(), torch.tensor([1.5, 6.0])
        array = _array(w, case.op, hw)
        noise = Noise(Counter(3))
        if run == "mvm":
            y, _ = mvm(x, array, case.op, hw, noise, input_range=ranges[0], adc_range=ranges[1], bias=case.bias)
        else:
            y, _ = fused.product(x, array, case.op, hw, noise, ranges, case.bias)
        first = torch.autograd.grad(y.pow(3).sum(), (x, w), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), (x, w))
        found.append((*first, *second))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(a.detach().abs().max()))


def test_backward_twice_raises_as_torch_does() -> None:
    case = _case("linear", True)
    y = _fused(case._replace(w=case.w.requires_grad_()))
    y.sum().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()
    y = _fused(case)
    y.sum().backward(retain_graph=True)
    y.sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_and_incoming_gradients_are_never_written_to(kind: str) -> None:
    case = _case(kind, True)
    leaves = [
        case.x.clone(memory_format=torch.preserve_format),
        case.w.clone(),
        case.bias.clone(),
        torch.tensor([1.5, 6.0]),
    ]
    before = [t.clone() for t in leaves]
    for t in leaves:
        t.requires_grad_()
    y = _fused(Case(case.op, *leaves[:3]), ranges=leaves[3])
    g = torch.randn_like(y)
    kept = g.clone()
    y.backward(g)
    assert torch.equal(g, kept)
    assert all(torch.equal(a, b.detach()) for a, b in zip(before, leaves, strict=True))
    assert all(t.grad is not None and t.grad.isfinite().all() for t in leaves)


@pytest.mark.parametrize("kind", ["linear", "linear3d", "conv2d"])
def test_expanded_gradient(kind: str) -> None:
    """y.sum() sends a gradient of stride 0."""
    case = _case(kind, True)
    x = case.x.requires_grad_()
    y = _fused(case._replace(x=x))
    flat = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
    assert torch.equal(flat, torch.autograd.grad(y, x, torch.ones_like(y))[0])


def test_a_changed_input_is_noticed_in_the_backward_pass() -> None:
    case = _case("linear", False)
    x, w = case.x.clone(), case.w.requires_grad_()
    y = _fused(case._replace(x=x, w=w), NOISY.replace(dac=None))
    x.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("bound", [None, 0.7])
def test_noisy_weight_equals_its_torch_form(bound: float | None) -> None:
    w, limit = torch.randn(7, 24), None if bound is None else torch.tensor(bound)
    draw, sigma = Counter(5, 0.5), torch.tensor(0.1)
    fast = fused_weight.noisy(w, limit, sigma, draw)
    clipped = w if limit is None else w.clamp(-limit, limit)
    slow = clipped + 0.1 * fused_weight.as_tensor(draw, (1, 7, 24), w)[0]
    assert torch.allclose(fast, slow, atol=1e-6)
    leaf = w.clone().requires_grad_()
    fused_weight.noisy(leaf, limit, sigma, draw).sum().backward()
    assert torch.equal(leaf.grad, torch.ones_like(w))
