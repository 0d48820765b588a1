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

Bounded weights (``clip_sigma``): call ``mho.nn.project_(model)`` after each step of the optimizer, as ``mho.fit`` does.
A forward pass clips all the same, but nothing else keeps the weights themselves within their bounds.

Converter ranges are buffers. DDP sends those of rank 0 to all before a forward pass (not while gradients are
accumulated); under FSDP2 each rank follows its own data, and a checkpoint keeps those of one rank.
"""

import os
import shutil
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from mho.errors import CheckpointError, TrainingError
from mho.evaluation.atomic import write_atomically
from mho.nn.site import analog_layers
from mho.nn.surrogate import Surrogate
from mho.rng import derive_seed

CURRENT = "CURRENT"
"""The file in a folder of sharded saves that names the one that counts."""


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
    without a process group. ``model``: plain, DDP or FSDP2. ``folder``: the same for all ranks, on a file system that
    all of them see.

    A save goes into a part of ``folder`` of its own; when it is whole, the file ``CURRENT`` names it and the former one
    is removed. A process that is killed at any moment leaves the former save or the new one.
    """
    weights, state = get_state_dict(model, optimizer)
    whole = {"model": weights, "optimizer": state, "step": torch.tensor(step)}
    place, rank = Path(folder), dist.get_rank() if dist.is_initialized() else 0
    former = _current(place)
    name = _of_first_rank("second" if former == place / "first" else "first")
    if rank == 0:
        shutil.rmtree(place / name, ignore_errors=True)  # what a killed save left
    _wait_for_all()
    with _quiet():
        dcp.save(whole, checkpoint_id=os.fspath(place / name))
    _wait_for_all()
    if rank == 0:
        write_atomically(place / CURRENT, name.encode())
        if former != place:
            shutil.rmtree(former, ignore_errors=True)
    _wait_for_all()  # nobody loads before it is named


def load_sharded(folder: str | os.PathLike[str], model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Read what :func:`save_sharded` wrote into ``model`` and ``optimizer``; returns the step. Every rank calls it.

    The chip of the last step is forgotten: the next step draws its own. Raises :class:`CheckpointError` for a folder
    that holds no such checkpoint, or one of another network.
    """
    place = _current(Path(folder))
    if not (place / ".metadata").is_file():
        raise CheckpointError(f"{folder}: no sharded checkpoint is in it. Way out: the folder given to save_sharded.")
    weights, state = get_state_dict(model, optimizer)
    held = {"model": weights, "optimizer": state, "step": torch.tensor(0)}
    try:
        with _quiet():
            dcp.load(held, checkpoint_id=os.fspath(place))
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


def _current(folder: Path) -> Path:
    """Where the last whole save in ``folder`` lies; without a ``CURRENT`` the folder itself, as torch alone writes."""
    named = folder / CURRENT
    return folder / named.read_text(encoding="utf-8") if named.is_file() else folder


def _of_first_rank(text: str) -> str:
    """``text`` of rank 0, on every rank: others may see a shared file system late."""
    told: list[str] = [text]
    if dist.is_initialized():
        dist.broadcast_object_list(told)
    return told[0]


def _wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()


class _quiet(warnings.catch_warnings):
    """torch warns that without a process group one process saves all: that is meant."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.filterwarnings("ignore", module=r"torch\.distributed")
