"""The compiled sampler: built on first use into the same cache as the kernels of the crossbar, never needed."""

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from mho.crossbar.kernels.build import Built
from mho.crossbar.kernels.build import build as build_library
from mho.crossbar.kernels.native import Native, find_parallel
from mho.ebm.spins.graph import Graph

_POINTER, _COUNT, _SEED, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint64, ctypes.c_int
_ARGUMENTS = (*(_POINTER,) * 9, *(_COUNT,) * 4, _SEED, _INT, _INT, _POINTER, _INT)
_ALIGNED = 64


@dataclass(frozen=True, eq=False)
class Layout:
    """A graph's adjacency as the kernel reads it: int64 offsets, int32 neighbours, and each place's edge (int64)."""

    nodes: int
    offsets: Tensor
    neighbours: Tensor
    edge: Tensor

    @classmethod
    def of(cls, graph: Graph) -> "Layout":
        """The layout of ``graph``."""
        offsets, neighbours, edge = graph.adjacency
        return cls(graph.nodes, offsets.contiguous(), neighbours.to(torch.int32).contiguous(), edge)


def build(cache: Path | None = None, folder: Path | None = None) -> Built:
    """The library for this machine, compiled if the cache lacks it. Never raises: ``reason`` says what went wrong."""
    return build_library(cache, folder or Path(__file__).parent, ("gibbs.c",))


def load(built: Built) -> Native:
    """The library, or none and the reason. Never raises."""
    if built.path is None:
        return Native(None, None, built.reason)
    try:
        library = ctypes.CDLL(str(built.path))
        library.mho_gibbs.argtypes = _ARGUMENTS
        library.mho_gibbs.restype = None
        library.mho_wrong_spins.argtypes = (_POINTER, _COUNT)
        library.mho_wrong_spins.restype = _COUNT
    except (OSError, AttributeError) as error:
        return Native(None, None, f"{built.path} cannot be loaded: {error}; delete the file to compile it again")
    parallel = find_parallel()
    threads = "torch's OpenMP threads" if parallel else "one thread (torch here has no GNU-compatible OpenMP)"
    return Native(library, parallel, f"{built.reason}, on {threads}")


@cache
def native() -> Native:
    """Built and loaded on the first call in a process; later calls are free."""
    return load(build())


def available() -> bool:
    """Whether the compiled sampler runs; if not, plain torch does (same spins, slower). Compiles on first use."""
    return native().library is not None


def status() -> str:
    """One sentence: by which compiler and where the sampler was compiled, or why it could not be."""
    return native().reason


def wrong_spins(spins: Tensor) -> int:
    """How many of ``spins`` (int8, contiguous, CPU) are neither -1 nor +1: in one pass, where torch takes four."""
    library = native().library
    assert library is not None  # the caller asked `available`
    return int(library.mho_wrong_spins(spins.data_ptr(), spins.numel()))


def run(
    layout: Layout,
    spins: Tensor,
    blocks: tuple[Tensor, ...],
    couplings: Tensor,
    biases: Tensor,
    gains: Tensor,
    seed: int,
    sweeps: int,
) -> Tensor:
    """What :func:`mho.ebm.spins.reference.sweep_blocks` computes, for ``spins`` [B, N]; a new tensor of their dtype.

    ``biases`` [N] or [B, N], ``gains`` [N] = 2 beta / ln 2, ``couplings`` [E]; float32, CPU. No noise with a memory.
    """
    library, parallel = native().library, native().parallel
    assert library is not None  # the caller asked `available`
    start = spins.to(torch.int8).contiguous()
    order = torch.cat([*blocks, torch.zeros(0, dtype=torch.int64)]).to(torch.int32)
    if start.numel() == 0 or order.numel() == 0 or sweeps == 0:
        return spins.clone()
    state = torch.empty_like(start)
    threads, chains = torch.get_num_threads(), start.shape[0]
    lanes = 32 if chains >= 32 * threads else 16
    own = int(biases.dim() == 2)
    groups = -(-chains // lanes)
    scratch = torch.empty(groups * layout.nodes * lanes * (1 + own) + _ALIGNED // 4)
    aligned = scratch.data_ptr() + (-scratch.data_ptr()) % _ALIGNED
    weights, biases, gains = couplings[layout.edge].contiguous(), biases.contiguous(), gains.contiguous()
    library.mho_gibbs(
        start.data_ptr(), state.data_ptr(), aligned, weights.data_ptr(), biases.data_ptr(), gains.data_ptr(),
        layout.offsets.data_ptr(), layout.neighbours.data_ptr(), order.data_ptr(), chains, layout.nodes, order.numel(),
        sweeps, seed, lanes, own, parallel, threads,
    )  # fmt: skip
    return state.to(spins.dtype)
