"""Checkpoints that survive a kill at any moment: safetensors for tensors, TOML for the rest.

::

    <folder>/LATEST                     the name of the newest complete save
    <folder>/save-000007/               written under another name, synced, then renamed
        weights.safetensors             parameters and buffers, tied ones once
        optimizer.safetensors           its tensors; its structure in the header
        extra.safetensors               random state, moving average
        state.toml                      position, history, settings, versions
        SHA256SUMS                      of the four files (``sha256sum -c`` reads it)

The last two saves are kept. One run writes to a folder at a time.
"""

import contextlib
import copy
import hashlib
import json
import os
import shutil
import tomllib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from mho.errors import CheckpointError
from mho.train.pack import Tensors, pack, share_once, unpack

_WEIGHTS, _OPTIMIZER, _EXTRA = "weights.safetensors", "optimizer.safetensors", "extra.safetensors"
_STATE, _SUMS, _LATEST = "state.toml", "SHA256SUMS", "LATEST"


@dataclass(frozen=True)
class Checkpoint:
    """What :func:`load_checkpoint` read: CPU tensors by name, the optimizer's state, the state table."""

    path: Path
    weights: Tensors
    optimizer: dict[str, Any] | None
    extra: Tensors
    state: dict[str, Any]

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Copy the stored values into ``model`` and ``optimizer``.

        Raises :class:`CheckpointError` where names or shapes differ, before the optimizer is touched.
        """
        try:
            model.load_state_dict(self.weights)
            if optimizer is not None and self.optimizer is not None:
                # A copy: torch steps on the very tensors that it is given.
                optimizer.load_state_dict(copy.deepcopy(self.optimizer))
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{self.path}: does not fit this model or optimizer: {error}. "
                "Fix: build the model of the run that wrote it, or choose another folder."
            ) from error


def _sync(path: Path) -> None:
    """Ask the disk to hold ``path`` (a file, or a folder's names) before anything that follows."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _saves(folder: Path) -> list[Path]:
    """Complete saves, oldest first."""
    names = [p for p in folder.glob("save-*") if p.name.removeprefix("save-").isdigit()]
    return sorted(names, key=lambda p: int(p.name.removeprefix("save-")))


def _write_files(folder: Path, files: Mapping[str, tuple[Tensors, dict[str, str]]], state: str) -> None:
    """All files of one save and their sums, each synced."""
    folder.mkdir()
    for name, (tensors, header) in files.items():
        save_file(tensors, folder / name, header)
    (folder / _STATE).write_text(state)
    names = [*files, _STATE]
    (folder / _SUMS).write_text("".join(f"{_digest(folder / name)}  {name}\n" for name in names))
    for name in [*names, _SUMS]:
        _sync(folder / name)
    _sync(folder)


def _point(folder: Path, name: str) -> None:
    """Make ``name`` the newest save, in one atomic replacement of LATEST."""
    temporary = folder / f".tmp-{os.getpid()}-latest"
    temporary.write_text(name + "\n")
    _sync(temporary)
    os.replace(temporary, folder / _LATEST)
    _sync(folder)


def _prune(folder: Path, keep: int) -> None:
    """Delete all saves but the last ``keep``; renamed first, so that half a save never has a save's name."""
    for old in _saves(folder)[:-keep]:
        gone = folder / f".tmp-{os.getpid()}-{old.name}"
        with contextlib.suppress(OSError):  # An old save too many harms nobody; the next save tries again.
            os.replace(old, gone)
            shutil.rmtree(gone)


def save_checkpoint(
    folder: str | os.PathLike[str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    state: Mapping[str, Any] | None = None,
    *,
    extra: Mapping[str, torch.Tensor] | None = None,
    keep: int = 2,
) -> Path:
    """Write one save into ``folder`` (made if missing) and return its path.

    ``state`` is what TOML can hold (no None); ``extra`` are further tensors. After a kill at any moment
    :func:`load_checkpoint` finds either the old save or this one, whole. Raises :class:`CheckpointError`
    when the disk is full or the folder cannot be written; the saves before stay as they were.
    """
    root = Path(folder)
    weights, alias = share_once(model.state_dict())
    more, more_alias = share_once(extra or {})
    structure, tensors = pack(optimizer.state_dict() if optimizer is not None else None)
    moments, moments_alias = share_once(tensors)
    files = {
        _WEIGHTS: (weights, {"alias": json.dumps(alias)}),
        _OPTIMIZER: (moments, {"alias": json.dumps(moments_alias), "structure": structure}),
        _EXTRA: (more, {"alias": json.dumps(more_alias)}),
    }
    text = tomli_w.dumps({"format": 1, **(state or {})})
    temporary = root / f".tmp-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for stale in root.glob(".tmp-*"):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        _write_files(temporary, files, text)
        last = _saves(root)[-1:]
        serial = int(last[0].name.removeprefix("save-")) + 1 if last else 1
        target = root / f"save-{serial:06d}"
        os.replace(temporary, target)
        _sync(root)
        _point(root, target.name)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(
            f"{root}: the checkpoint cannot be written: {error}. What was saved before is intact. "
            "Fix: free space or make the folder writable, then resume; or choose another folder."
        ) from error
    _prune(root, keep)
    return target


def _read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    for name, stored in json.loads(header.get("alias", "{}")).items():
        tensors[name] = tensors[stored]
    return tensors, header


def _read(save: Path) -> Checkpoint:
    """One save, its sums checked. Raises :class:`CheckpointError` naming the file that is not as written."""
    try:
        lines = (save / _SUMS).read_text().splitlines()
        sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
        for name in (_WEIGHTS, _OPTIMIZER, _EXTRA, _STATE):
            if sums.get(name) != _digest(save / name):
                raise CheckpointError(f"{save / name}: not what its SHA-256 says (truncated or changed)")
        weights, _ = _read_tensors(save / _WEIGHTS)
        moments, header = _read_tensors(save / _OPTIMIZER)
        extra, _ = _read_tensors(save / _EXTRA)
        state = tomllib.loads((save / _STATE).read_text())
        return Checkpoint(save, weights, unpack(header["structure"], moments), extra, state)
    except CheckpointError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{save}: cannot be read: {error}") from error


def load_checkpoint(folder: str | os.PathLike[str]) -> Checkpoint | None:
    """The newest complete save of ``folder``; None where there is none.

    A damaged save is left for the one before it, with a warning that names the file. Raises
    :class:`CheckpointError` when every save is damaged.
    """
    root = Path(folder)
    saves = _saves(root)[::-1]
    with contextlib.suppress(OSError):
        name = (root / _LATEST).read_text().strip()
        saves.sort(key=lambda save: save.name != name)
    problems: list[str] = []
    for save in saves:
        try:
            found = _read(save)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if problems:
            warnings.warn(f"{'; '.join(problems)}. Going back to {save}.", stacklevel=2)
        return found
    if problems:
        raise CheckpointError(
            f"{'; '.join(problems)}. No complete save is left. "
            f"Fix: restore {root} from a copy, or delete it and train again."
        )
    return None
