"""The laws of noise under torch.compile, where torch's own random numbers take the place of the kernels'."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import mho
from mho.hardware import Adc, GenericCell, Hardware, Mapping
from mho.physics.scaling import scale_hardware_noise
from mho.testing import assert_independent, assert_power

OUTPUTS, CALLS, RANGE = 4097, 25, 3.0
SOURCES = {
    "programming": (Hardware(name="p", cell=GenericCell(programming_noise=0.1), mapping=Mapping(scheme="signed")), 0.1),
    "read": (Hardware(name="r", cell=GenericCell(read_noise=0.05), mapping=Mapping(scheme="signed")), 0.05),
    "output": (Hardware(name="o", mapping=Mapping(scheme="signed"), adc=Adc(), output_noise=0.04), 0.04 * RANGE),
}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own


def _compiled(hw: Hardware, backend: str) -> Callable[[Tensor], Tensor]:
    """One input, weights of 0.5 and one of 1 that sets the full scale."""
    torch._dynamo.reset()
    torch.manual_seed(3)
    layer = nn.Linear(1, OUTPUTS, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.5)[0] = 1.0
    analog = mho.convert(layer, hw, ranges="learned").train()
    with torch.no_grad():
        for name, value in analog.named_parameters():
            if name.endswith("_ranges"):
                value.fill_(RANGE)
    return torch.compile(analog, fullgraph=True, backend=backend)


def _errors(run: Callable[[Tensor], Tensor], x: float = 1.0) -> Tensor:
    with torch.no_grad():
        return torch.stack([run(torch.tensor([[x]]))[0, 1:] - 0.5 * x for _ in range(CALLS)])


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_every_source_has_its_law_and_a_mutant_of_five_percent_fails(source: str, backend: str) -> None:
    hw, sigma = SOURCES[source]
    assert_power(lambda scale: _errors(_compiled(scale_hardware_noise(hw, scale), backend)), sigma=sigma)


def test_read_noise_grows_with_the_input() -> None:
    hw, sigma = SOURCES["read"]
    assert_power(lambda scale: _errors(_compiled(scale_hardware_noise(hw, scale), "aot_eager"), 3.0), sigma=3 * sigma)


@pytest.mark.parametrize("source", SOURCES)
def test_neighbours_and_calls_are_independent(source: str) -> None:
    found = _errors(_compiled(SOURCES[source][0], "aot_eager"))
    assert_independent(found[:, :-1], found[:, 1:])
    assert_independent(found[:-1], found[1:])


def test_a_chip_is_one_for_all_vectors_of_a_batch_and_a_read_is_not() -> None:
    x = torch.ones(2, 1)
    with torch.no_grad():
        chip = _compiled(SOURCES["programming"][0], "aot_eager")(x)
        read = _compiled(SOURCES["read"][0], "aot_eager")(x)
    assert torch.equal(chip[0], chip[1])
    assert_independent(read[0, 1:] - 0.5, read[1, 1:] - 0.5)
