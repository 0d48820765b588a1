"""The GPU's fused product is ``mvm`` with the same normals, forward and backward (Triton's interpreter)."""

from typing import Any, NamedTuple

import pytest
import torch
from gpu_interpreter import DEVICE, launch, on_device, operator, shapes  # noqa: F401 (a fixture)
from torch import Tensor

from mho.crossbar.array import Array, program
from mho.crossbar.mvm import Observed, mvm
from mho.crossbar.noise import Counter
from mho.crossbar.ops import ConvOp, LinearOp, Op, balanced_blocks
from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping, Neuron, Tile


class Case(NamedTuple):
    op: Op
    x: Tensor
    w: Tensor
    bias: Tensor


def _linear(rows: int = 21) -> Case:
    torch.manual_seed(0)
    return Case(LinearOp(40, 19), torch.randn(3, rows // 3, 40), torch.randn(19, 40), torch.randn(19))


def _conv(stride: int = 1, padding: int = 1, dilation: int = 1, last: bool = False) -> Case:
    torch.manual_seed(0)
    op = ConvOp(4, 6, (3, 2), (stride, 1), (padding, 0), (dilation, 1), 1)
    x = torch.randn(2, 4, 7, 5)
    if last:
        x = x.to(memory_format=torch.channels_last)
    return Case(op, x, torch.randn(6, 4, 3, 2), torch.randn(6))


def _hardware(
    read: float = 0.02, rows: int | None = None, dac: Dac | None = None, adc: Adc | None = None, output: float = 0.02,
    per_column: bool = False,
) -> Hardware:  # fmt: skip
    return Hardware(
        name="noisy", cell=GenericCell(read_noise=read), mapping=Mapping(scheme="signed", per_column=per_column),
        tile=Tile(rows=rows), dac=dac, adc=adc, output_noise=output,
    )  # fmt: skip


class Ran(NamedTuple):
    y: Tensor
    seen: Observed
    grads: tuple[Tensor | None, ...]


def _run(
    which: str, case: Case, hw: Hardware, ranges: Tensor, learned: bool, fresh: Counter | None,
    **how: Any,
) -> Ran:  # fmt: skip
    op = case.op
    x, w, bias = (t.clone(memory_format=torch.preserve_format).requires_grad_() for t in (case.x, case.w, case.bias))
    r = ranges.to(DEVICE, copy=True).requires_grad_(learned)
    array = program(w, op, hw, None)
    if which == "kernels":
        assert operator.takes(x, array, op, hw, fresh, bias)
        y, seen = operator.product(x, array, op, hw, fresh, r, bias, **how)
    else:
        noise = operator.as_noise(fresh, x, op, hw, 1)
        y, seen = mvm(x, array, op, hw, noise, input_range=r[0], adc_range=r[1], bias=bias)
    g = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    inputs = [t for t in (x, w, bias, r) if t.requires_grad]
    return Ran(y.detach(), seen, torch.autograd.grad(y, inputs, g, allow_unused=True))


def _check(
    case: Case, hw: Hardware, ranges: Tensor, learned: bool = False, fresh: Counter | None = None,
    **how: Any,
) -> None:  # fmt: skip
    a = _run("mvm", case, hw, ranges, learned, fresh)
    b = _run("kernels", case, hw, ranges, learned, fresh, **how)
    assert a.y.shape == b.y.shape
    coarse = case.x.dtype == torch.bfloat16
    near = 3e-2 if coarse else 1e-5
    # A value at a tie of a converter may go to the other code: never many.
    share = 0.2 if coarse else 0.01
    assert ((a.y - b.y).abs() > near * a.y.abs().max()).float().mean() <= share
    for one, other in zip(a.seen, b.seen, strict=True):
        assert float(one) == pytest.approx(float(other), rel=2e-2 if coarse else 1e-5)
    for one, other in zip(a.grads, b.grads, strict=True):
        zero = torch.zeros(())
        one, other = zero if one is None else one, zero if other is None else other
        assert other.isfinite().all()
        assert ((one - other).abs() > near * (one.abs().max() + 1e-6)).float().mean() <= share


DAC, ADC = Dac(bits=6), Adc(bits=7)
KNOWN = torch.tensor([1.5, 6.0], device=DEVICE)
CASES = {
    "one tile": (_linear, _hardware(dac=DAC, adc=ADC), KNOWN, False),
    "three tiles": (_linear, _hardware(rows=15, dac=DAC, adc=ADC), KNOWN, False),
    "three tiles, learned ranges": (_linear, _hardware(rows=15, dac=DAC, adc=ADC), KNOWN, True),
    "read noise a column": (_linear, _hardware(rows=15, dac=DAC, adc=ADC, per_column=True), KNOWN, True),
    "no read noise, learned": (_linear, _hardware(read=0, rows=15, dac=DAC, adc=ADC), KNOWN, True),
    "no ADC": (_linear, _hardware(dac=DAC, output=0), KNOWN, False),
    "no converters": (_linear, _hardware(rows=15, output=0), KNOWN, False),
    "clipping hard": (_linear, _hardware(rows=15, dac=DAC, adc=ADC), torch.tensor([0.3, 1.0]), True),
    "ranges not known": (_linear, _hardware(rows=15, dac=DAC, adc=ADC), torch.zeros(2), False),
    "ranges in root mean squares": (
        _linear, _hardware(rows=15, dac=Dac(bits=6, range_sigma=2.5), adc=Adc(bits=7, range_sigma=3.0)),
        torch.zeros(2), False,
    ),
    "converters without levels": (_linear, _hardware(rows=15, dac=Dac(bits=None), adc=Adc(bits=None)), KNOWN, True),
    "convolution": (_conv, _hardware(rows=13, dac=DAC, adc=ADC), KNOWN, True),
    "channels last": (lambda: _conv(last=True), _hardware(rows=13, dac=DAC, adc=ADC), KNOWN, False),
    "strided": (lambda: _conv(stride=2, padding=2, dilation=2), _hardware(dac=DAC, adc=ADC), KNOWN, False),
    "convolution, a column": (_conv, _hardware(rows=13, dac=DAC, adc=ADC, per_column=True), KNOWN, True),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_kernels_equal_mvm(name: str) -> None:
    make, hw, ranges, learned = CASES[name]
    _check(make(), hw, ranges, learned, Counter(11, 0.5))


ONE_TILE = {
    "linear": (_linear, _hardware(dac=DAC, adc=ADC), KNOWN, False),
    "learned, clipping hard": (_linear, _hardware(dac=DAC, adc=ADC), torch.tensor([0.3, 1.0]), True),
    "read noise a column": (_linear, _hardware(dac=DAC, adc=ADC, per_column=True), KNOWN, True),
    "no read noise, learned": (_linear, _hardware(read=0, dac=DAC, adc=ADC), KNOWN, True),
    "no ADC": (_linear, _hardware(dac=DAC, output=0), KNOWN, False),
    "no DAC": (_linear, _hardware(adc=ADC), KNOWN, True),
    "converters without levels": (_linear, _hardware(dac=Dac(bits=None), adc=Adc(bits=None)), KNOWN, True),
    "ranges not known": (_linear, _hardware(dac=DAC, adc=ADC), torch.zeros(2), False),
    "one range known": (_linear, _hardware(dac=DAC, adc=ADC), torch.tensor([1.5, 0.0]), False),
    "ranges in root mean squares": (
        _linear, _hardware(dac=Dac(bits=6, range_sigma=2.5), adc=Adc(bits=7, range_sigma=3.0)), torch.zeros(2), False,
    ),
    "convolution": (_conv, _hardware(dac=DAC, adc=ADC), KNOWN, True),
    "channels last": (lambda: _conv(last=True), _hardware(dac=DAC, adc=ADC), KNOWN, True),
}  # fmt: skip
ROUTES: tuple[launch.Route, ...] = ("fused", "library", "library-narrow")


@pytest.mark.parametrize("route", ROUTES[:2])
@pytest.mark.parametrize("name", ONE_TILE)
def test_one_tile_equals_mvm_whoever_multiplies(name: str, route: launch.Route) -> None:
    make, hw, ranges, learned = ONE_TILE[name]
    _check(make(), hw, ranges, learned, Counter(11, 0.5), route=route)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("make", [_linear, _conv])
def test_bfloat16_of_one_tile_follows_mvm(make: object, route: launch.Route) -> None:
    assert callable(make)
    case = make()
    half = Case(case.op, *(t.bfloat16() for t in case[1:]))
    if route == "library" and isinstance(case.op, ConvOp):
        route = launch.route_for(case.op, torch.bfloat16, 1)  # sums of a library's convolution are not float32
        assert route == "fused"
    _check(half, _hardware(dac=DAC, adc=ADC), KNOWN, False, Counter(11), route=route)


def test_routes_differ_by_rounding_alone() -> None:
    case, hw = _linear(), _hardware(dac=DAC, adc=Adc(bits=None))  # levels would hide or enlarge a difference
    array = program(case.w, case.op, hw, None)
    a, b, c = (
        operator.product(case.x, array, case.op, hw, Counter(5), KNOWN, case.bias, route=route)[0] for route in ROUTES
    )
    assert (a - b).abs().max() <= 1e-6 * a.abs().max() and torch.equal(b, c)


def test_sums_of_the_library_stay_float32_up_to_the_adc() -> None:
    case, hw = _linear(), _hardware(dac=DAC, adc=Adc(bits=20), output=0, read=0)
    x, w, _ = (t.bfloat16() for t in case[1:])
    array, op, ranges = program(w, case.op, hw, None), case.op, torch.tensor([1.5, 64.0])
    wide = operator.product(x, array, op, hw, None, ranges, None, route="library")[0]
    narrow = operator.product(x, array, op, hw, None, ranges, None, route="library-narrow")[0]
    fused = operator.product(x, array, op, hw, None, ranges, None, route="fused")[0]
    # Rounded once, the output differs from the rounding of a float32 sum by what the interpreter cuts off.
    assert (wide == fused).float().mean() >= 0.99
    assert (narrow == fused).float().mean() < 0.9


def test_the_rule_gives_the_library_what_it_can_keep_in_float32() -> None:
    deep, conv = LinearOp(4096, 64), ConvOp(64, 8, (3, 3), (1, 1), (1, 1), (1, 1), 1)
    rule = launch.route_for
    assert rule(deep, torch.bfloat16, 1) == rule(deep, torch.float32, 1) == rule(conv, torch.float32, 1) == "library"
    assert rule(deep, torch.bfloat16, 8) == rule(LinearOp(40, 64), torch.bfloat16, 1) == "fused"
    assert rule(conv, torch.bfloat16, 1) == "fused"


@pytest.mark.parametrize("make", [_linear, _conv])
def test_a_quiet_read_equals_mvm(make: object) -> None:
    assert callable(make)
    _check(make(), _hardware(rows=13, dac=DAC, adc=ADC), KNOWN, True, None)


def test_bfloat16_follows_mvm() -> None:
    case = _linear()
    half = Case(case.op, *(t.bfloat16() for t in case[1:]))
    _check(half, _hardware(rows=15, dac=DAC, adc=ADC), KNOWN, False, Counter(11))


def test_ten_tiles_keep_ten_masks() -> None:
    _check(_linear(), _hardware(rows=4, dac=DAC, adc=ADC), torch.tensor([1.5, 0.8]), True, Counter(3))


WAYS: tuple[launch.Backward, ...] = ("mended", "masked")


@pytest.mark.parametrize("backward", WAYS)
@pytest.mark.parametrize("limit", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("r_out", [0.5, 8.0, 12.0, 1e3])
def test_tiles_go_back_as_mvm_however_much_is_clipped(
    r_out: float, limit: float, backward: launch.Backward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "MANY", limit)  # 0: every block that clipped is multiplied again; 1: none is
    case, hw = _linear(45), _hardware(rows=15, dac=DAC, adc=ADC)
    _check(case, hw, torch.tensor([1.5, r_out]), False, Counter(3), backward=backward)


@pytest.mark.parametrize("backward", WAYS)
def test_tiles_go_back_in_bfloat16(backward: launch.Backward) -> None:
    case = _linear()
    half = Case(case.op, *(t.bfloat16() for t in case[1:]))
    _check(half, _hardware(rows=15, dac=DAC, adc=ADC), torch.tensor([1.5, 4.0]), False, Counter(11), backward=backward)


def test_a_mutant_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = operator.as_noise
    monkeypatch.setattr(
        operator, "as_noise", lambda fresh, *rest: noise(None if fresh is None else Counter(fresh.seed, 1.05), *rest)
    )
    with pytest.raises(AssertionError):
        _check(_linear(), _hardware(adc=ADC), KNOWN, False, Counter(11))


@pytest.mark.parametrize("hw", [_hardware(dac=DAC, adc=ADC), _hardware(rows=15, dac=DAC, adc=ADC)])
def test_no_number_depends_on_block_sizes(hw: Hardware) -> None:
    case = _linear()
    array = program(case.w, case.op, hw, None)
    results = [
        operator.product(case.x, array, case.op, hw, Counter(5), KNOWN, case.bias, blocks=blocks, route="fused")[0]
        for blocks in (launch.Blocks(16, 16, 16), launch.Blocks(32, 32, 64), launch.Blocks(16, 64, 32))
    ]
    for other in results[1:]:
        assert ((results[0] - other).abs() > 1e-4).float().mean() <= 0.01


def test_a_seed_makes_a_read() -> None:
    case, hw = _linear(6), _hardware(dac=DAC, adc=ADC)
    array = program(case.w, case.op, hw, None)

    def read(seed: int) -> Tensor:
        return operator.product(case.x, array, case.op, hw, Counter(seed), KNOWN, None)[0]

    assert torch.equal(read(2**62 + 1), read(2**62 + 1))
    assert not torch.equal(read(2**62 + 1), read(1))  # the high half of a seed counts


def test_what_is_kept_for_the_backward_pass_is_a_bit_an_output() -> None:
    case, hw = _linear(), _hardware(read=0, rows=15, dac=DAC, adc=ADC)
    array = program(case.w, case.op, hw, None)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        operator.product(case.x.requires_grad_(), array, case.op, hw, Counter(5), KNOWN, None)
    extra = [t for t in kept if t.data_ptr() != array.weights[0].data_ptr()]
    # The driven input in place of x and a bit an input; 3 parts, 19 columns in 3 bytes; ranges.
    assert sum(t.numel() * t.element_size() for t in extra) <= 21 * 40 * 4 + 21 * 5 + 3 * 21 * 3 + 16


@pytest.mark.parametrize("route", ROUTES[:2])
@pytest.mark.parametrize("dac", [DAC, None])
def test_a_second_derivative_is_that_of_the_plain_operator(dac: Dac | None, route: launch.Route) -> None:
    case, hw, r = _linear(6), _hardware(dac=dac, adc=ADC), torch.tensor([1.0, 4.0])  # both converters clip
    found = []
    for kernels in (True, False):
        x, w, ranges = (t.clone().requires_grad_() for t in (case.x, case.w, r))
        array = program(w, case.op, hw, None)
        if kernels:
            y, _ = operator.product(x, array, case.op, hw, Counter(5), ranges, case.bias, route=route)
        else:
            noise = operator.as_noise(Counter(5), x, case.op, hw, 1)
            y, _ = mvm(x, array, case.op, hw, noise, input_range=ranges[0], adc_range=ranges[1], bias=case.bias)
        g = torch.linspace(-1, 1, y.numel()).view(y.shape).requires_grad_()
        first = torch.autograd.grad(y, (x, w, ranges), g, create_graph=True)
        weighed = sum((t * torch.linspace(-1, 2, t.numel()).view(t.shape)).sum() for t in first)
        second = torch.autograd.grad(weighed, (x, w, g, ranges), allow_unused=True)
        found.append([*first, *(torch.zeros(()) if t is None else t for t in second)])
    for one, other in zip(*found, strict=True):
        assert ((one - other).abs() > 1e-4 * (other.abs().max() + 1e-6)).float().mean() <= 0.01
    assert found[0][3].abs().sum() > 0


def test_uncovered_hardware_falls_back_with_the_same_normals() -> None:
    case = _linear(6)
    hw = Hardware(
        name="bent", cell=GenericCell(read_noise=0.02), mapping=Mapping(scheme="signed"), adc=ADC, output_noise=0.02,
        neuron=Neuron(),
    )  # fmt: skip
    array: Array = program(case.w, case.op, hw, None)
    assert not operator.takes(case.x, array, case.op, hw, Counter(5), None)
    y, _ = operator.product(case.x, array, case.op, hw, Counter(5), KNOWN, None)
    noise = operator.as_noise(Counter(5), case.x, case.op, hw, 1)
    plain, _ = mvm(case.x, array, case.op, hw, noise, input_range=KNOWN[0], adc_range=KNOWN[1])
    assert torch.equal(y, plain)


@pytest.mark.parametrize(("items", "limit"), [(40, 15), (10, 4), (4096, 512), (7, 2), (576, 256)])
def test_tiles_begin_where_the_operator_cuts(items: int, limit: int) -> None:
    blocks = balanced_blocks(items, limit)
    align = shapes.alignment(items, len(blocks))
    assert all(b.start % align == 0 and b.stop % align == 0 for b in blocks)
