"""Hardware with a price for everything, for tests of the energy model."""

from mho.hardware import (
    Adc,
    AdcCost,
    ArrayCost,
    Cost,
    Dac,
    DriveCost,
    GenericCell,
    Hardware,
    LogicCost,
    Mapping,
    MoveCost,
    ProgrammingCost,
    Quantity,
    Readout,
    Tile,
    TileCost,
)


def q(typical: float, width: float = 2.0) -> Quantity:
    """A made-up constant from ``typical / width`` to ``typical * width``."""
    return Quantity(low=typical / width, typical=typical, high=typical * width, source="made up", status="model")


def priced(*, read_fJ: float | None = None, adc_pJ: float | None = 2.0, line: bool = True) -> Hardware:
    """Differential cells on tiles of 8 x 6, bit planes, every part priced."""
    drive = DriveCost(
        bits_per_phase=1,
        energy_pJ=q(0.3),
        line_fF=q(50.0) if line else None,
        line_swing_V=0.5 if line else 0.0,
        line_supply_V=0.9 if line else 0.0,
        area_um2=q(3.0),
    )
    adc = AdcCost(
        energy_pJ=None if adc_pJ is None else q(adc_pJ),
        bits=None if adc_pJ is None else 6,
        step_pJ=q(0.1),
        sample_pJ=q(0.2),
        integrate_pJ=q(0.05),
        planes_per_conversion=2,
        columns=3,
        conversion_s=q(2e-9),
        area_um2=q(500.0),
    )
    cost = Cost(
        node_nm=45,
        supply_V=0.9,
        drive=drive,
        adc=adc,
        array=ArrayCost(read_fJ=None if read_fJ is None else q(read_fJ), area_um2=q(0.1)),
        logic=LogicCost(add_pJ=q(0.05), scale_pJ=q(0.2), activation_pJ=q(0.1)),
        move=MoveCost(buffer_pJ=q(0.2), link_pJ=q(0.1)),
        tile=TileCost(read_pJ=q(7.0), static_mW=q(0.2), area_um2=q(40.0)),
        programming=ProgrammingCost(pulse_pJ=q(5.0), pulses=q(12.0)),
        chip_static_mW=q(3.0),
    )
    return Hardware(
        name="priced",
        cell=GenericCell(g_min_uS=0.0, g_max_uS=20.0),
        mapping=Mapping(scheme="differential"),
        tile=Tile(rows=8, cols=6),
        dac=Dac(bits=5),
        adc=Adc(bits=6),
        readout=Readout(v_read_V=0.2, t_read_s=5e-8),
        cost=cost,
    )
