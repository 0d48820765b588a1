"""Small networks and one noisy hardware, shared by the tests of nn and chips."""

import torch
from torch import Tensor, nn

import mho
from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping

NOISY = Hardware(
    name="noisy",
    cell=GenericCell(programming_noise=0.05, read_noise=0.01),
    mapping=Mapping(scheme="signed"),
    dac=Dac(bits=8),
    adc=Adc(bits=8),
    output_noise=0.02,
)
QUANTISED = NOISY.replace(name="quantised", cell=GenericCell(), output_noise=0.0)
FULL = NOISY.replace(name="differential", mapping=Mapping())


class Digits(nn.Module):
    """A convolution, a norm and two dense layers on 1 x 6 x 6 images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.hidden = nn.Linear(36, 8)
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.conv(x))).flatten(1)
        return self.out(torch.relu(self.hidden(h)))


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def calibrated(model: nn.Module, hw: Hardware, *inputs: Tensor, **options: object) -> nn.Module:
    """``model`` converted, its ranges set by ``inputs``, in the mode in which ``model`` was."""
    return mho.calibrate(mho.convert(model, hw, **options), inputs)  # type: ignore[arg-type]
