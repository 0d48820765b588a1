"""The parts of the fit against oracles: the law of codes, sigma against conductance, steps, drift, designs."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor

from mho.errors import TwinError
from mho.lab.protocol import Capabilities
from mho.lab.twin import Plan, design, drift
from mho.lab.twin import bits as steps
from mho.lab.twin.cells import ReadBack
from mho.lab.twin.columns import fit_columns
from mho.lab.twin.estimates import realised, root, spread
from mho.lab.twin.likelihood import Codes, Parameters, expected_code, log_likelihood, scores, thresholds
from mho.lab.twin.measurements import AgedRead, Writing
from mho.lab.twin.sigma import Groups, fit_sigma, group
from mho.physics import converters
from mho.rng import normals, uniforms

CAN = Capabilities(
    vendor="v", model="m", serial="s", tiles=1, rows=40, cols=6, g_max_uS=25.0, signed=True, v_max_V=0.2,
    input_bits=6, i_min_uA=0.01, i_max_uA=200.0,
)  # fmt: skip
NAMES = ("a", "b")


def some_codes(levels: int = 31, n: int = 400, cols: int = 3, seed: int = 0) -> tuple[Codes, Parameters]:
    """Codes drawn from the law of known parameters."""
    gain = torch.linspace(0.8, 1.2, cols, dtype=torch.float64)
    offset = torch.linspace(-0.05, 0.06, cols, dtype=torch.float64)
    p = Parameters(gain, offset, torch.tensor([1.3, 0.02, 0.01, 4e-4], dtype=torch.float64))
    mean = (2 * uniforms((n, cols), seed, "mean") - 1).double() * 1.2
    s0 = uniforms((n, cols), seed, "s0").double() * 2
    level = uniforms((n, cols), seed, "level").double()
    s1, s2 = level * s0, level**2 * s0
    known = torch.full_like(mean, 1e-5)
    a, b = 0.02, 0.01
    var = a * a * s0 + 2 * a * b * s1 + b * b * s2 + known + 4e-4
    signal = gain * (mean + var.sqrt() * normals((n, cols), seed, "noise").double()) + offset
    y = converters.quantize(converters.inl(signal, 1.0, 1.3, 6), 1.0, 6)
    code = (y * levels).round().long()
    return Codes(mean, s0, s1, s2, known, code, torch.ones_like(mean), levels), p


@pytest.mark.parametrize("inl_lsb", [0.0, 1.4, -2.0])
def test_thresholds_are_where_the_converter_changes_its_code(inl_lsb: float) -> None:
    edges, slope = thresholds(31, inl_lsb)
    for shift, step in ((-1e-6, 0), (1e-6, 1)):
        code = converters.quantize(converters.inl(edges + shift, 1.0, inl_lsb, 6), 1.0, 6) * 31
        assert torch.equal(code.round(), torch.arange(-31, 31, dtype=torch.float64) + step)
    numeric = (thresholds(31, inl_lsb + 1e-5)[0] - thresholds(31, inl_lsb - 1e-5)[0]) / 2e-5
    assert slope == pytest.approx(numeric, abs=1e-8)


def test_a_bow_that_folds_back_is_refused() -> None:
    with pytest.raises(TwinError, match=r"inl_lsb = 6: a converter of 31 levels is not monotone"):
        thresholds(31, 6.0)
    y = torch.linspace(-1, 1, 41, dtype=torch.float64)
    assert converters.inl(converters.inl_inverse(y, 2.0, 31), 1.0, 2.0, 6) == pytest.approx(y, abs=1e-9)


def test_probabilities_of_all_codes_add_to_one_and_give_the_mean() -> None:
    data, p = some_codes(n=5)
    every = torch.arange(-31, 32)
    prob = torch.stack([log_likelihood(replace(data, code=torch.full_like(data.code, int(k))), p).exp() for k in every])
    assert prob.sum(0) == pytest.approx(torch.ones_like(data.mean), abs=1e-9)
    mean = (prob * every[:, None, None]).sum(0) / 31
    assert expected_code(data, p) == pytest.approx(mean, abs=1e-9)


def test_slopes_are_those_of_the_likelihood() -> None:
    data, p = some_codes(n=60)
    found = scores(data, p)
    h = 1e-6
    for k in range(4):
        up, down = p.shared.clone(), p.shared.clone()
        size = h if k != 3 else 1e-8
        up[k] += size
        down[k] -= size
        numeric = (log_likelihood(data, p._replace(shared=up)) - log_likelihood(data, p._replace(shared=down))) / (
            2 * size
        )
        assert found.shared[..., k] == pytest.approx(numeric, rel=1e-4, abs=2e-3)
    for k, name in enumerate(("gain", "offset")):
        value = getattr(p, name)
        high, low = (p._replace(**{name: value + sign * h}) for sign in (1, -1))
        numeric = (log_likelihood(data, high) - log_likelihood(data, low)) / (2 * h)
        assert found.own[..., k] == pytest.approx(numeric, rel=1e-4, abs=1e-3)


def test_far_tails_stay_finite() -> None:
    data, p = some_codes(n=4)
    far = replace(data, mean=torch.full_like(data.mean, 40.0), code=torch.full_like(data.code, -31))
    found = scores(far, p)
    assert torch.isfinite(found.value).all()
    assert torch.isfinite(found.own).all()
    assert torch.isfinite(found.shared).all()


def test_estimates_deviate_as_their_covariance_says() -> None:
    def chi2(scale: float) -> float:
        total = 0.0
        for seed in range(12):
            data, p = some_codes(n=1500, seed=seed)
            fit = fit_columns([data], begin=p)
            shared = fit.parameters.shared - p.shared
            total += float(shared @ torch.linalg.solve(fit.shared * scale**2, shared))
            own = torch.stack([fit.parameters.gain - p.gain, fit.parameters.offset - p.offset], 1)
            total += float(torch.einsum("ci,cij,cj->", own, torch.linalg.inv(fit.own * scale**2), own))
        return total

    low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], 12 * (4 + 6))
    assert low < chi2(1.0) < high
    assert not low < chi2(0.7) < high
    assert not low < chi2(1.45) < high


def test_what_did_not_come_has_no_say() -> None:
    data, p = some_codes()
    spoilt = data.code.clone()
    spoilt[::7] = 31
    weight = data.weight.clone()
    weight[::7] = 0
    with_weight = fit_columns([replace(data, code=spoilt, weight=weight)], begin=p)
    kept = torch.arange(len(data.mean)) % 7 > 0
    cut = {name: getattr(data, name)[kept] for name in ("mean", "s0", "s1", "s2", "known", "code", "weight")}
    without = fit_columns([Codes(**cut, levels=31)], begin=p)
    assert with_weight.parameters.gain == pytest.approx(without.parameters.gain, abs=1e-6)


def groups(a: float, b: float, n: int = 20_000, seed: int = 0) -> Groups:
    x = torch.arange(n) % 5 / 4.0
    r = (a + b * x) * normals((n,), seed, "sigma") + 0.01 * normals((n,), seed, "known")
    return group(x, r.square(), torch.ones(n), torch.full((n,), 1e-4))


def test_sigma_against_conductance() -> None:
    z = []
    for seed in range(60):
        found = fit_sigma(groups(0.05, 0.04, seed=seed), NAMES, "")
        z += [(e.value - t) / ((e.high - e.low) / 3.92) for e, t in ((found.const, 0.05), (found.rel, 0.04))]
    inside = sum(abs(v) < 1.96 for v in z)
    assert inside >= stats.binom.ppf(1e-4, len(z), 0.95)
    assert sum(abs(v) < 1.96 / 2 for v in z) < stats.binom.ppf(1e-4, len(z), 0.95)  # intervals half as wide fail


def test_sigma_leaves_out_what_is_not_there() -> None:
    flat = fit_sigma(groups(0.05, 0.0, seed=1), NAMES, "")
    assert (flat.rel.value, flat.rel.low) == (0.0, 0.0)
    assert flat.const.value == pytest.approx(0.05, rel=0.02)
    steep = fit_sigma(groups(0.0, 0.05), NAMES, "")
    assert steep.const.value < 2e-3
    assert steep.rel.value == pytest.approx(0.05, rel=0.03)
    nothing = fit_sigma(groups(0.0, 0.0), NAMES, "")
    assert nothing.const.value < 2e-3
    assert nothing.const.holds(0.0)
    exact = fit_sigma(group(torch.rand(9), torch.zeros(9), torch.ones(9), torch.zeros(9)), NAMES, "")
    assert (exact.const.value, exact.const.high) == (0.0, 0.0)


def test_a_line_that_does_not_fit_is_told() -> None:
    assert fit_sigma(groups(0.05, 0.04), NAMES, "").p_value > 1e-4
    bent = groups(0.05, 0.04)
    bent.squares[2] *= 1.5
    assert fit_sigma(bent, NAMES, "").p_value < 1e-6


@pytest.mark.parametrize("bits", range(2, 13))
def test_output_bits_from_the_comb(bits: int) -> None:
    y = converters.quantize(2 * uniforms((5000,), "comb", bits) - 1, 1.0, bits)
    scaled = (y * 37.0).float() / 37.0  # uA and back, in float32
    few = len(torch.unique(y)) < steps.FEWEST_CODES
    assert steps.output_bits([scaled]) == (None if few else bits)


def test_no_comb_no_bits() -> None:
    assert steps.output_bits([2 * uniforms((5000,), "smooth") - 1]) is None
    assert steps.output_bits([torch.tensor([0.0, 1.0, -1.0, torch.nan])]) is None


@pytest.mark.parametrize("bits", [3, 5, 6, 8, None])
def test_input_bits_from_the_staircase(bits: int | None) -> None:
    x = (2 * uniforms((300, 1), "stairs") - 1).double()
    slope = torch.linspace(0.55, 0.7, 24, dtype=torch.float64)
    one = torch.ones(24, dtype=torch.float64)
    p = Parameters(
        one, 0.03 * normals((24,), "off").double(), torch.tensor([0.0, 0.004, 0.0, 0.0], dtype=torch.float64)
    )
    xq = converters.quantize(x, 1.0, bits)
    y = xq * (slope + 0.004 * normals((300, 24), "stair noise").double()) + p.offset
    code = (converters.quantize(y, 1.0, 6) * 31).round().long()
    sweep = steps.Sweep(x, slope, one, one, one, code, torch.ones_like(y), 31)
    found, nats = steps.input_bits(sweep, p)
    if bits is None:
        assert found is None or found > 9
    else:
        assert found == bits
        assert nats > steps.CLEAR_NATS


def aged(nu: float, d2d: float, t0_s: float, ages_s: tuple[float, ...], seed: int) -> drift.Drift:
    shape = (CAN.rows, 50)
    can = replace(CAN, cols=50)
    target = 12.0 * normals(shape, seed, "target").clamp(-2, 2)
    g = target + 2.0 * normals(shape, seed, "written")
    own = nu + d2d * normals(shape, seed, "nu")

    def read(t_s: float, reads: int, label: str) -> Tensor:
        return g * ((t_s + t0_s) / t0_s) ** -own + 0.5 / math.sqrt(reads) * normals(shape, seed, label, repr(t_s))

    stuck = torch.zeros(shape, dtype=torch.bool)
    writing = Writing(target, stuck, read(0.0, 24, "fresh"), torch.full(shape, 0.25), 24)
    ages = tuple(AgedRead(0, t, read(t, 4, "late"), 4) for t in ages_s)
    found = drift.drift(can, writing, ages, ReadBack(0.02, 0.0))
    assert found is not None
    return found


AGES = (10.0, 100.0, 1e3, 1e4)


def test_drift_in_its_intervals() -> None:
    held = torch.zeros(3)
    wrong = torch.zeros(3)
    for seed in range(20):
        d = aged(0.04, 0.01, 5.0, AGES, seed)
        held += torch.tensor([d.nu.holds(0.04), d.d2d.holds(0.01), d.t0.holds(5.0)])
        wrong += torch.tensor([d.nu.holds(0.044), d.d2d.holds(0.0115), d.t0.holds(10.0)])
    assert (held >= 16).all()  # 15 or fewer of 20 at 95 %: 3e-4
    assert (wrong <= 4).all()


def test_no_drift_and_one_age() -> None:
    none = aged(0.0, 0.0, 1.0, AGES, 3)
    assert none.nu.holds(0.0)
    assert none.t0.value == pytest.approx(drift.T0_s)
    one = aged(0.04, 0.0, 1.0, (1e4,), 1)
    assert one.nu.value == pytest.approx(0.04, rel=0.05)
    assert one.t0.value == pytest.approx(drift.T0_s)


def test_spreads_have_the_textbook_intervals() -> None:
    values = (2.0 * normals((50,), "spread")).tolist()
    s = float(torch.tensor(values).std())
    e = spread("s", values, 0.0, "1", "")
    assert e.low == pytest.approx(s * math.sqrt(49 / stats.chi2.ppf(0.975, 49)))
    assert e.high == pytest.approx(s * math.sqrt(49 / stats.chi2.ppf(0.025, 49)))
    less = spread("s", values, 1.0, "1", "")
    assert less.value == pytest.approx(math.sqrt(s * s - 1))
    own = realised("s", values, [0.01] * 50, "1", "")
    assert own.low < math.sqrt(s * s - 0.01) < own.high
    assert own.high - own.low < 0.1 * (e.high - e.low)
    assert root("s", -1.0, 0.1, "1", "").high == 0.0


def coverage(measured: Tensor, error: Tensor, told: Tensor, true: Tensor) -> float:
    """Share of the chips [chips, columns] whose realised spread lies in its interval."""
    held = 0
    for x, t in zip((measured + error).tolist(), true.tolist(), strict=True):
        held += realised("s", x, told.tolist(), "1", "").holds(t)
    return held / len(measured)


def test_the_realised_spread_of_parts_that_are_measured_unequally_is_held_as_often_as_it_says() -> None:
    """Columns that lie far out have the larger error: with its mean for all, the interval would be too narrow."""
    x = normals((64,), "parts").double().expand(4000, 64)
    u = (0.01 * (0.2 + x[0].abs())) ** 2
    error = u.sqrt() * normals((4000, 64), "errors of measurement").double()
    true = x.std(1)
    share = coverage(x, error, u, true)
    assert stats.binomtest(round(4000 * share), 4000, 0.95).pvalue > 1e-5
    mutant = coverage(x, error, u.mean().expand(64), true)
    assert stats.binomtest(round(4000 * mutant), 4000, 0.95).pvalue < 1e-5


@pytest.mark.parametrize("measured", [0.0, 0.05])
def test_the_law_of_a_spread_is_held_as_often_as_it_says(measured: float) -> None:
    """n - 1 degrees of freedom, and the error of measurement in the variance of each part."""
    x = (2.0 * normals((4000, 32), "law")).double()
    seen = x + math.sqrt(measured) * normals((4000, 32), "law measured").double()
    held = sum(spread("s", row, measured, "1", "").holds(2.0) for row in seen.tolist())
    assert stats.binomtest(held, 4000, 0.95).pvalue > 1e-5
    off = sum(spread("s", row, measured, "1", "").holds(2.0 * 1.1) for row in seen.tolist())
    assert stats.binomtest(off, 4000, 0.95).pvalue < 1e-5


def test_vectors_are_levels_of_the_converter_and_fill_the_range() -> None:
    plan = Plan(name="design")
    pattern = design.test_pattern(CAN, plan, 0)
    broad, narrow = design.drives(CAN, pattern, plan, 0)
    for drive in (broad, narrow):
        assert (converters.quantize(drive.inputs, 1.0, 6) - drive.inputs).abs().max() < 1e-6
        share = (drive.inputs @ pattern.row) / drive.full_scale
        assert share.abs().max() > 1.0
        assert 0.3 < share.std() < 0.9
    levels = [int((pattern.level == k).sum()) for k in range(5)]
    assert max(levels) - min(levels) <= 1
    driven = (narrow.inputs != 0).float()
    assert all(len(torch.unique(pattern.level[row > 0])) <= 1 for row in driven)
    assert not torch.equal(design.test_pattern(CAN, plan, 1).row, pattern.row)


def test_cells_without_sign_stay_off_their_ends() -> None:
    can = replace(CAN, signed=False, g_min_uS=5.0)
    row = design.test_pattern(can, Plan(name="x"), 0).row
    assert row.min() == pytest.approx(0.2 + 0.2 * 0.8)
    assert row.max() == 1.0
    network = design.network_pattern(can, Plan(name="x"))
    assert network.min() >= 0.2
    assert network.max() <= 1.0
