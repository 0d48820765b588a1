"""A machine on a chip: its couplings and biases as conductances of few bits."""

from dataclasses import replace

from torch import Tensor

from mho.ebm.conductances import programmed
from mho.ebm.spins.ising import Ising
from mho.hardware.spec import Hardware


def couplings_on(
    hw: Hardware,
    couplings: Tensor,
    biases: Tensor,
    *,
    chip_seed: int | None,
    age: float | str | None = None,
    bound: float | None = None,
    digital_biases: bool = False,
    counter: bool = False,
) -> tuple[Tensor, Tensor]:
    """(couplings [E], biases [N]) that the chip ``chip_seed`` of ``hw`` holds, by :func:`mho.ebm.programmed`.

    One cell an edge, so couplings stay symmetric. ``bound``: the full scale of the couplings, in their units (larger
    ones saturate); None: max |J|. ``digital_biases``: biases are kept as they are. ``age``, ``counter`` and errors as
    there. Differentiable straight through the levels.
    """
    held = programmed(
        {"couplings": couplings, "biases": biases},
        hw,
        chip_seed=chip_seed,
        age=age,
        bounds=None if bound is None else {"couplings": bound},
        digital=("biases",) if digital_biases else (),
        counter=counter,
    )
    return held["couplings"], held["biases"]


def on_chip(ising: Ising, hw: Hardware, *, chip_seed: int | None, age: float | str | None = None) -> Ising:
    """``ising`` as the chip holds it: :func:`couplings_on` of its couplings and biases, at the same temperature."""
    couplings, biases = couplings_on(hw, ising.couplings, ising.biases, chip_seed=chip_seed, age=age)
    return replace(ising, couplings=couplings, biases=biases)
