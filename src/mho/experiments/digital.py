"""The digital network at fp32, int8 and int4: accuracies that are measured beside joules that are counted.

Rounding is after training: weights of each output channel and inputs of each layer to symmetric integers of so many
bits, sums exact, ranges from training images. A network that is trained at its bits may do better.
"""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from mho.evaluation.run import clean_outcomes
from mho.hardware.cells import GenericCell
from mho.hardware.spec import Dac, Hardware
from mho.hardware.spec import Mapping as CellMapping
from mho.nn.conversion import calibrate, convert

FORMATS: dict[str, int | None] = {"fp32": None, "int8": 8, "int4": 4}
"""Number formats by their bits; ``None``: not rounded."""

Batches = Sequence[tuple[Tensor, Tensor]]


def rounding(bits: int) -> Hardware:
    """Digital logic of so many bits (2 or more): weights of each output channel and inputs to 2^bits - 1 symmetric
    levels, sums exact."""
    return Hardware(
        name=f"int{bits}",
        cell=GenericCell(bits=bits - 1),  # the magnitude: a signed cell has its sign beside it
        mapping=CellMapping(scheme="signed", per_column=True),
        dac=Dac(bits=bits),
    )


def accuracy_at(bits: int | None, network: nn.Module, calibration: Iterable[Tensor], batches: Batches) -> float:
    """Percent of the images in ``batches`` that the digital ``network`` (left as it is) has right at ``bits``.

    ``calibration``: inputs that its ranges are taken from. One pass over the images.
    """
    tried = network if bits is None else calibrate(convert(network, rounding(bits)), calibration)
    return 100 * float(clean_outcomes(tried, batches).mean())


def digital_accuracies(
    networks: Sequence[nn.Module],
    calibration: Sequence[Tensor],
    batches: Batches,
    known: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Percent by format, the mean over ``networks`` (one a seed).

    ``known``: accuracies by format that were measured before on the same images.
    """
    found = dict(known or {})
    for name, bits in FORMATS.items():
        if name not in found:
            found[name] = sum(accuracy_at(bits, n, calibration, batches) for n in networks) / len(networks)
    return {name: found[name] for name in FORMATS}
