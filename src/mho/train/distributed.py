"""Several processes by torch's own engines: noise of each rank, and checkpoints that any number of ranks can go on
from.

A converted network is a plain module: ``DistributedDataParallel(analog)`` and ``fully_shard(layer)`` under
``torchrun`` work as for any other. Each rank then trains on a chip of its own at each step, and the mean gradient is
one over as many chips. What is left to do is here: the seeds, and where the state is kept.

Gradient accumulation: each forward pass is a new chip, so a step of K micro-batches on R ranks is the mean over K R
chips. Divide each loss by K, and keep the gradients of all but the last backward pass on their rank: ``with
model.no_sync()`` around forward and backward (DDP), ``model.set_requires_gradient_sync(last)`` before them (FSDP2).

bfloat16: ``torch.autocast`` around the forward pass (DDP), or ``MixedPrecisionPolicy(param_dtype=torch.bfloat16,
reduce_dtype=torch.float32)`` (FSDP2). Parameters, gradients and the optimizer stay float32, ranges too. Noise keeps its
law as long as it is well above bfloat16's step, 2^-8 of a number (train/README.md has figures).

Activation checkpointing (``torch.utils.checkpoint``) repeats chip, fresh noise and converter ranges to the bit, also
after further forward passes, as long as it keeps the generator (``preserve_rng_state``, the default).

Converter ranges are buffers. DDP sends those of rank 0 to all before a forward pass (not while gradients are
accumulated); under FSDP2 each rank follows its own data, and a checkpoint keeps those of one rank.
"""

import os
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from mho.errors import CheckpointError, TrainingError
from mho.nn.site import analog_layers
from mho.nn.surrogate import Surrogate
from mho.rng import derive_seed


def seed_ranks(seed: int, step: int = 0) -> int:
    """Seed torch's generator by (``seed``, ``step``, this process's rank) and return the seed.

    All noise of the surrogate comes from that generator: ranks are then independent, and a run with as many ranks is
    repeated to the bit. Call it once before the first step (and with the step of a resumed run): weights must be made
    before, or ranks start from different ones. Without a process group the rank is 0. Raises
    :class:`TrainingError` for a negative seed or step.
    """
    if seed < 0 or step < 0:
        raise TrainingError(f"seed_ranks: seed = {seed}, step = {step}. Fix: neither may be negative.")
    rank = dist.get_rank() if dist.is_initialized() else 0
    found = derive_seed(seed, "rank", rank, step)
    torch.manual_seed(found)
    return found


def save_sharded(
    folder: str | os.PathLike[str], model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int
) -> None:
    """Write weights, converter ranges, bounds and the optimizer's state; every rank calls it, each writes its shards.

    By ``torch.distributed.checkpoint``, so that :func:`load_sharded` may run on another number of processes, or on one
    without a process group. ``model``: plain, DDP or FSDP2.
    """
    weights, state = get_state_dict(model, optimizer)
    with _quiet():
        dcp.save({"model": weights, "optimizer": state, "step": torch.tensor(step)}, checkpoint_id=os.fspath(folder))


def load_sharded(folder: str | os.PathLike[str], model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Read what :func:`save_sharded` wrote into ``model`` and ``optimizer``; returns the step. Every rank calls it.

    The chip of the last step is forgotten: the next step draws its own. Raises :class:`CheckpointError` for a folder
    that holds no such checkpoint, or one of another network.
    """
    if not (Path(folder) / ".metadata").is_file():
        raise CheckpointError(f"{folder}: no sharded checkpoint is in it. Way out: the folder given to save_sharded.")
    weights, state = get_state_dict(model, optimizer)
    held = {"model": weights, "optimizer": state, "step": torch.tensor(0)}
    try:
        with _quiet():
            dcp.load(held, checkpoint_id=os.fspath(folder))
    except (RuntimeError, ValueError, KeyError, dcp.CheckpointException) as error:
        cause = str(error).strip().splitlines()[-1]
        raise CheckpointError(
            f"{folder}: does not fit this network: {cause}. Way out: build and convert the network as it was saved."
        ) from error
    set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
    for _, layer in analog_layers(model):
        if isinstance(layer.substrate, Surrogate):
            layer.substrate.new_chip()
    return int(held["step"])


class _quiet(warnings.catch_warnings):
    """torch warns that without a process group one process saves all: that is meant."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", module=r"torch\.distributed")
