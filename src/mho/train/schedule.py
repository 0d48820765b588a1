"""How the learning rate and the noise move over a run: pure functions of the position."""

import math
from statistics import NormalDist
from typing import Literal

Schedule = Literal["constant", "cosine", "onecycle"]
NoiseLevels = Literal["fixed", "uniform", "half-normal"]

_WARM_SHARE = 0.3
_START = 1 / 25


def _cosine(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` along half a cosine, ``share`` in [0, 1]."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def lr_factor(step: int, total: int, schedule: Schedule) -> float:
    """The learning rate at ``step`` (0 .. total-1) as a fraction of its peak.

    constant: 1. cosine: ``(1 + cos(pi p)) / 2`` with ``p = step / (total - 1)``. onecycle: up from 1/25
    over the first 30 % of the steps, then down to 0, both along half a cosine (Smith and Topin 2018,
    arXiv 1708.07120; cosine arms as in later practice).
    """
    if schedule == "constant" or total <= 1:
        return 1.0
    place = min(step / (total - 1), 1.0)
    if schedule == "cosine":
        return _cosine(1.0, 0.0, place)
    if place < _WARM_SHARE:
        return _cosine(_START, 1.0, place / _WARM_SHARE)
    return _cosine(1.0, 0.0, (place - _WARM_SHARE) / (1 - _WARM_SHARE))


def noise_factor(step: int, total: int, ramp_fraction: float) -> float:
    """The share of the noise at ``step``: ``min(1, step / (ramp_fraction total))``; 1 without a ramp."""
    ramp = ramp_fraction * total
    return 1.0 if step >= ramp else step / ramp


def level_factor(u: float, levels: NoiseLevels) -> float:
    """The noise level of one step as a multiple of the nominal one, from a uniform ``u`` in [0, 1).

    fixed: 1. uniform: on [0, 1.5). half-normal: |N(0, 1)|, mean 0.8. One network for all levels: the level of a
    step is drawn anew (noise-level randomisation; Wang et al., ECML 2025: VANT).
    """
    if levels == "fixed":
        return 1.0
    if levels == "uniform":
        return 1.5 * u
    return NormalDist().inv_cdf(0.5 + 0.5 * u)
