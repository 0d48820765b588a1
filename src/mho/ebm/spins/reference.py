"""Block Gibbs sampling in plain torch: what the compiled kernel means, bit for bit, on any device."""

import math

import torch
from torch import Tensor

from mho.ebm.spins.counter import chain_keys, update_keys, words
from mho.ebm.spins.graph import Graph

LOG2E = 1.0 / math.log(2.0)
_POWER = (
    0.00021701946388930082, 0.0012439778074622154, 0.009678831323981285, 0.05548334866762161, 0.24022983014583588,
    0.6931470036506653, 1.0,
)  # fmt: skip
"""2^f on [0, 1) by Horner's rule, relative error 8e-8 in float32 (own fit)."""
_LARGEST = 115.0


def flips_against(logit2: Tensor) -> Tensor:
    """1 + 2^|x|: one over the probability that a spin points against its field; x = 2 beta field / ln 2 (float32)."""
    z = logit2.abs().clamp(max=_LARGEST)
    whole = z.floor()
    part = z - whole
    power = torch.full_like(part, _POWER[0])
    for coefficient in _POWER[1:]:
        power = power * part + coefficient
    scale = ((whole.to(torch.int32) + 127) << 23).view(torch.float32)
    return power * scale + 1.0


def decide(logit2: Tensor, word: Tensor) -> Tensor:
    """+1 where u < sigmoid(x ln 2), else -1 (float32), for words of 32 bits; u = (word >> 1 + 1/2) / 2^31.

    The smaller of the two probabilities is compared, so both tails are alike: relative error 4e-7 and absolute 2.3e-10;
    what is below 2^-32 does not happen. u is monotone in the word and the spin in x: two chains with the same words
    keep their order.
    """
    negative = logit2 < 0
    near_end = torch.where(negative, word, word ^ 0xFFFFFFFF)  # 1 - u where the smaller probability is at u's upper end
    w = (near_end >> 1).to(torch.float32) + 0.5
    against = w * flips_against(logit2) < 2147483648.0
    return torch.where(against ^ negative, -1.0, 1.0)


def coloured(word: Tensor, before: Tensor, correlation: float) -> tuple[Tensor, Tensor]:
    """(words, g): the words through the normal AR(1) process g' = rho g + sqrt(1 - rho^2) n, in float64.

    Where ``before`` is NaN the process begins: g' = n.
    """
    normal = torch.special.ndtri((word.to(torch.float64) + 0.5) / 2**32)
    g = torch.where(before.isnan(), normal, correlation * before + math.sqrt(1 - correlation**2) * normal)
    return (torch.special.ndtr(g) * 2**32).floor().clamp(max=2**32 - 1).to(torch.int64), g


def sweep_blocks(
    spins: Tensor,
    graph: Graph,
    blocks: tuple[Tensor, ...],
    couplings: Tensor,
    biases: Tensor,
    gains: Tensor,
    seed: int,
    sweeps: int,
    correlation: float = 0.0,
    memory: Tensor | None = None,
) -> Tensor:
    """``sweeps`` passes over ``blocks``, each block at once. ``spins`` [N, B] float32 of +-1, changed in place.

    ``couplings`` [E], ``biases`` [N, 1] or [N, B], ``gains`` [N] = 2 beta / ln 2, float32, all on one device; nodes
    outside the blocks keep their values. Fields are summed in the order of the edges. ``memory`` [N, B] float64: g of
    the noise with ``correlation``, NaN where it has yet to begin, changed in place; default: it begins here.
    """
    device = spins.device
    near, which = (t.to(device) for t in graph.table)
    weights = torch.cat([couplings, couplings.new_zeros(1)])[which]
    p, q = (key.to(device) for key in chain_keys(seed, spins.shape[1]))
    if correlation > 0 and memory is None:
        memory = torch.full(spins.shape, math.nan, dtype=torch.float64, device=device)
    for sweep in range(sweeps):
        for block in blocks:
            a, b = (key.to(device) for key in update_keys(seed, sweep, block, graph.nodes))
            here = block.to(device)
            field = biases[here].expand(-1, spins.shape[1]).clone()
            for slot in range(near.shape[1]):
                field += weights[here, slot, None] * spins[near[here, slot]]
            word = words((a, b), (p, q))
            if memory is not None and correlation > 0:
                word, memory[here] = coloured(word, memory[here], correlation)
            spins[here] = decide(field * gains[here, None], word)
    return spins
