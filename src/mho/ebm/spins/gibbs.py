"""Block Gibbs sampling: all spins of a colour at once, many chains side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from mho.ebm.spins import kernel, reference
from mho.ebm.spins.graph import Graph, check_colours
from mho.ebm.spins.ising import check_parameters, check_spins
from mho.ebm.spins.pbit import PBit
from mho.errors import InputError


@dataclass(frozen=True, eq=False)
class BlockGibbs:
    """Draws from p(s) ~ exp(-beta E(s)) by p(s_i = +1 | rest) = sigmoid(2 beta (h_i + sum_j J_ij s_j)).

    ``blocks``: index tensors that partition the nodes (default: the graph's colours), swept in their order. ``pbit``:
    what the p-bits do wrong, fixed by ``chip_seed``. On the CPU a compiled kernel does the work. Plain torch gives the
    same spins, slower; it runs for other devices, for noise with a memory, and where ``compiled`` is False.

    Raises :class:`mho.errors.InputError` for blocks with an edge inside.
    """

    graph: Graph
    blocks: Sequence[Tensor] | None = None
    pbit: PBit = field(default_factory=PBit)
    chip_seed: int = 0
    compiled: bool = True

    def __post_init__(self) -> None:
        if self.blocks is not None:
            check_colours(self.graph, self.blocks)

    @cached_property
    def order(self) -> tuple[Tensor, ...]:
        """The blocks in use."""
        return self.graph.blocks if self.blocks is None else tuple(self.blocks)

    @cached_property
    def layout(self) -> kernel.Layout:
        """The graph as the kernel reads it."""
        return kernel.Layout.of(self.graph)

    def memory(self, spins: Tensor) -> Tensor | None:
        """What the noise of p-bits with ``correlation`` remembers, before it begins, for ``spins`` [B, N].

        [B, N] float64 of NaN, which :meth:`run` and :meth:`collect` write; ``None`` where noise remembers nothing.
        """
        if self.pbit.correlation == 0:
            return None
        return torch.full(spins.shape, math.nan, dtype=torch.float64, device=spins.device)

    def run(
        self,
        spins: Tensor,
        couplings: Tensor,
        biases: Tensor,
        beta: float = 1.0,
        sweeps: int = 1,
        *,
        generator: torch.Generator,
        clamped: Tensor | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """``sweeps`` updates of every free spin; a new tensor of the shape, dtype and device of ``spins``.

        ``spins`` [B, N] of -1 and +1; ``couplings`` [E]; ``biases`` [N], or [B, N] where each chain has its own field;
        ``clamped`` [N] bool: nodes that keep their values (of each chain's own). One seed is drawn from ``generator``;
        the result is a function of it and of the chain's number, not of threads, device or the chains beside it.
        ``memory``: of :meth:`memory`, changed in place, so that noise with ``correlation`` goes on from the run before;
        without it the noise begins anew here.

        Raises :class:`mho.errors.InputError` for shapes that do not fit, spins that are not +-1, NaN couplings, a
        temperature of zero or below, and fewer than 0 sweeps.
        """
        check_parameters(self.graph, couplings, biases, beta)
        check_spins(self.graph, spins)
        if biases.dim() == 2 and biases.shape[0] != spins.shape[0]:
            raise InputError(f"mho.ebm.spins: biases of {biases.shape[0]} chains for spins of {spins.shape[0]}.")
        if sweeps < 0:
            raise InputError(f"mho.ebm.spins: {sweeps} sweeps; give 0 or more.")
        if memory is not None and (memory.shape != spins.shape or memory.dtype != torch.float64):
            raise InputError(
                f"mho.ebm.spins: memory {tuple(memory.shape)} {memory.dtype} for spins {tuple(spins.shape)}. Fix: "
                "BlockGibbs.memory(spins), float64 of the same shape."
            )
        blocks = self._free(clamped)
        seed = int(torch.randint(0, 2**62, (1,), generator=generator, device=generator.device))
        device = spins.device
        with torch.no_grad():
            j, h = (t.detach().to(device, torch.float32) for t in (couplings, biases))
            gains = (self.pbit.gains(self.graph.nodes, beta, self.chip_seed) * reference.LOG2E).to(device)
            offsets = self.pbit.offsets(self.graph.nodes, self.chip_seed)
            h = h if offsets is None else h + offsets.to(device)
            if self.compiled and self.pbit.correlation == 0 and device.type == "cpu" and kernel.available():
                return kernel.run(self.layout, spins, blocks, j, h, gains, seed, sweeps)
            state = spins.t().to(torch.float32, memory_format=torch.contiguous_format, copy=True).contiguous()
            columns = h.t() if h.dim() == 2 else h[:, None]
            rho, past = self.pbit.correlation, None if memory is None else memory.t()
            reference.sweep_blocks(state, self.graph, blocks, j, columns, gains, seed, sweeps, rho, past)
            return state.t().to(spins.dtype).contiguous()

    def collect(
        self,
        spins: Tensor,
        couplings: Tensor,
        biases: Tensor,
        beta: float = 1.0,
        *,
        samples: int,
        every: int = 1,
        generator: torch.Generator,
        clamped: Tensor | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """``samples`` states of each chain [samples, B, N], ``every`` sweeps apart; the last one is their new state.

        Arguments and errors as in :meth:`run`. Noise with a memory keeps it from sample to sample.
        """
        kept = []
        memory = self.memory(spins) if memory is None else memory
        for _ in range(samples):
            spins = self.run(spins, couplings, biases, beta, every, generator=generator, clamped=clamped, memory=memory)
            kept.append(spins)
        return torch.stack(kept)

    def _free(self, clamped: Tensor | None) -> tuple[Tensor, ...]:
        """The blocks without the clamped nodes."""
        if clamped is None:
            return self.order
        if clamped.shape != (self.graph.nodes,) or clamped.dtype != torch.bool:
            raise InputError(
                f"mho.ebm.spins: clamped {tuple(clamped.shape)} {clamped.dtype} must be bool [{self.graph.nodes}], the "
                "same nodes for all chains."
            )
        free = ~clamped.cpu()
        return tuple(block[free[block]] for block in self.order)
