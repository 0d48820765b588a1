"""Measurements of one network that outlive the run: an evaluation of hours is not made twice."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import mho
from mho.evaluation.result import Result


@torch.no_grad()
def fingerprint(network: nn.Module, conditions: Mapping[str, Any]) -> str:
    """16 hex digits of every tensor of ``network``, of ``conditions`` (what JSON can hold) and of mho's version."""
    digest = hashlib.blake2b(json.dumps([mho.__version__, conditions], sort_keys=True).encode(), digest_size=8)
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def kept_at(folder: Path, seed: int, what: str, key: str) -> Path:
    """Where the measurement ``what`` of a network of training seed ``seed`` lies."""
    return folder / f"seed-{seed}" / "measured" / f"{what}-{key}.npz"


def keep(path: Path, result: Result) -> Result:
    """Write ``result`` in place of every measurement of the same thing under another fingerprint."""
    for old in path.parent.glob(f"{path.stem.rpartition('-')[0]}-*.npz"):
        old.unlink(missing_ok=True)
    result.save(path)
    return result
