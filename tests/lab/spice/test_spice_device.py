"""ngspice behind the protocol: the tile it computes, its noise as physics, its refusals."""

import shutil

import pytest
import torch
from torch import Tensor

from mho.errors import DeviceFault, RangeError
from mho.lab import CellStatus, NotProgrammed, Readout
from mho.lab.spice import AccessMosfet, AccessResistor, SpiceDevice
from mho.physics.converters import quantize
from mho.physics.thermal import boxcar_bandwidth_Hz, johnson_sigma_A
from mho.physics.wires import effective_conductance
from mho.rng import uniforms
from mho.testing import assert_independent, assert_power
from mho.testing.devices import check_device

pytestmark = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
V_MAX, G_MAX = 0.2, 25.0
TARGETS = G_MAX * (2.0 * uniforms((6, 4), 0, "g") - 1.0)
INPUTS = V_MAX * (2.0 * uniforms((5, 6), 0, "x") - 1.0)


def device(signed: bool = True, noise: bool = False, **options: object) -> SpiceDevice:
    return SpiceDevice(6, 4, g_max_uS=G_MAX, v_max_V=V_MAX, signed=signed, noise=noise, **options)  # type: ignore[arg-type]


def answer(made: SpiceDevice, targets: Tensor = TARGETS, operation: str = "x", **call: object) -> Readout:
    made.program(0, targets, operation="w")
    return made.mvm(0, INPUTS, operation=operation, **{"full_scale_uA": 10.0, **call})  # type: ignore[arg-type]


def two_arrays(ohm: float) -> Tensor:
    g = TARGETS.double()
    plus, minus = (effective_conductance(part.clamp_min(0.0), ohm) for part in (g, -g))
    return INPUTS.double() @ (plus - minus)


@pytest.mark.parametrize("solve", ["each", "superposition"])
def test_signed_cells_are_two_arrays_subtracted(solve: str) -> None:
    got = answer(device(wire_ohm=200.0, solve=solve)).currents_uA[0].double()
    assert float((got - two_arrays(200.0)).abs().max()) < 1e-6 * 10.0
    assert float((got - INPUTS.double() @ TARGETS.double()).abs().max()) > 1e-3 * 10.0


def test_unsigned_cells_are_one_array() -> None:
    got = answer(device(signed=False, wire_ohm=200.0), TARGETS.abs()).currents_uA[0].double()
    exact = INPUTS.double() @ effective_conductance(TARGETS.abs().double(), 200.0)
    assert float((got - exact).abs().max()) < 1e-6 * 10.0


def test_the_access_device_is_in_the_answer() -> None:
    with_it = answer(device(access=AccessResistor(ohm=1e4)))
    halved = answer(device(access=AccessMosfet(gate_V=1.0, bulk_V=-1.0)))
    without = answer(device())
    assert float((with_it.currents_uA - without.currents_uA).abs().max()) > 0.1
    assert float((halved.currents_uA - without.currents_uA).abs().max()) > 0.01


def test_converters_round_at_both_ends() -> None:
    x = quantize(INPUTS.double(), V_MAX, 4)
    exact = quantize(x @ TARGETS.double(), 12.0, 5)
    got = answer(device(input_bits=4, output_bits=5), full_scale_uA=12.0)
    assert torch.allclose(got.currents_uA[0].double(), exact, atol=1e-6)
    assert not torch.allclose(got.currents_uA[0], INPUTS @ TARGETS, atol=1e-2)
    assert got.flags == ()


def test_beyond_full_scale_is_clipped_and_said() -> None:
    got = answer(device(), full_scale_uA=0.5)
    assert got.flags == ("saturated",)
    assert float(got.currents_uA.abs().max()) == 0.5


def quiet_reads(kelvin: float) -> Tensor:
    """Noise of 100,000 reads at rest over the law of 300 K."""
    made = SpiceDevice(6, 4, g_max_uS=G_MAX, v_max_V=V_MAX, signed=True, temperature_K=kelvin, seed=3)
    made.program(0, TARGETS, operation="w")
    got = made.mvm(0, torch.zeros(50, 6), operation="x", full_scale_uA=1.0, repeats=500).currents_uA
    # Both arrays of a pair make noise: the sum of |g|.
    sigma = johnson_sigma_A(TARGETS.double().abs().sum(0) * 1e-6, boxcar_bandwidth_Hz(128e-9), 300.0) * 1e6
    return got.double() / sigma


def test_noise_of_a_read_has_the_law_of_its_cells() -> None:
    """The mutant is a device as much warmer as makes its sigma 5 % larger."""
    assert_power(lambda scale: quiet_reads(300.0 * scale**2), sigma=1.0, mean=0.0)


def test_columns_and_repeats_are_independent() -> None:
    z = quiet_reads(300.0)
    assert_independent(z[:, :, 0], z[:, :, 1])
    assert_independent(z[::2, :, 0], z[1::2, :, 0])


def test_noise_is_named_by_the_operation_and_the_seed() -> None:
    first, again, other = (answer(device(noise=True), operation=name) for name in ("a", "a", "b"))
    assert torch.equal(first.currents_uA, again.currents_uA)
    assert not torch.equal(first.currents_uA, other.currents_uA)
    assert not torch.equal(first.currents_uA, answer(device(noise=True, seed=1), operation="a").currents_uA)


def test_noise_of_a_transient_is_that_of_the_spectrum() -> None:
    """Both arrays of a pair are noisy; ngspice 39 cannot be given a seed, so that a repeated call is fresh."""
    made = device(noise=True, noise_by="trnoise")
    made.program(0, TARGETS, operation="w")
    call = {"operation": "x", "full_scale_uA": 1.0, "repeats": 60}
    first, again = (made.mvm(0, torch.zeros(50, 6), **call).currents_uA.double() for _ in range(2))  # type: ignore[arg-type]
    assert not torch.equal(first, again)
    sigma = johnson_sigma_A(TARGETS.double().abs().sum(0) * 1e-6, boxcar_bandwidth_Hz(128e-9), 300.0) * 1e6
    assert float((torch.cat([first, again]) / sigma).square().mean().sqrt()) == pytest.approx(1.0, abs=0.04)
    driven = made.mvm(0, INPUTS, operation="y", full_scale_uA=10.0, repeats=60).mean_uA()[0]
    assert float((driven - INPUTS @ TARGETS).abs().max()) < 6.0 * float(sigma.max()) / 60**0.5


def test_noise_is_asked_for_anew_after_a_programming() -> None:
    made = device(noise=True)

    def spread(targets: Tensor, name: str) -> float:
        made.program(0, targets, operation=name)
        zeros = torch.zeros(50, 6)
        return float(made.mvm(0, zeros, operation=name, full_scale_uA=1.0, repeats=100).currents_uA.std())

    full = torch.full((6, 4), G_MAX)
    assert spread(full, "a") / spread(full / 25.0, "b") == pytest.approx(5.0, rel=0.05)


def test_a_mask_leaves_the_others_and_says_so() -> None:
    made = device()
    made.program(0, TARGETS, operation="w")
    mask = torch.zeros(6, 4, dtype=torch.bool)
    mask[1, 2] = True
    report = made.program(0, torch.zeros(6, 4), operation="m", mask=mask)
    expected = TARGETS.clone()
    expected[1, 2] = 0.0
    assert torch.equal(made.read(0).g_uS, expected)
    assert torch.equal(report.status == int(CellStatus.SKIPPED), ~mask)


def test_refusals() -> None:
    made = device()
    with pytest.raises(NotProgrammed, match="spice device, tile 0: nothing was written"):
        made.mvm(0, INPUTS, operation="x", full_scale_uA=10.0)
    with pytest.raises(NotProgrammed, match="a mask, and nothing was written before"):
        made.program(0, TARGETS, operation="w", mask=TARGETS > 0)
    made.close()
    with pytest.raises(DeviceFault, match="spice device: it was closed"):
        made.read(0)
    for options in ({"noise": True}, {"solve": "superposition"}):
        with pytest.raises(RangeError, match="ngspice 39 has no noise of a channel at rest"):
            device(access=AccessMosfet(gate_V=2.0), **options)  # type: ignore[arg-type]
    with pytest.raises(RangeError, match=r"solve = 'rows'. Fix: 'each' or 'superposition'"):
        device(solve="rows")
    with pytest.raises(RangeError, match=r"noise_by = 'tran'. Fix: '.noise' or 'trnoise'"):
        device(noise_by="tran")
    with pytest.raises(RangeError, match=r"wire_ohm = -1.0"):
        device(wire_ohm=-1.0)
    with pytest.raises(RangeError, match=r"temperature_K = -1.0"):
        device(temperature_K=-1.0)


@pytest.mark.slow
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("solve", ["each", "superposition"])
def test_conformance(signed: bool, solve: str) -> None:
    report = check_device(lambda: device(signed, True, wire_ohm=2.0, tiles=2, input_bits=8, output_bits=8, solve=solve))
    assert report.skipped == ()


@pytest.mark.slow
def test_conformance_with_noise_in_time() -> None:
    assert check_device(lambda: device(noise=True, noise_by="trnoise", tiles=2, output_bits=8)).skipped == ()


def test_conformance_of_the_plainest() -> None:
    report = check_device(lambda: device(tiles=2))
    assert [name for name, _ in report.skipped] == ["full_scale"]
