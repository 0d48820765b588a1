"""Training by one process, by two with DDP and by two with FSDP2; importable by a spawned process."""

import json
from pathlib import Path

import distributed_gradients
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import mho
from mho.hardware import Hardware, Mapping
from mho.nn.site import analog_layers
from mho.train.distributed import load_sharded, save_sharded, seed_ranks

STEPS, BATCH = 60, 64


def start() -> nn.Module:
    """The network from which all begin."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 4))
    return mho.convert(net, "generic", clip_sigma=2.5).train()


def data() -> tuple[Tensor, Tensor]:
    """Four blobs that overlap."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(4, 12, generator=generator)
    y = torch.arange(1024) % 4
    return centres[y] + 1.2 * torch.randn(1024, 12, generator=generator), y


def train(model: nn.Module, optimizer: torch.optim.Optimizer, rank: int, ranks: int, first: int = 0) -> list[float]:
    """Steps ``first`` to ``STEPS``; each rank takes its share of the same global batches. The losses of this rank."""
    x, y = data()
    losses = []
    for step in range(first, STEPS):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(step))[:BATCH]
        own = order[rank::ranks]
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[own]), y[own])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """The same for all."""
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)


def shard(network: nn.Module) -> None:
    """FSDP2 over two processes."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in (network[0], network[2]):  # type: ignore[index]
        fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)


def chips(network: nn.Module) -> list[int | None]:
    """The seeds of the chips that this process trains on."""
    return [layer.substrate.chip_seed for _, layer in analog_layers(network)]  # type: ignore[attr-defined]


def bounded() -> nn.Module:
    """A layer with one bound a column, and weights far beyond; five rows are no even number of shards."""
    torch.manual_seed(0)
    hw = Hardware(name="bounded", mapping=Mapping(per_column=True))
    network = mho.convert(nn.Sequential(nn.Linear(6, 5)), hw, clip_sigma=1.5)
    torch.nn.init.normal_(network[0].weight, std=5.0)  # type: ignore[index]
    return network


def projected(network: nn.Module) -> Tensor:
    """The weight after :func:`mho.nn.project_`, gathered."""
    mho.nn.project_(network)
    weight = network[0].weight.detach()  # type: ignore[index]
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def pair(rank: int, folder: str) -> None:
    """DDP, FSDP2, a checkpoint in the middle of FSDP2's run, going on from it on two processes, and gradients."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    network = start()
    model = DistributedDataParallel(network)
    seed_ranks(7)
    told = {"ddp": train(model, optimizer_of(model), rank, 2), "chips": chips(network)}

    network = start()
    shard(network)
    optimizer = optimizer_of(network)
    seed_ranks(7)
    told["fsdp"] = train(network, optimizer, rank, 2)
    save_sharded(Path(folder) / "at-the-end", network, optimizer, step=STEPS)

    network = start()
    shard(network)
    optimizer = optimizer_of(network)
    told["step"] = load_sharded(Path(folder) / "at-the-end", network, optimizer)
    told["on two"] = train(network, optimizer, rank, 2, first=STEPS - 5)
    sharded = fully_shard(bounded(), mesh=init_device_mesh("cpu", (2,)))
    torch.save(projected(sharded), Path(folder) / f"projected{rank}.pt")
    torch.save(distributed_gradients.found_by(rank), Path(folder) / f"gradients{rank}.pt")
    (Path(folder) / f"told{rank}.json").write_text(json.dumps(told))
    dist.destroy_process_group()
