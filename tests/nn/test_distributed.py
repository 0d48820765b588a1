"""Two processes: DDP (gloo) and FSDP2 on a converted network."""

from pathlib import Path

import distributed_cases
import pytest
import torch
from small_networks import NOISY
from torch import nn

import mho


def test_two_processes(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(distributed_cases.both, (str(tmp_path),), nprocs=2)
    ddp, fsdp = ([torch.load(tmp_path / f"{kind}{rank}.pt") for rank in range(2)] for kind in ("ddp", "fsdp"))
    network = distributed_cases.start()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    # FSDP had the same seed and batch on both ranks: what one process does alone.
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    torch.manual_seed(7)
    x = torch.randn(4, 6)
    for _ in range(3):
        optimizer.zero_grad()
        network(x).square().sum().backward()
        optimizer.step()
    for key, parameter in network.named_parameters():
        assert torch.equal(ddp[0][key], ddp[1][key])
        assert not torch.equal(ddp[0][key], before[key])
        assert torch.equal(fsdp[0][key], fsdp[1][key])
        assert torch.allclose(fsdp[0][key], parameter, atol=1e-5), key


@pytest.mark.parametrize("training", [True, False])
def test_data_parallel_wrapper_on_the_cpu_passes_through(training: bool) -> None:
    network = mho.calibrate(mho.convert(nn.Linear(6, 3), NOISY), [torch.randn(4, 6)])
    assert nn.DataParallel(network).train(training)(torch.randn(4, 6)).shape == (4, 3)
