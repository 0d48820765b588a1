"""Random streams that depend on names and seeds alone.

A chip is a seed: ``stream(chip_seed, "layer1.0.conv.weight", "programming")`` is the same sequence
for ever, whatever was drawn before, on however many workers. Always on the CPU, in float32.
"""

import hashlib

import torch

Path = str | int


def derive_seed(*path: Path) -> int:
    """A 63-bit seed from a path of names and integers (BLAKE2b of its unambiguous spelling).

    >>> derive_seed(0, "a") == derive_seed(0, "a")
    True
    >>> derive_seed(1, "2") == derive_seed("1", 2)
    False
    """
    spelling = "\x1f".join(f"{type(part).__name__}:{part}" for part in path)
    digest = hashlib.blake2b(spelling.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def stream(*path: Path) -> torch.Generator:
    """A CPU generator seeded by :func:`derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(*path))


def normals(shape: tuple[int, ...], *path: Path) -> torch.Tensor:
    """Standard normals of ``shape`` (float32, CPU) from the stream of ``path``.

    torch fills short tensors (< 16 elements) by another algorithm than long ones, so at least 16
    are drawn: a prefix of the stream is then the same for every length.
    """
    count = 1
    for size in shape:
        count *= size
    return torch.randn(max(count, 16), generator=stream(*path))[:count].reshape(shape)


def uniforms(shape: tuple[int, ...], *path: Path) -> torch.Tensor:
    """Uniforms on [0, 1) of ``shape`` (float32, CPU) from the stream of ``path``."""
    return torch.rand(shape, generator=stream(*path))
