"""Relaxation of a system to its state of rest, with a stopping rule and a certificate.

A system says how one sweep moves its states and how far they are from rest. Nothing here knows what it is made of:
Hopfield networks and resistive networks relax by the same loop.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mho.errors import InputError, MhoError

States = list[Tensor]
"""One tensor a block, [batch, ...]. A sweep may replace the tensors of the list; it does not write into them."""

LIMIT = 1e6
"""A larger |s| counts as divergence: states of a bounded energy are of the order of 1."""


class RelaxationError(MhoError, ArithmeticError):
    """A system did not come to rest within its steps, or left every bound."""


class System(Protocol):
    """What relaxes. ``sweep`` moves every block once; ``residual`` is 0-d: the largest |s - its own block solve|."""

    def sweep(self, states: States) -> None: ...

    def residual(self, states: States) -> Tensor: ...


@dataclass(frozen=True)
class Relaxation:
    """When to stop: at a residual of ``tolerance``, looked at each ``check_every`` sweeps, at most ``max_steps``.

    ``tolerance=None``: exactly ``max_steps`` sweeps whatever the residual, as published recipes do; the residual
    is then neither computed nor judged. ``limit``: a state with |s| beyond it counts as divergence. Raises
    :class:`InputError` for less than one step, or a tolerance or limit that is not positive.
    """

    max_steps: int = 200
    tolerance: float | None = 1e-4
    check_every: int = 4
    limit: float = LIMIT

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.check_every < 1:
            raise InputError(
                f"Relaxation: max_steps = {self.max_steps}, check_every = {self.check_every}: both at least 1."
            )
        if self.tolerance is not None and not 0 < self.tolerance < math.inf:
            raise InputError(
                f"Relaxation: tolerance = {self.tolerance}: positive, or None for a fixed number of steps."
            )
        _check_limit("Relaxation", self.limit)


@dataclass(frozen=True, eq=False)
class Relaxed:
    """States of rest. ``residual``: the certificate, None where a fixed number of steps was asked for."""

    states: States
    steps: int
    residual: float | None


def relax(system: System, states: States, how: Relaxation, *, what: str = "relaxation") -> Relaxed:
    """Sweep from ``states`` until rest. The list is copied, its tensors are not written to.

    Certificate: the residual max|s - solve(s)| of the states that are returned, over all blocks and examples. For an
    energy whose blocks are solved exactly it is the largest component of the projected gradient, and 0 only at a
    stationary point.

    Raises :class:`RelaxationError` with steps and residual where it stays above the tolerance, and with block, size and
    steps where a state is NaN or beyond ``how.limit`` (an energy that is not bounded from below).
    """
    states = list(states)
    if how.tolerance is None:
        for _ in range(how.max_steps):
            system.sweep(states)
        _watch(what, states, how.max_steps, how.limit)
        return Relaxed(states, how.max_steps, None)
    residual = math.inf
    for step in range(1, how.max_steps + 1):
        system.sweep(states)
        if step % how.check_every and step != how.max_steps:
            continue
        residual = float(system.residual(states))
        if not math.isfinite(residual) or residual <= how.tolerance or step == how.max_steps:
            _watch(what, states, step, how.limit)
        if residual <= how.tolerance:
            return Relaxed(states, step, residual)
        if not math.isfinite(residual):
            raise RelaxationError(f"{what}: the residual is {residual} after {step} steps. Way out: smaller couplings.")
    raise RelaxationError(
        f"{what}: residual {residual:.3g} after {how.max_steps} steps, above the tolerance {how.tolerance:.3g}. Way "
        "out: more max_steps; a larger tolerance (float32 ends near 1e-6); smaller couplings; or tolerance=None for a "
        "fixed number of steps."
    )


def averaged(
    system: System,
    states: States,
    *,
    settle: int,
    reads: int,
    what: str = "noisy relaxation",
    limit: float = LIMIT,
) -> Relaxed:
    """States of a noisy system: ``settle`` sweeps, then the mean over the next ``reads`` sweeps.

    A noisy system has a law of rest instead of a state; the mean of n reads is off by about sigma / sqrt(n), so its
    residual is no certificate and is not computed. Raises :class:`InputError` for negative counts, no read or a limit
    that is not positive, and :class:`RelaxationError` for a mean that is NaN or beyond ``limit``.
    """
    if settle < 0 or reads < 1:
        raise InputError(f"averaged: settle = {settle}, reads = {reads}: settle >= 0 and reads >= 1.")
    _check_limit("averaged", limit)
    states = list(states)
    for _ in range(settle):
        system.sweep(states)
    system.sweep(states)
    sums = [s.clone() for s in states] if reads > 1 else list(states)
    for _ in range(reads - 1):
        system.sweep(states)
        for total, state in zip(sums, states, strict=True):
            total += state
    if reads > 1:
        for total in sums:
            total /= reads
    _watch(what, sums, settle + reads, limit)
    return Relaxed(sums, settle + reads, None)


def _check_limit(where: str, limit: float) -> None:
    if not 0 < limit < math.inf:
        raise InputError(f"{where}: limit = {limit}: positive and finite.")


def _size(s: Tensor) -> Tensor:
    """Largest |s|, 0-d; NaN where there is one. One pass without a copy where it is real."""
    if s.is_complex():
        return s.abs().amax()
    low, high = torch.aminmax(s)
    return torch.maximum(-low, high)


@torch.no_grad()
def _watch(what: str, states: States, step: int, limit: float) -> None:
    """Raise for the first block with a state that is NaN, infinite or beyond ``limit``."""
    largest = torch.stack([_size(s).double() for s in states]).tolist()
    for number, far in enumerate(largest):
        if far <= limit:
            continue
        found = f"|s| reaches {far:.4g} (limit {limit:g})" if math.isfinite(far) else "states are NaN or infinite"
        raise RelaxationError(
            f"{what}: block {number} of {len(states)} (the first is 0): {found} after {step} steps: the energy is not "
            "bounded from below, or its input is not finite. Way out: clipped activations on neighbouring layers, "
            "smaller couplings, a nudge above -1, or a larger limit."
        )


__all__ = ["LIMIT", "Relaxation", "RelaxationError", "Relaxed", "States", "System", "averaged", "relax"]
