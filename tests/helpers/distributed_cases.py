"""What each of two processes does in the tests of DDP and FSDP2; importable by a spawned process."""

from pathlib import Path

import torch
import torch.distributed as dist
from small_networks import NOISY
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import mho


def start() -> nn.Module:
    """The network from which both begin."""
    torch.manual_seed(0)
    return mho.convert(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)), NOISY).train()


def both(rank: int, folder: str) -> None:
    """DDP, then FSDP2, in one pair of processes: starting them is what takes the time."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    _data_parallel(rank, folder)
    _sharded(rank, folder)
    dist.destroy_process_group()


def _data_parallel(rank: int, folder: str) -> None:
    """Three steps of different batches and noise: both ranks end with the same weights."""
    network = start()
    model = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.manual_seed(100 + rank)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 6)).square().sum().backward()
        optimizer.step()
    torch.save(network.state_dict(), Path(folder) / f"ddp{rank}.pt")


def _sharded(rank: int, folder: str) -> None:
    """Three steps of FSDP2; the whole weights are gathered and saved."""
    network = start()
    mesh = init_device_mesh("cpu", (2,))
    for layer in (network[0], network[2]):  # type: ignore[index]
        fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    torch.manual_seed(7)
    x = torch.randn(4, 6)
    for _ in range(3):
        optimizer.zero_grad()
        network(x).square().sum().backward()
        optimizer.step()
    whole = {n: p.detach().full_tensor() for n, p in network.named_parameters()}
    torch.save(whole, Path(folder) / f"fsdp{rank}.pt")
