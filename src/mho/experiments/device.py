"""Where a run computes: a name checked before anything is read or written."""

import torch

from mho.errors import InputError


def usable_device(device: str | torch.device) -> torch.device:
    """``device`` ("cpu", "cuda", "cuda:1") as torch has it.

    Raises :class:`InputError` for a name that means no such device, and for a GPU that is not there.
    """
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device = {device!r}: torch knows no such device. Fix: cpu, cuda, or cuda:0.") from error
    if found.type not in ("cpu", "cuda"):
        raise InputError(f"device = {device!r}: runs are tested on cpu and cuda only. Fix: one of them.")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device = {device!r}: torch sees {torch.cuda.device_count()} GPUs here. Fix: --device cpu, or a build of "
            "torch with CUDA on a machine with a GPU."
        )
    return found
