"""Hidden virtual chips: what is found of them, and that the checks have power."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from scipy import stats

from mho.errors import TwinError
from mho.hardware import Adc, Dac, Faults, GenericCell, Hardware, Mapping, Wires
from mho.lab.protocol import Capabilities, Conductances, Health, ProgramReport, Readout
from mho.lab.twin import Measurements, Plan, Twin, column_response, fit, fit_twin, measure, merged
from mho.lab.virtual import VirtualDevice
from mho.physics import converters
from mho.rng import normals

ROWS, COLS, CHIPS = 64, 32, 4
SIGNED = Mapping(scheme="signed")
HIDDEN = Hardware(
    name="hidden",
    cell=GenericCell(
        programming_noise=0.08, read_noise=0.02, read_noise_rel=0.01, drift_nu=0.03, drift_nu_d2d=0.008, t0_s=2.0
    ),
    mapping=SIGNED,
    dac=Dac(bits=6),
    adc=Adc(bits=6, gain_d2d=0.15, offset_d2d_lsb=1.5, inl_lsb=1.4),
    output_noise=0.01,
)
TRUTH = {
    "adc.inl_lsb": 1.4,
    "cell.programming_noise": 0.08,
    "cell.programming_noise_rel": 0.0,
    "cell.read_noise": 0.02,
    "cell.read_noise_rel": 0.01,
    "output_noise": 0.01,
    "cell.drift_nu": 0.03,
    "cell.drift_nu_d2d": 0.008,
    "cell.t0_s": 2.0,
    "wires.wire_ohm": 0.0,
    "adc.bits": 6.0,
    "dac.bits": 6.0,
}
MUTANTS = {
    "adc.inl_lsb": 1.2,
    "cell.programming_noise": 0.088,
    "cell.read_noise": 0.024,
    "cell.read_noise_rel": 0.016,
    "output_noise": 0.016,
    "cell.drift_nu": 0.033,
    "cell.drift_nu_d2d": 0.010,
    "cell.t0_s": 4.0,
    "wires.wire_ohm": 4.0,
    "adc.bits": 7.0,
    "dac.bits": 5.0,
}
"""Values that a chip of HIDDEN does not have, and whose interval must say so."""


def device(hw: Hardware = HIDDEN, seed: int = 0) -> VirtualDevice:
    return VirtualDevice(hw, seed, tiles=2, rows=ROWS, cols=COLS)


@cache
def measured(seed: int) -> Measurements:
    return measure(device(seed=seed), Plan(name=f"test {seed}"))


@cache
def twin(seed: int) -> Twin:
    return fit(measured(seed))


def fabricated(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Gains and offsets (shares of the full scale) of a chip of HIDDEN."""
    gain = 1 + 0.15 * normals((1, COLS), seed, "tile", 0, "adc_gain")[0]
    return gain, 1.5 / 31 * normals((1, COLS), seed, "tile", 0, "adc_offset")[0]


def holding(truth: dict[str, float]) -> dict[str, int]:
    """On how many chips the interval holds the value."""
    return {name: sum(twin(s).estimate(name).holds(value) for s in range(CHIPS)) for name, value in truth.items()}


def test_intervals_hold_the_hidden_values_and_exclude_others() -> None:
    found = holding(TRUTH)
    # 48 intervals of 95 %: 40 or fewer with probability 4e-3 if independent; two of a chip's may share their error.
    assert sum(found.values()) >= 41, found
    assert min(found.values()) >= CHIPS - 2, found
    wrong = holding(MUTANTS)
    assert max(wrong.values()) == 0, wrong


def test_values_are_near_and_intervals_narrow() -> None:
    for name in ("adc.inl_lsb", "cell.programming_noise", "cell.read_noise", "cell.drift_nu"):
        e = twin(0).estimate(name)
        assert e.value == pytest.approx(TRUTH[name], rel=0.08)
        assert (e.high - e.low) / e.value < 0.2


def test_columns_deviate_by_their_standard_errors() -> None:
    def chi2(scale: float) -> tuple[float, float]:
        total = torch.zeros(2, dtype=torch.float64)
        for seed in range(CHIPS):
            own, error = twin(seed).columns[0], twin(seed).column_errors[0]
            gain, offset = fabricated(seed)
            z = torch.stack([(own.gain - gain) / error.gain, (own.offset - offset) / error.offset]) / scale
            total += z.double().square().sum(1)
        return float(total[0]), float(total[1])

    low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], CHIPS * COLS)
    assert all(low < x < high for x in chi2(1.0))
    assert not any(low < x < high for x in chi2(1.5))  # errors that claim to be larger
    assert not any(low < x < high for x in chi2(0.7))


def test_spread_of_these_columns_and_of_their_law() -> None:
    for seed in range(CHIPS):
        gain, offset = fabricated(seed)
        own, law = twin(seed).estimate("tile.gain_spread"), twin(seed).estimate("adc.gain_d2d")
        assert own.value == pytest.approx(float(gain.std()), rel=0.02)
        assert law.low < 0.15 < law.high or not 0.12 < float(gain.std()) < 0.19
        assert own.high - own.low < 0.2 * (law.high - law.low)
        assert twin(seed).estimate("tile.offset_spread_lsb").value == pytest.approx(float(offset.std()) * 31, rel=0.02)


def test_error_over_noise_is_nearly_one_and_tells_a_wrong_twin() -> None:
    from mho.lab.twin.cells import ReadBack
    from mho.lab.twin.judge import error_over_noise
    from mho.lab.twin.likelihood import Parameters

    good = twin(0).error_over_noise
    assert good is not None
    assert 0.98 < good < 1.1
    gain, offset = fabricated(0)
    shared = torch.tensor([1.4, 0.02, 0.01, 1e-4], dtype=torch.float64)
    known = Parameters(gain.double(), offset.double(), shared)
    # Who knows all hidden values errs by the read-backs' noise alone.
    best = error_over_noise(measured(0), known, ReadBack(0.02, 0.01), (6, 6))
    assert best is not None
    assert good < best * 1.01
    unaware = known._replace(gain=torch.ones(COLS, dtype=torch.float64))
    worse = error_over_noise(measured(0), unaware, ReadBack(0.02, 0.01), (6, 6))
    assert worse is not None
    assert worse > 1.5


def test_hardware_is_what_was_hidden_and_cites_its_fit() -> None:
    hw = twin(0).hardware
    assert isinstance(hw.cell, GenericCell)
    assert hw.dac == Dac(bits=6)
    assert hw.adc is not None
    assert hw.adc.bits == 6
    assert hw.adc.inl_lsb == pytest.approx(1.4, rel=0.05)
    assert hw.wires is None
    assert hw.tile.rows == ROWS
    sources = {s.key: s for s in hw.sources}
    assert {"adc.inl_lsb", "cell.read_noise", "cell.drift_nu", "output_noise"} <= set(sources)
    assert sources["adc.inl_lsb"].status == "fitted"
    assert sources["adc.inl_lsb"].note.startswith("95 %: ")
    assert "tile.gain_spread" not in sources


@pytest.mark.slow
def test_column_response_is_the_device() -> None:
    hw = HIDDEN.replace(cell=GenericCell(), output_noise=0.0)
    quiet = device(hw, seed=5)
    found = fit_twin(quiet, plan=Plan(name="quiet", ages_s=()))
    gain, offset, inl_lsb = column_response(found, 0)
    target = 25.0 * torch.tanh(normals((ROWS, COLS), "a pattern"))
    quiet.program(0, target, operation="p")
    v = 0.2 * (2 * torch.rand(200, ROWS, generator=torch.Generator().manual_seed(0)) - 1)
    full = 30.0
    seen = quiet.mvm(0, v, operation="m", full_scale_uA=full).currents_uA[0]
    said = converters.transfer(
        gain * (converters.quantize(v, 0.2, 6) @ target) + offset * full, full, 6, inl_lsb=inl_lsb
    )
    same = (seen - said).abs() < 0.1 * full / 31
    assert same.float().mean() > 0.97
    plain = converters.transfer(v @ target, full, 6)
    assert ((seen - plain).abs() < 0.1 * full / 31).float().mean() < 0.6
    with pytest.raises(TwinError, match=r"tile 1: not measured \(measured: 0\)"):
        column_response(found, 1)


def test_a_device_without_noise_or_errors() -> None:
    found = fit_twin(
        device(Hardware(name="ideal", mapping=SIGNED, dac=Dac(bits=6), adc=Adc(bits=6))), plan=Plan(name="i")
    )
    assert found.hardware.cell == GenericCell(g_max_uS=25.0)
    assert found.columns[0].gain == pytest.approx(torch.ones(COLS), abs=2e-3)
    assert found.estimate("adc.inl_lsb").holds(0.0)
    assert found.error_over_noise is not None
    assert found.error_over_noise < 0.5  # of the LSB / sqrt(12) to which such a device can be known


def test_wires_are_told_by_the_place_and_the_error_is_that_before_them() -> None:
    cell = GenericCell(programming_noise=0.05, read_noise=0.02)
    hw = Hardware(name="w", cell=cell, mapping=SIGNED, adc=Adc(bits=6), dac=Dac(bits=6), wires=Wires(wire_ohm=8.0))
    chip = VirtualDevice(hw, 1, tiles=1, rows=32, cols=32)
    found = fit_twin(chip, plan=Plan(name="w", ages_s=()))
    e = found.estimate("wires.wire_ohm")
    assert e.holds(8.0)
    assert e.low > 4.0
    assert found.estimate("cell.programming_noise").value == pytest.approx(0.05, rel=0.06)
    assert found.hardware.wires is not None


def test_gains_of_rows() -> None:
    hw = HIDDEN.replace(dac=Dac(bits=6, gain_d2d=0.05))
    found = fit_twin(device(hw, 2), plan=Plan(name="r", ages_s=()))
    e = found.estimate("dac.gain_d2d")
    assert e.holds(0.05)
    truth = 1 + 0.05 * normals((ROWS,), 2, "tile", 0, "dac_gain")
    assert found.row_gain[0] == pytest.approx(truth / truth.mean(), abs=0.012)
    assert found.error_over_noise is not None
    assert found.error_over_noise < 1.1
    assert not twin(0).row_gain  # where rows are alike none is given


def test_sigma_that_no_line_describes_becomes_a_table() -> None:
    points = ((0.0, 0.3), (6.25, 3.0), (12.5, 0.5), (18.75, 3.0), (25.0, 0.6))
    hw = HIDDEN.replace(cell=GenericCell(sigma_table=points, read_noise=0.02))
    cell = fit_twin(device(hw), plan=Plan(name="t", ages_s=())).hardware.cell
    assert isinstance(cell, GenericCell)
    assert [g for g, _ in cell.sigma_table] == [g for g, _ in points]
    assert [s for _, s in cell.sigma_table] == pytest.approx([s for _, s in points], rel=0.1, abs=0.02)


def test_dead_lines_are_named_and_left_out() -> None:
    hw = HIDDEN.replace(
        cell=GenericCell(programming_noise=0.08, read_noise=0.02), faults=Faults(dead_cols=0.1, dead_rows=0.05)
    )
    found = fit_twin(device(hw), plan=Plan(name="d", ages_s=()))
    lost = torch.special.ndtr(normals((COLS,), 0, "tile", 0, "dead_cols")) < 0.1
    assert lost.any()
    assert torch.equal(found.columns[0].gain.isnan(), lost)
    words = " ".join(found.unidentified)
    assert f"columns {torch.nonzero(lost).flatten().tolist()}" in words
    assert "hold nothing of what is written" in words
    assert found.estimate("cell.programming_noise").value == pytest.approx(0.08, rel=0.05)
    assert found.estimate("cell.programming_noise_rel").value == 0.0


@pytest.mark.slow
def test_stuck_cells_are_no_error_of_writing() -> None:
    hw = HIDDEN.replace(cell=GenericCell(programming_noise=0.05), faults=Faults(stuck_on=0.02, stuck_off=0.02))
    found = fit_twin(device(hw), plan=Plan(name="s", ages_s=()))
    assert found.estimate("cell.programming_noise").value == pytest.approx(0.05, rel=0.05)


def test_another_tile_has_other_columns() -> None:
    other = fit_twin(device(), tile=1, plan=Plan(name="o", ages_s=()))
    assert set(other.columns) == {1}
    assert (other.columns[1].gain - twin(0).columns[0].gain).abs().mean() > 0.05
    both = merged([twin(0), other])
    assert both.hardware == twin(0).hardware
    assert torch.equal(column_response(both, 1)[0], other.columns[1].gain)
    with pytest.raises(TwinError, match=r"tiles \[0, 0\], one of them twice"):
        merged([twin(0), twin(0)])
    with pytest.raises(TwinError, match="no twins"):
        merged([])


class Blind:
    """A device that cannot read back, loses numbers, and has no clock of its own to turn."""

    def __init__(self, inner: VirtualDevice, lost: float = 0.0) -> None:
        self._inner, self._lost = inner, lost

    def capabilities(self) -> Capabilities:
        return replace(self._inner.capabilities(), read_back=False)

    def program(
        self, tile: int, targets_uS: torch.Tensor, *, operation: str, mask: torch.Tensor | None = None
    ) -> ProgramReport:
        report = self._inner.program(tile, targets_uS, operation=operation, mask=mask)
        return replace(report, achieved_uS=None)

    def read(self, tile: int) -> Conductances:
        raise AssertionError("asked for what the device does not have")

    def mvm(
        self, tile: int, inputs_V: torch.Tensor, *, operation: str, full_scale_uA: float, repeats: int = 1
    ) -> Readout:
        out = self._inner.mvm(tile, inputs_V, operation=operation, full_scale_uA=full_scale_uA, repeats=repeats)
        gone = normals(tuple(out.currents_uA.shape), operation) < float(stats.norm.ppf(self._lost or 1e-12))
        return replace(out, currents_uA=torch.where(gone, torch.nan, out.currents_uA), valid=~gone)

    def health(self) -> Health:
        return self._inner.health()


def test_without_read_back_repeats_tell_reading_from_writing() -> None:
    hw = HIDDEN.replace(cell=GenericCell(programming_noise=0.08, read_noise=0.02), output_noise=0.0)
    found = fit_twin(Blind(device(hw)), plan=Plan(name="b"))  # type: ignore[arg-type]
    assert found.estimate("cell.programming_noise").value == pytest.approx(0.08, rel=0.04)
    assert found.estimate("cell.read_noise").value == pytest.approx(0.02, rel=0.04)
    gain, _ = fabricated(0)
    z = (found.columns[0].gain - gain) / found.column_errors[0].gain
    low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], COLS)
    assert low < float(z.square().sum()) < high
    # The writing error that does not average out makes gains worse than with a read-back.
    assert found.column_errors[0].gain.mean() > 4 * twin(0).column_errors[0].gain.mean()
    words = " ".join(found.unidentified)
    assert "adc.gain_d2d: without read-back" in words
    assert "Tell: a read-back" in words


def test_lost_numbers_carry_no_weight_and_are_counted() -> None:
    hw = HIDDEN.replace(cell=GenericCell(programming_noise=0.08, read_noise=0.02), output_noise=0.0)
    found = fit_twin(Blind(device(hw), lost=0.05), plan=Plan(name="l"))  # type: ignore[arg-type]
    assert found.estimate("adc.inl_lsb").value == pytest.approx(1.4, rel=0.05)
    assert any("of the currents did not come and carry no weight" in u for u in found.unidentified)


def test_budget_cuts_the_plan_or_refuses() -> None:
    chip = device()
    small = fit_twin(chip, budget=3000)
    e, usual = small.estimate("adc.inl_lsb"), twin(0).estimate("adc.inl_lsb")
    assert e.high - e.low > 1.15 * (usual.high - usual.low)
    with pytest.raises(TwinError, match="budget = 100 vectors: a calibration needs"):
        fit_twin(chip, budget=100)
    with pytest.raises(TwinError, match="reads = 1"):
        Plan(name="x", reads=1)


def test_nothing_to_fit() -> None:
    with pytest.raises(TwinError, match="no pairs of role 'fit'"):
        fit(replace(measured(0), pairs=()))
    with pytest.raises(TwinError, match=r"no estimate 'cell\.bits'"):
        twin(0).estimate("cell.bits")
