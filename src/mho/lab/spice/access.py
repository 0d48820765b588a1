"""What stands in series with each cell: nothing, a resistance, or a transistor."""

from dataclasses import dataclass
from typing import final

from mho.hardware.fields import NonNegative, Positive, check_fields


@final
@dataclass(frozen=True, kw_only=True)
class AccessResistor:
    """A selector that is on, as an ohmic resistance in series with each cell."""

    ohm: Positive

    def __post_init__(self) -> None:
        check_fields(self)


@final
@dataclass(frozen=True, kw_only=True)
class AccessMosfet:
    """An n-channel transistor in series with each cell: ngspice's level 1 (Shichman-Hodges), quadratic.

    In the linear region i = kp (W / L) (v_gs - v_to - v_ds / 2) v_ds (1 + lambda v_ds). All gates stand at ``gate_V``,
    all bulks at ``bulk_V``; a bulk below the most negative input keeps the junctions off. Its thermal noise is left
    out: ngspice 39 takes 8/3 k T g_m, which is 0 without a drain voltage, where the channel has 4 k T g_ds.
    """

    gate_V: float
    bulk_V: float = 0.0
    threshold_V: float = 0.45
    kp_uA_per_V2: Positive = 300.0
    width_over_length: Positive = 4.0
    lambda_per_V: NonNegative = 0.0
    gamma_rootV: NonNegative = 0.0

    def __post_init__(self) -> None:
        check_fields(self)


Access = AccessResistor | AccessMosfet
