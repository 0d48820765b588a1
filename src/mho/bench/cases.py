"""What is timed: the networks, the hardware, and one run of each side of each case."""

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mho.chips import fabricate
from mho.errors import InputError, nearest
from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping, Tile
from mho.models import build
from mho.nn.conversion import calibrate, convert

Side = Literal["digital", "mho"]
Run = Callable[[], object]
CHIPS = 25
BITS = 8
OUTPUT_NOISE = 0.04
WEIGHT_NOISE = 0.04
CLIP_SIGMA = 2.5
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Case:
    """One line of the benchmark. ``rows``: of a tile (None: one tile a layer). ``aim``: a ratio, on two quiet cores."""

    network: Literal["mlp", "resnet20", "transformer", "linear"]
    work: Literal["train", "infer", "chips", "gradient"]
    rows: int | None = None
    aim: float | None = None


CASES = MappingProxyType(
    {
        "train_mlp": Case("mlp", "train", aim=1.8),
        "train_resnet20": Case("resnet20", "train", aim=1.4),
        "train_transformer": Case("transformer", "train", aim=1.35),
        "infer_mlp": Case("mlp", "infer", aim=1.5),
        "infer_resnet20": Case("resnet20", "infer", aim=1.5),
        "infer_transformer": Case("transformer", "infer", aim=1.5),
        "linear1024": Case("linear", "gradient", aim=1.4),
        "linear1024_tiles256": Case("linear", "gradient", rows=256, aim=1.8),
        "chips25_mlp": Case("mlp", "chips", aim=1.2),
        "chips25_resnet20": Case("resnet20", "chips", aim=1.2),
    }
)


def find_case(name: str) -> Case:
    """The case called ``name``; raises :class:`InputError` with the nearest names."""
    if name not in CASES:
        raise InputError(f"bench speed: case {name!r} is unknown. {nearest(name, CASES)}")
    return CASES[name]


def bench_hardware(rows: int | None = None) -> Hardware:
    """8-bit converters, output noise 0.04 of the ADC's range, weight noise 0.04 of full scale, ``rows`` a tile."""
    return Hardware(
        name="bench",
        cell=GenericCell(programming_noise=WEIGHT_NOISE),
        mapping=Mapping(scheme="signed"),
        tile=Tile(rows=rows),
        dac=Dac(bits=BITS),
        adc=Adc(bits=BITS),
        output_noise=OUTPUT_NOISE,
    )


class Encoder(nn.Module):
    """Four transformer layers (d 256, 4 heads, feed-forward 1024, no dropout), mean over tokens, 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        """``[batch, tokens, 256]`` to logits ``[batch, 10]``."""
        logits: Tensor = self.head(self.encoder(x).mean(dim=1))
        return logits


def network(name: str) -> tuple[nn.Module, Tensor]:
    """A digital network with fresh weights and one batch for it, from torch's global generator."""
    if name == "mlp":
        return build("mlp"), torch.randn(128, 784)
    if name == "resnet20":
        return build("resnet20"), torch.randn(64, 3, 32, 32)
    if name == "transformer":
        return Encoder(), torch.randn(16, 64, 256)
    return nn.Linear(1024, 1024), torch.randn(512, 1024)


def convert_for_bench(digital: nn.Module, x: Tensor, rows: int | None) -> nn.Module:
    """The analog twin: learned ranges that start from batch ``x``, weights bounded at 2.5 sigma."""
    return calibrate(convert(digital, bench_hardware(rows), clip_sigma=CLIP_SIGMA, ranges="learned"), [x])


def build_run(name: str, side: Side, seed: int = 0) -> Run:
    """A function that runs case ``name`` once on one side; the same weights, batch and targets on both.

    train: zero_grad, forward, cross-entropy, backward, SGD. gradient: forward and backward, to the input too.
    infer: eval mode, no gradients; the mho side is one fabricated chip, with fresh noise at each read. chips:
    25 fabricated chips in one call against 25 digital passes in a loop.

    Raises :class:`InputError` for an unknown case.
    """
    case = find_case(name)
    torch.manual_seed(seed)
    digital, x = network(case.network)
    target = torch.randint(0, 10, (len(x),))
    model = digital if side == "digital" else convert_for_bench(digital, x, case.rows)
    if case.work == "train":
        return train_run(model, x, target)
    if case.work == "gradient":
        return gradient_run(model, x)
    chips = CHIPS if case.work == "chips" else 1
    if side == "mho":
        return infer_run(fabricate(model, chips=chips), x, 1)
    return infer_run(model, x, chips)


def train_run(model: nn.Module, x: Tensor, target: Tensor) -> Run:
    """A training step of ``model`` on batch ``x`` with classes ``target``."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)

    def step() -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        optimizer.step()

    return step


def gradient_run(model: nn.Module, x: Tensor) -> Run:
    """Forward and backward of one layer, as inside a network: weight, bias and input ``x`` get a gradient."""
    model.train()
    x.requires_grad_(True)
    upstream = torch.ones(len(x), 1024)

    def forward_and_backward() -> None:
        model.zero_grad()
        x.grad = None
        model(x).backward(upstream)

    return forward_and_backward


def infer_run(model: nn.Module, x: Tensor, passes: int) -> Run:
    """``passes`` forward passes in eval mode without gradients; returns the last output."""
    model.eval()

    def infer() -> object:
        with torch.no_grad():
            for _ in range(passes - 1):
                model(x)
            return model(x)

    return infer
