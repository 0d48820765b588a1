"""Kernels against their torch meaning, bit for bit, with 1 and 2 threads; builds that cannot succeed fall back."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mho.crossbar import kernels
from mho.crossbar.kernels import build as building
from mho.crossbar.kernels import gradients, native, noise, reference, rounding
from mho.crossbar.noise import Counter, as_tensor, parts_as_tensor
from mho.errors import InputError

SIZES = (0, 1, 15, 16, 17, 1023, 1024, 1025, 4095, 4096, 4097, 16384, 100_000, 300_001)
INF = math.inf
needs_compiler = pytest.mark.skipif(not kernels.available(), reason=kernels.status())


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def values(n: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return reference.normals(n, 1000 + seed) * scale


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(torch.int32)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal bits; any NaN equals any NaN."""
    plain_a, plain_b = (t.nan_to_num(nan=12345.0, posinf=INF, neginf=-INF) for t in (a, b))
    return torch.equal(bits(plain_a), bits(plain_b))


def with_specials(x: torch.Tensor) -> torch.Tensor:
    specials = torch.tensor([math.nan, INF, -INF, -0.0, 0.0, 1e-45, 3.4e38, -3.4e38, 0.5, 1.5, -2.5])
    x[: len(specials)] = specials[: len(x)]
    return x


@pytest.mark.parametrize("n", SIZES)
def test_normal_is_the_reference(n: int, threads: int) -> None:
    seed = 2**64 - 1 - n
    assert torch.equal(kernels.normal_(torch.empty(n), seed), reference.normals(n, seed))


@pytest.mark.parametrize("n", SIZES)
def test_add_normal_is_the_reference(n: int, threads: int) -> None:
    base = with_specials(values(n))
    assert same(kernels.add_normal(base, 0.3, 5), reference.add_normal(base, 0.3, 5, -INF, INF))
    expected = reference.add_normal(base, 0.1, 6, -0.5, 0.75)
    assert kernels.add_normal(base, 0.1, 6, out=base, lo=-0.5, hi=0.75) is base
    assert same(base, expected)


@pytest.mark.parametrize("n", SIZES)
def test_statistics_are_the_reference(n: int, threads: int) -> None:
    x = values(n, scale=1e20)  # squares beyond float32
    assert kernels.absmax_sumsq(x) == pytest.approx(reference.absmax_sumsq(x), rel=1e-13)


def test_statistics_do_not_depend_on_threads() -> None:
    x, results = values(300_001), []
    before = torch.get_num_threads()
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append((kernels.absmax_sumsq(x), kernels.pass_inside_(x.clone(), x, 0.7)))
    torch.set_num_threads(before)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("where", [0, 17, 1023, 50_000, 99_999])
@pytest.mark.parametrize("bad", [math.nan, INF, -INF])
def test_statistics_keep_nan_and_infinity(where: int, bad: float, threads: int) -> None:
    x = values(100_000)
    x[where] = bad
    absmax, sumsq = kernels.absmax_sumsq(x)
    assert not math.isfinite(absmax) and not math.isfinite(sumsq)
    assert math.isnan(absmax) == math.isnan(bad)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    ("r", "levels"), [(2.0, 127), (0.123456789, 7.5), (3.3, 0), (1e30, 2047), (1e-30, 1), (2.0, 1)]
)
def test_quantize_is_the_torch_expression(n: int, r: float, levels: float, threads: int) -> None:
    x = with_specials(values(n, scale=1.0 if r > 1e20 else 1.5 * r))
    out = torch.empty(n)
    stats = kernels.quantize(x, r, levels, out)
    if levels:
        assert same(out, torch.round((x * (levels / r)).clamp(-levels, levels)) * (r / levels))
    else:
        assert same(out, x.clamp(-r, r))
    assert stats == pytest.approx(reference.absmax_sumsq(x), rel=1e-13, nan_ok=True)
    kernels.quantize(x, r, levels, x)
    assert same(x, out)


def test_halves_go_to_even() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 100.0, math.nan])
    out = torch.empty_like(x)
    kernels.quantize(x, 4.0, 4, out)
    assert torch.equal(out[:6], torch.tensor([0.0, 2.0, 2.0, -0.0, -2.0, 4.0]))
    assert math.copysign(1, out[3].item()) == -1 and math.isnan(out[6].item())


@pytest.mark.parametrize(
    "shape", [(0, 3, 4), (1, 1, 1), (5, 3, 1), (7, 10, 13), (3, 100, 1), (3, 5, 1100), (40, 33, 49)]
)
@pytest.mark.parametrize("mapped", ["", "positions", "positions and columns"])
@pytest.mark.parametrize(("sigma", "r", "levels"), [(0.2, 1.0, 31), (0.0, 1.0, 31), (0.1, INF, 31), (0.2, 0.5, 0)])
def test_adc_is_the_reference(
    shape: tuple[int, int, int], mapped: str, sigma: float, r: float, levels: float, threads: int
) -> None:
    a, o, p = shape
    y = with_specials(values(a * o * p))
    sigma_map = values(a * p, seed=1, scale=0.5).abs().reshape(a, p) if mapped else None
    columns = values(o, seed=2) if "columns" in mapped else None
    rails = torch.full((a * o * p,), 7, dtype=torch.int8)
    v, readout = reference.adc(y.view(shape), sigma, 9, r, sigma_map, columns)
    expected, inside = reference.quantize(v, r, levels).view(-1), v.view(-1).abs() <= r
    got = kernels.adc_(y, sigma, 9, r, levels, shape=shape, sigma_map=sigma_map, columns=columns, rails=rails)
    assert same(y, expected)
    assert torch.equal(rails == 0, inside)
    assert torch.equal(rails, reference.rails(v.view(-1), r))
    assert tuple(got) == pytest.approx(tuple(readout), rel=1e-13, nan_ok=True)
    assert got.clipped == int((~inside).sum())


@pytest.mark.parametrize("shape", [(0, 3, 4), (5, 3, 1), (7, 10, 13), (3, 5, 1100), (40, 33, 49)])
@pytest.mark.parametrize("mapped", ["", "positions", "positions and columns"])
@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_noise_slope_is_the_reference(shape: tuple[int, int, int], mapped: str, sigma: float, threads: int) -> None:
    a, o, p = shape
    g = values(a * o * p)
    sigma_map = values(a * p, seed=1).clamp_min(0).reshape(a, p) if mapped else None  # half of it silent
    columns = values(o, seed=2) if "columns" in mapped else None
    expected, total = reference.noise_slope(g.view(shape), sigma, 9, sigma_map, columns)
    slope, found = kernels.noise_slope(g, sigma, 9, shape, sigma_map, columns)
    assert torch.equal(slope, expected.reshape(-1))
    assert found == pytest.approx(total, rel=1e-9, abs=1e-9)


def test_noise_slope_is_the_derivative_of_noise() -> None:
    shape, step = (4, 3, 5), 1e-2
    y, g, rows = torch.zeros(60), values(60, seed=3), values(20, seed=4).abs()
    moved = []
    for factor in (1 - step, 1 + step):
        v = y.clone()
        kernels.adc_(v, 0.5 * factor, 7, INF, 0, shape=shape, sigma_map=rows * factor)
        moved.append(float((v * g).double().sum()))
    s = (0.25 + rows.view(4, 1, 5).square()).sqrt().expand(shape).reshape(-1)
    slope, _ = kernels.noise_slope(g, 0.5, 7, shape, rows)
    assert float((slope * s.square()).double().sum()) == pytest.approx((moved[1] - moved[0]) / (2 * step), rel=1e-4)


@pytest.mark.parametrize("n", SIZES)
def test_adc_without_rails_gives_the_same(n: int, threads: int) -> None:
    y, other = values(n), values(n)
    rails = torch.empty(n, dtype=torch.int8)
    assert kernels.adc_(y, 0.2, 3, 1.0, 15) == kernels.adc_(other, 0.2, 3, 1.0, 15, rails=rails)
    assert torch.equal(y, other)


def test_adc_map_of_one_dimension_is_rows() -> None:
    rows = values(50).abs()
    first, second = torch.zeros(50, 40), torch.zeros(50, 40)
    kernels.adc_(first, 0.0, 1, INF, 0, sigma_map=rows)
    kernels.adc_(second, 0.0, 1, INF, 0, sigma_map=rows[:, None])
    third = torch.zeros(50, 40)
    kernels.adc_(third, 0.0, 1, INF, 0, sigma_map=rows.view(1, 5, 10), shape=(50, 40, 1))
    assert torch.equal(first, second) and torch.equal(first, third)
    assert torch.equal(first, rows[:, None] * reference.normals(2000, 1).view(50, 40))


@pytest.mark.parametrize("n", SIZES)
def test_unclipped_is_the_reference(n: int, threads: int) -> None:
    g, rails = values(n), torch.arange(n).remainder(7).sub(3).clamp(-1, 2).to(torch.int8)  # all four rails
    expected, slope = reference.unclipped(g, rails)
    out, found = kernels.unclipped(g, rails)
    assert same(out, expected)
    assert found == pytest.approx(slope, rel=1e-12, abs=1e-12)
    again, none = kernels.unclipped(g, rails, g, slope=False)
    assert again is g and same(g, expected) and none == 0.0


def test_a_nan_of_the_gradient_passes_only_where_nothing_clipped() -> None:
    g, rails = with_specials(values(40)), torch.ones(40, dtype=torch.int8)
    assert same(kernels.unclipped(g, rails)[0], torch.zeros(40))
    assert math.isnan(kernels.unclipped(g, rails)[1])
    nowhere, slope = kernels.unclipped(g, rails.fill_(2))
    assert same(nowhere, torch.zeros(40)) and slope == 0.0
    assert same(kernels.unclipped(g, rails.zero_())[0], g)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("r", [0.0, 0.7, INF])
def test_pass_inside_is_the_reference(n: int, r: float, threads: int) -> None:
    g, x = values(n), with_specials(values(n, seed=3))
    expected, slope = reference.pass_inside(g, x, r)
    assert kernels.pass_inside_(g, x, r) == pytest.approx(slope, rel=1e-12, abs=1e-12)
    assert same(g, expected)


def test_any_dense_layout_goes_in_memory_order() -> None:
    base = torch.zeros(3, 5, 4, 6).to(memory_format=torch.channels_last)
    out = kernels.add_normal(base, 1.0, 4)
    assert out.stride() == base.stride()
    assert torch.equal(out.permute(0, 2, 3, 1).reshape(-1), reference.normals(base.numel(), 4))
    assert torch.equal(kernels.normal_(torch.empty(8, 9).t(), 4).t().reshape(-1), reference.normals(72, 4))
    view = torch.zeros(100)[10:60]
    assert torch.equal(kernels.normal_(view, 8), reference.normals(50, 8))


def test_layout_helpers() -> None:
    x = values(60).view(3, 4, 5)
    other = torch.empty(5, 4, 3).permute(2, 1, 0)
    assert kernels.is_dense(other) and not kernels.is_dense(x[:, ::2])
    assert kernels.dense(other) is other and kernels.dense(x[:, ::2]).is_contiguous()
    copy = kernels.like_layout(x, other)
    assert copy.stride() == other.stride() and torch.equal(copy, x)
    assert kernels.like_layout(x, x) is x
    rails = torch.empty_like(other, dtype=torch.int8).copy_(-1 * (x < 0))
    got, _ = kernels.unclipped(x, rails)
    assert got.stride() == other.stride() and torch.equal(got, x.clamp(min=0))
    assert torch.equal(kernels.unclipped(x, rails, torch.empty_like(x))[0], x.clamp(min=0))


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(4, 4)[:, ::2],
        torch.zeros(1).expand(5),
        torch.zeros(4, dtype=torch.float64),
        torch.zeros(4, device="meta"),
        torch.zeros(4).to_sparse(),
    ],
    ids=["holes", "overlap", "double", "meta", "sparse"],
)
def test_other_tensors_are_refused(x: torch.Tensor) -> None:
    ok = torch.zeros(4)
    for call in (
        lambda: kernels.normal_(x, 1),
        lambda: kernels.add_normal(x, 0.1, 1),
        lambda: kernels.absmax_sumsq(x),
        lambda: kernels.quantize(x, 1.0, 3, ok),
        lambda: kernels.adc_(x, 0.1, 1, 1.0, 3),
        lambda: kernels.unclipped(x, ok.to(torch.int8), ok),
        lambda: kernels.pass_inside_(ok, x, 1.0),
    ):
        with pytest.raises(InputError, match=r"mho\.crossbar\.kernels"):
            call()


def test_impossible_numbers_are_refused() -> None:
    x, out = torch.zeros(4), torch.zeros(4)
    for call in (
        lambda: kernels.normal_(x, -1),
        lambda: kernels.normal_(x, 2**64),
        lambda: kernels.add_normal(x, -0.1, 1),
        lambda: kernels.add_normal(x, math.nan, 1),
        lambda: kernels.add_normal(x, 0.1, 1, lo=1.0, hi=0.0),
        lambda: kernels.quantize(x, 0.0, 3, out),
        lambda: kernels.quantize(x, -1.0, 3, out),
        lambda: kernels.quantize(x, math.nan, 3, out),
        lambda: kernels.quantize(x, 1e-60, 3, out),
        lambda: kernels.quantize(x, 1e60, 0, out),
        lambda: kernels.quantize(x, 1e-38, 1e6, out),
        lambda: kernels.quantize(x, INF, 3, out),
        lambda: kernels.quantize(x, 1.0, -1, out),
        lambda: kernels.adc_(x, 0.1, 1, 1.0, 3, sigma_map=torch.ones(3, 1)),
        lambda: kernels.adc_(x, 0.1, 1, 1.0, 3, columns=torch.ones(2)),
        lambda: kernels.noise_slope(x, 0.1, 1, (5, 1, 1)),
        lambda: kernels.noise_slope(x, 0.1, 1, (2, 1, 2), torch.ones(3)),
        lambda: kernels.noise_slope(x, 0.1, 1, (2, 1, 2), None, torch.ones(1)),
        lambda: kernels.adc_(x, 0.1, 1, 1.0, 3, sigma_map=torch.ones(2, 1), columns=torch.ones(3)),
        lambda: kernels.adc_(x, 0.1, 1, 1.0, 3, sigma_map=torch.ones(2, 1, 1)),
        lambda: kernels.adc_(x, 0.1, 1, 1.0, 3, sigma_map=torch.ones(4), shape=(2, 2, 1)),
        lambda: kernels.adc_(x, 0.1, 1, 1.0, 3, sigma_map=torch.ones(4), shape=(4, 2, 1)),
        lambda: kernels.adc_(x, 0.1, 1, 1.0, 3, rails=torch.zeros(4)),
        lambda: kernels.adc_(torch.zeros(3, 2).t(), 0.1, 1, 1.0, 3, rails=torch.zeros(2, 3, dtype=torch.int8)),
        lambda: kernels.like_layout(torch.zeros(3, 2), torch.zeros(2, 3)),
        lambda: kernels.pass_inside_(x, out, -1.0),
        lambda: kernels.quantize(torch.zeros(2, 2), 1.0, 3, out),
        lambda: kernels.quantize(torch.zeros(2, 2).t(), 1.0, 3, torch.zeros(3, 2)),
        lambda: kernels.quantize(torch.zeros(3, 2).t(), 1.0, 3, torch.zeros(2, 3)),
    ):
        with pytest.raises(InputError, match=r"mho\.crossbar\.kernels"):
            call()


def test_autograd_sees_the_writes() -> None:
    x = torch.ones(4, requires_grad=True)
    y = x * 2
    z = (y * y).sum()
    kernels.adc_(y.detach(), 0.1, 1, 1.0, 3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()
    with torch.inference_mode():
        kernels.normal_(torch.empty(4), 1)


# ---- the build and the fallback --------------------------------------------------------------------------------------


def test_no_compiler_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(building.shutil, "which", lambda name: None)
    built = building.build(tmp_path)
    assert built.path is None and "no C compiler" in built.reason
    assert native.load(built.path, built.reason).library is None


@needs_compiler
def test_compile_error_is_a_reason(tmp_path: Path) -> None:
    for name in building.SOURCES:
        (tmp_path / name).write_text("this is not C\n")
    built = building.build(tmp_path / "cache", tmp_path)
    assert built.path is None and "cannot compile" in built.reason and "plain" in built.reason
    assert not list((tmp_path / "cache").iterdir())


def test_unwritable_cache_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    built = building.build(tmp_path / "file" / "cache")
    assert built.path is None and built.reason


@needs_compiler
def test_broken_library_is_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "broken.so"
    path.write_bytes(b"not a library")
    loaded = native.load(path, "")
    assert loaded.library is None and "delete the file" in loaded.reason


@needs_compiler
@pytest.mark.parametrize("attempt", [(), ("-mavx2",), ("-march=native",)])
def test_every_instruction_set_gives_the_same_bits(
    attempt: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "ATTEMPTS", (attempt,))
    built = building.build(tmp_path)
    if built.path is None or (attempt == ("-mavx2",) and " avx2 " not in building.processor()):
        pytest.skip(f"this machine has no {attempt}: {built.reason}")
    loaded = native.load(built.path, built.reason)
    x, z = values(5000), torch.empty(5000)
    assert loaded.library is not None
    loaded.library.mho_normal(z.data_ptr(), 5000, 77, None, 1)
    assert torch.equal(z, reference.normals(5000, 77))
    loaded.library.mho_quantize(x.data_ptr(), z.data_ptr(), 5000, 1.0, 7.0, 1 / 7, 7.0, (rounding._Stats)(), None, 1)
    assert same(z, reference.quantize(x, 1.0, 7))


@needs_compiler
def test_second_build_only_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = building.build(tmp_path)
    monkeypatch.setattr(building, "compile_into", lambda *a: pytest.fail("compiled again"))
    assert building.build(tmp_path) == first


@needs_compiler
def test_many_builds_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        built = list(pool.map(lambda _: building.build(tmp_path), range(4)))
    assert len(set(built)) == 1 and native.load(built[0].path, "").library is not None
    assert [path.name for path in tmp_path.iterdir()] == [built[0].path.name]  # type: ignore[union-attr]


def test_without_the_library_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def results() -> list[object]:
        x, rails, out = values(3000), torch.empty(3000, dtype=torch.int8), torch.empty(3000)
        found: list[object] = [kernels.normal_(torch.empty(60, 50).t(), 3), kernels.add_normal(x, 0.1, 4, hi=1.0)]
        found += [kernels.absmax_sumsq(x), kernels.quantize(x, 1.0, 7, out), out]
        found += [
            tuple(kernels.adc_(x, 0.1, 5, 1.0, 7, sigma_map=values(50).view(10, 5), rails=rails)),
            x,
            rails.clone(),
        ]
        found += [*kernels.unclipped(x, rails, torch.empty(3000)), kernels.pass_inside_(out, x, 0.5), out]
        return found

    compiled = results()
    for module in (noise, rounding, gradients):
        monkeypatch.setattr(module, "native", lambda: native.Native(None, None, "no compiler"))
    for one, other in zip(compiled, results(), strict=True):
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
            assert torch.equal(one, other) and one.stride() == other.stride()
        else:
            assert one == pytest.approx(other, rel=1e-12)


def test_a_counter_means_the_same_normals_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    like = torch.empty(3, 5, 7).permute(2, 0, 1)
    found = as_tensor(Counter(5, 2.0), (4, 600)), parts_as_tensor(Counter(5), 2, like)
    monkeypatch.setattr(noise, "native", lambda: native.Native(None, None, "no compiler"))
    monkeypatch.setattr(kernels, "available", lambda: False)
    assert torch.equal(found[0], as_tensor(Counter(5, 2.0), (4, 600)))
    assert torch.equal(found[1], parts_as_tensor(Counter(5), 2, like))
