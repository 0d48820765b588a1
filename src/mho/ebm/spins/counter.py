"""Random bits by counter: the word of (seed, sweep, spin, chain) is a function of these four and of nothing else.

So a chain is the same for every number of chains beside it, of threads, on every device, and in the compiled kernel.
Integers of 64 bits that wrap around are exact in torch everywhere; words of 32 bits are kept in them.
"""

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFF
_CHAINS, _UPDATES = 1, 2
"""Names of the two streams of keys of a seed."""


def _signed(value: int) -> int:
    """The 64 bits of ``value`` as torch's int64 spells them."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _shifted(x: Tensor, by: int) -> Tensor:
    """x >> by of an unsigned number of 64 bits."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def mix64(x: Tensor) -> Tensor:
    """The finaliser of splitmix64 on int64 [any]: a bijection in which each bit depends on all."""
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def mix32(x: Tensor) -> Tensor:
    """A bijection of 32 bits, held in int64 (constants: C. Wellons, "hash-prospector", public domain)."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def _keys(seed: int, stream: int, index: Tensor) -> tuple[Tensor, Tensor]:
    """The low and the high 32 bits of the key of each index (int64)."""
    start = mix64(torch.tensor(_signed(seed + stream * _GOLDEN)))
    key = mix64(start + (index + 1) * _signed(_GOLDEN))
    return key & _MASK, _shifted(key, 32)


def chain_keys(seed: int, chains: int) -> tuple[Tensor, Tensor]:
    """(p, q), each [chains]."""
    return _keys(seed, _CHAINS, torch.arange(chains))


def update_keys(seed: int, sweep: int, nodes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(a, b) of the update of ``nodes`` [n] in sweep ``sweep`` of a graph of ``count`` nodes."""
    return _keys(seed, _UPDATES, nodes.cpu() + sweep * count)


def words(update: tuple[Tensor, Tensor], chain: tuple[Tensor, Tensor]) -> Tensor:
    """Uniform words of 32 bits [n, chains] in int64: mix32((mix32(p ^ a) ^ q) + b)."""
    (a, b), (p, q) = update, chain
    inner = mix32(a[:, None] ^ p[None, :]) ^ q[None, :]
    return mix32((inner + b[:, None]) & _MASK)


def words_of(seed: int, *, sweeps: int, nodes: int, chains: int) -> Tensor:
    """All words of a run, [sweeps, nodes, chains] in int64: to look at, or to drive a model of the circuit with."""
    chain, node = chain_keys(seed, chains), torch.arange(nodes)
    return torch.stack([words(update_keys(seed, sweep, node, nodes), chain) for sweep in range(sweeps)])
