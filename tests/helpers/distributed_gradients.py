"""Accumulated gradients, bfloat16 and activation checkpointing in one process of two, by DDP and by FSDP2."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from small_networks import FULL
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import mho
from mho.hardware import GenericCell, Hardware
from mho.nn.site import analog_layers
from mho.train.distributed import seed_ranks

ENGINES = ("ddp", "fsdp", "ddp bf16", "fsdp bf16")
PARTS, BATCH, SEED, PASSES, STEPS = 3, 16, 11, 60, 20
STATIC = FULL.replace(name="static", cell=GenericCell(programming_noise=0.03), output_noise=0.0)
FRESH = FULL.replace(name="fresh", cell=GenericCell(read_noise=0.01), output_noise=0.02)
Grads = dict[str, Tensor]


class Blocks(nn.Module):
    """Two hidden layers whose activations may be computed twice, and one on top."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(n, 32), nn.ReLU()) for n in (12, 32))
        self.out = nn.Linear(32, 4)
        self.checkpointed = False

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        return self.out(x)


def batch(number: int, rank: int) -> tuple[Tensor, Tensor]:
    """Micro-batch ``number`` of a rank: four blobs."""
    centres = 2 * torch.randn(4, 12, generator=torch.Generator().manual_seed(1))
    y = torch.arange(BATCH) % 4
    return centres[y] + torch.randn(BATCH, 12, generator=torch.Generator().manual_seed(1000 * rank + number)), y


def start() -> Blocks:
    """The network from which all begin; its converters know their ranges."""
    torch.manual_seed(0)
    return mho.calibrate(mho.convert(Blocks(), FULL), [batch(0, 0)[0]]).train()


def wrapped(engine: str, network: nn.Module) -> nn.Module:
    """The model that a user trains."""
    if engine.startswith("ddp"):
        return DistributedDataParallel(network)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    low = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    policy = low if "bf16" in engine else MixedPrecisionPolicy()
    for block in getattr(network, "blocks", ()):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    return fully_shard(network, mesh=mesh, mp_policy=policy)


def precision(engine: str) -> torch.autocast:
    """Autocast for DDP in bfloat16; FSDP2 has a policy instead."""
    return torch.autocast("cpu", torch.bfloat16, enabled=engine == "ddp bf16")


@contextmanager
def apart(model: nn.Module, last: bool) -> Iterator[None]:
    """Within the block gradients stay on their rank, but for those of the last micro-batch."""
    if isinstance(model, DistributedDataParallel):
        if last:
            yield
        else:
            with model.no_sync():
                yield
        return
    model.set_requires_gradient_sync(last)  # type: ignore[operator]
    yield


def whole(model: nn.Module) -> Grads:
    """Every gradient, gathered."""
    grads = {n.removeprefix("module."): p.grad for n, p in model.named_parameters()}
    return {n: g.full_tensor() if isinstance(g, DTensor) else g.clone() for n, g in grads.items() if g is not None}


def chip(model: nn.Module) -> int:
    """The seed of the chip that this process trains on."""
    (seed,) = {layer.substrate.chip_seed for _, layer in analog_layers(model)}  # type: ignore[attr-defined]
    return seed


def accumulate(model: nn.Module, engine: str, rank: int) -> list[int]:
    """The mean gradient of ``PARTS`` micro-batches on each rank; the chips of this one."""
    chips = []
    for number in range(PARTS):
        x, y = batch(number, rank)
        with apart(model, number == PARTS - 1):
            with precision(engine):
                loss = F.cross_entropy(model(x).float(), y) / PARTS
            loss.backward()
        chips.append(chip(model))
    return chips


def one_by_one(rank: int) -> list[Grads]:
    """Gradient of each micro-batch by a network that no engine has wrapped."""
    network, found = start(), []
    seed_ranks(SEED)
    for number in range(PARTS):
        x, y = batch(number, rank)
        network.zero_grad()
        F.cross_entropy(network(x), y).backward()
        found.append(whole(network))
    return found


def twice(engine: str, rank: int, *, checkpointed: bool) -> tuple[list[int], Grads]:
    """Chips of the first step, and the gradients of the second after a change of the weights."""
    network = start()
    network.checkpointed = checkpointed
    model = wrapped(engine, network)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    seed_ranks(SEED)
    chips = accumulate(model, engine, rank)
    optimizer.step()
    optimizer.zero_grad()
    accumulate(model, engine, rank)
    return chips, whole(model)


def trained(engine: str, rank: int) -> tuple[list[float], set[torch.dtype], torch.dtype]:
    """(losses, dtypes of parameters, gradients and the optimizer's state, dtype of the output)."""
    model = wrapped(engine, start())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    seed_ranks(SEED)
    losses = []
    for step in range(STEPS):
        x, y = batch(step, rank)
        optimizer.zero_grad()
        with precision(engine):
            out = model(x)
        loss = F.cross_entropy(out.float(), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    held = [*model.parameters(), *(p.grad for p in model.parameters()), *(
        s["momentum_buffer"] for s in optimizer.state.values()
    )]  # fmt: skip
    return losses, {t.dtype for t in held if t is not None}, out.dtype


@torch.no_grad()
def read_often(engine: str, hw: Hardware) -> Tensor:
    """Outputs of one layer for one input, each on a chip of its own: [passes, columns]."""
    torch.manual_seed(0)
    x = torch.rand(64, 64)
    layer = mho.calibrate(mho.convert(nn.Sequential(nn.Linear(64, 64)), hw), [x]).train()
    model = wrapped(engine, layer)
    seed_ranks(SEED)
    with precision(engine):
        return torch.cat([model(x[:1]).float() for _ in range(PASSES)])


def found_by(rank: int) -> dict[str, Any]:
    """All of it, for the tests to judge; float32 by DDP is what bfloat16 is held against."""
    told: dict[str, Any] = {"one by one": one_by_one(rank)}
    for engine in ENGINES:
        model = wrapped(engine, start())
        seed_ranks(SEED)
        told[engine] = {
            "chips": accumulate(model, engine, rank),
            "accumulated": whole(model),
            "plain": twice(engine, rank, checkpointed=False),
            "checkpointed": twice(engine, rank, checkpointed=True),
        }
        if engine != "fsdp":
            read = {hw.name: read_often(engine, hw) for hw in (STATIC, FRESH)}
            told[engine] |= {"trained": trained(engine, rank), "read": read}
    return told
