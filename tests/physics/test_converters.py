"""Converters: levels, straight-through gradients, ENOB, gain, offset, INL; and the two STE primitives."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mho import ste
from mho.errors import HardwareError, InputError
from mho.physics import converters
from mho.physics.converters import quantize
from mho.rng import normals, uniforms
from mho.testing import assert_power, law_holds

SIZES = st.sampled_from([2, 3, 4, 6, 8, 12, 16])


def test_levels_are_symmetric_and_bounded() -> None:
    assert [converters.levels(b) for b in (2, 3, 8, 24)] == [1, 3, 127, 8388607]
    for bits in (1, 0, 25):
        with pytest.raises(HardwareError, match=f"bits = {bits}"):
            converters.levels(bits)


@settings(max_examples=50, deadline=None)
@given(bits=SIZES, r=st.floats(1e-3, 1e3), seed=st.integers(0, 1000))
def test_quantize_is_the_nearest_code_bit_for_bit(bits: int, r: float, seed: int) -> None:
    x = 2.0 * r * normals((257,), seed, "x")
    top = converters.levels(bits)
    full = torch.tensor(r)
    expected = torch.round((x * (top / full)).clamp(-top, top)) * (full / top)
    got = quantize(x, full, bits)
    assert torch.equal(got, expected)
    assert torch.equal(got, quantize(x, float(full), bits))
    assert got.unique().numel() <= 2 * top + 1
    lsb = float(full) / top
    assert ((got - x.clamp(-full, full)).abs() <= lsb * (0.5 + 1e-3 * top / 2**15) + 1e-6 * r).all()
    # Odd, idempotent and monotone. (An even code count would break the first.)
    assert torch.equal(quantize(-x, full, bits), -got)
    assert torch.equal(quantize(got, full, bits), got)
    assert (quantize(x.sort().values, full, bits).diff() >= 0).all()


def test_quantize_reaches_both_ends_and_all_codes() -> None:
    x = torch.linspace(-2, 2, 4001)
    got = quantize(x, 1.0, 4)
    assert torch.allclose(got.unique(), torch.arange(-7, 8) / 7)
    assert got.min() == -1.0 and got.max() == 1.0


def test_without_bits_only_the_range_is_left() -> None:
    x = torch.tensor([-3.0, -0.123, 0.0, 0.5, 7.0])
    assert torch.equal(quantize(x, 0.5, None), x.clamp(-0.5, 0.5))
    assert torch.equal(quantize(x, math.inf, None), x)


@pytest.mark.parametrize("bits", [None, 4])
def test_gradient_is_pact(bits: int | None) -> None:
    x = torch.tensor([-3.0, -1.2, -0.3, 0.2, 0.9, 1.5], dtype=torch.float64, requires_grad=True)
    r = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    weight = torch.arange(1.0, 7.0, dtype=torch.float64)
    (weight * quantize(x, r, bits)).sum().backward()
    assert x.grad is not None and r.grad is not None
    assert torch.equal(x.grad, weight * torch.tensor([0.0, 0, 1, 1, 1, 0]))
    assert r.grad == -1 - 2 + 6  # sign(x) outside, nothing inside


@pytest.mark.parametrize("zero", [0.0, torch.tensor(0.0), torch.tensor(1e-42)])
@pytest.mark.parametrize("bits", [None, 8])
def test_a_range_of_zero_gives_zeros_not_nan(zero: torch.Tensor | float, bits: int | None) -> None:
    x = torch.tensor([0.0, 1.0, -1.0, math.inf, math.nan])
    got = quantize(x, zero, bits)
    assert (got[:4].abs() <= 1e-41).all() and got[4].isnan()


def test_a_learned_range_can_leave_zero() -> None:
    r = torch.zeros((), requires_grad=True)
    quantize(torch.tensor([2.0, 3.0]), r, 8).sum().backward()
    assert r.grad == 2.0


def test_nan_stays_nan_and_infinity_is_clipped() -> None:
    x = torch.tensor([math.nan, math.inf, -math.inf])
    got = quantize(x, torch.tensor(2.0), 6)
    assert got[0].isnan() and got[1] == 2.0 and got[2] == -2.0
    assert quantize(torch.ones(2), torch.tensor(math.nan), 6).isnan().all()


def test_ranges_broadcast_and_dtypes_stay() -> None:
    x = normals((3, 5), 0, "x")
    r = torch.tensor([[0.5], [1.0], [2.0]])
    got = quantize(x, r, 5)
    for i in range(3):
        assert torch.equal(got[i], quantize(x[i], r[i], 5))
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        assert quantize(x.to(dtype), torch.tensor(1.0), 8).dtype == dtype
    # Half precision is rounded in float32: 10 bits do not fit the mantissa of bfloat16.
    half = normals((4000,), 0, "half").bfloat16()
    assert torch.equal(quantize(half, 2.0, 10), quantize(half.float(), 2.0, 10).bfloat16())
    assert quantize(torch.empty(0), 1.0, 8).shape == (0,)


def test_bad_arguments_are_refused() -> None:
    for r in (-1.0, math.nan):
        with pytest.raises(InputError, match="full_range"):
            quantize(torch.ones(2), r, 8)
    with pytest.raises(InputError, match=r"int64.*Fix"):
        quantize(torch.ones(2, dtype=torch.int64), 1.0, 8)
    with pytest.raises(HardwareError, match="LSB"):
        converters.transfer(torch.ones(2), 1.0, None, offset_lsb=1.0)
    for enob in (0.0, 9.0):
        with pytest.raises(HardwareError, match=r"adc\.enob"):
            converters.enob_sigma(8, enob)


def test_quantisation_error_is_uniform_over_one_lsb() -> None:
    x = 2.0 * uniforms((100_000,), 1, "full scale").double() - 1.0
    lsb = 1.0 / converters.levels(6)
    law = stats.uniform(-lsb / 2, lsb)
    error = quantize(x, 1.0, 6) - x
    # An error 5 % too large leaves the support, which the law rejects with certainty.
    assert law_holds(error, law)
    assert not law_holds(1.05 * error, law) and not law_holds(error / 1.05, law)


def test_enob_noise_law_and_total() -> None:
    sigma = converters.enob_sigma(8, 6.0)
    assert sigma == pytest.approx(2 * math.sqrt((4.0**-6 - 4.0**-8) / 12), rel=1e-12)
    assert converters.enob_sigma(8, 8.0) == 0.0
    n = 100_000
    x = 1.8 * uniforms((n,), 2, "x").double() - 0.9
    xi = normals((n,), 2, "xi").double()
    assert_power(lambda scale: scale * sigma * xi, stats.norm(0, sigma))
    error = converters.transfer(x, 1.0, 8, noise=sigma * xi) - x
    # FS^2 / 12 4^-enob; the 2**B - 1 symmetric codes make the LSB 1.6 % in variance larger than FS / 2**B.
    assert float(error.var()) == pytest.approx(4.0 / 12 * 4.0**-6, rel=0.02)


def test_static_errors_of_a_converter() -> None:
    y = torch.tensor([[0.1, -0.2], [0.3, 0.4]], dtype=torch.float64)
    gain, offset = torch.tensor([1.1, 0.9]), torch.tensor([0.01, -0.02])
    assert torch.allclose(converters.adc_static(y, gain, offset), y * gain + offset)
    assert converters.adc_static(y) is y
    lsb = 1.0 / 127
    got = converters.transfer(torch.zeros(3, dtype=torch.float64), 1.0, 8, offset_lsb=torch.tensor([0.4, 0.6, -2.0]))
    assert torch.allclose(got, torch.tensor([0.0, lsb, -2 * lsb], dtype=torch.float64))
    shifted = converters.transfer(y, 1.0, 8, gain=1.05)
    assert torch.equal(shifted, quantize(y * 1.05, 1.0, 8))


@pytest.mark.parametrize("peak", [0.5, 2.0, -1.5])
def test_inl_peaks_where_it_says_and_keeps_its_ends(peak: float) -> None:
    x = torch.linspace(-1.5, 1.5, 30_001, dtype=torch.float64)
    error_lsb = (converters.inl(x, 1.0, peak, 6) - x) * converters.levels(6)
    assert float(error_lsb.abs().max()) == pytest.approx(abs(peak), rel=1e-6)
    top = int(error_lsb.argmax())
    assert abs(float(x[top])) == pytest.approx(1 / math.sqrt(3), abs=1e-3)
    assert (float(x[top]) > 0) == (peak > 0)
    ends = converters.inl(torch.tensor([-1.0, 0.0, 1.0, 3.0]).double(), 1.0, peak, 6)
    assert torch.allclose(ends, torch.tensor([-1.0, 0.0, 1.0, 3.0]).double(), atol=1e-15)
    assert (converters.inl(x, 1.0, peak, 6).diff() > 0).all()
    assert torch.equal(converters.inl(x, 0.0, peak, 6), x)


def test_inl_and_transfer_change_the_output_and_pass_gradcheck() -> None:
    x = (0.7 * normals((20,), 3, "x")).double().requires_grad_()
    r = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: converters.inl(a, b, 1.3, 6), (x, r))
    plain = converters.transfer(x, 1.0, 6)
    noise = 0.1 * normals((20,), 3, "n")
    for got in (
        converters.transfer(x, 1.0, 6, gain=1.2),
        converters.transfer(x, 1.0, 6, offset_lsb=1.0),
        converters.transfer(x, 1.0, 6, inl_lsb=2.0),
        converters.transfer(x, 1.0, 6, noise=noise),
    ):
        assert not torch.equal(got, plain)


def test_round_ste_value_and_gradient() -> None:
    x = torch.tensor([-2.5, -0.4, 0.5, 1.5, 1e6 + 0.5, math.nan], requires_grad=True)
    y = ste.round_ste(x)
    assert torch.equal(y[:5], torch.round(x.detach())[:5]) and y[5].isnan()
    y.sum().backward()
    assert torch.equal(x.grad, torch.ones(6))  # type: ignore[arg-type]


def test_straight_through_takes_one_value_and_the_other_gradient() -> None:
    value, proxy = torch.tensor([0.1, 7.0], requires_grad=True), torch.tensor([1e6, -3.0], requires_grad=True)
    got = ste.straight_through(3.0 * value, 5.0 * proxy)
    assert torch.equal(got.detach(), 3.0 * value.detach())
    by_value, by_proxy = torch.autograd.grad(got.sum(), (value, proxy), allow_unused=True)
    assert by_value is None
    assert torch.equal(by_proxy, torch.full((2,), 5.0))


def test_clamp_gradient_goes_to_the_bounds() -> None:
    x = torch.tensor([-2.0, 0.1, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    hi = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    ste.clamp(x, -1.0, hi).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 0.0, 0.0] and hi.grad == 2.0
    assert torch.equal(ste.clamp(x, -1.0, 1.0), x.clamp(-1, 1))


def test_second_derivatives_exist() -> None:
    x = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(quantize(x, 1.0, 4).pow(2).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(second, torch.full_like(x, 2.0))


def test_compile_export_and_vmap_agree_with_eager() -> None:
    x, r = normals((4, 6), 5, "x"), torch.tensor([0.5, 1.0, 1.5, 2.0])
    eager = torch.stack([quantize(x[i], r[i], 5) for i in range(4)])
    assert torch.equal(torch.vmap(lambda a, b: quantize(a, b, 5))(x, r), eager)

    class Converter(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return converters.transfer(a, b, 5, gain=1.01, inl_lsb=0.5)

    module = Converter()
    expected = module(x, r[:, None])
    assert torch.equal(torch.export.export(module, (x, r[:, None])).module()(x, r[:, None]), expected)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    leaf, twin = x.clone().requires_grad_(), x.clone().requires_grad_()
    got = compiled(leaf, r[:, None])
    assert torch.equal(got, expected)
    got.sum().backward()
    module(twin, r[:, None]).sum().backward()
    assert leaf.grad is not None and twin.grad is not None
    assert torch.allclose(leaf.grad, twin.grad)
