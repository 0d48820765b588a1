"""The law of the accuracy over chips, from the joint normal law of the closest logits of many images."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from mho.moments import gauss
from mho.moments.winning import normal_nodes

NODES, FACTORS = 2048, 64


class Uncertain(NamedTuple):
    """Images whose outcome differs from chip to chip, and how their margins move together.

    ``probability`` [n]; ``mean`` [n, R] and ``cov`` [n, R, R] of the right logit less each rival's, over chips
    and reads; ``between`` [n R, n R]: their covariance over chips, images with one another; each image
    stands for ``stand_for`` images.
    """

    probability: Tensor
    mean: Tensor
    cov: Tensor
    between: Tensor
    stand_for: float


@dataclass(frozen=True, eq=False)
class AccuracyLaw:
    """A mixture of normals: accuracies ``centres`` [nodes] given what chips share, each with its own ``spread``."""

    centres: Tensor = field(repr=False)
    spread: Tensor = field(repr=False)

    @property
    def mean(self) -> float:
        return float(self.centres.mean())

    @property
    def std(self) -> float:
        """Standard deviation over chips: between the nodes and within them."""
        return float((self.centres.var(correction=0) + self.spread.square().mean()).sqrt())

    def cdf(self, accuracy: float) -> float:
        """P(accuracy of a chip <= ``accuracy``), a share."""
        gap, wide = accuracy - self.centres, self.spread
        share = torch.where(wide > 0, torch.special.ndtr(gap / wide.clamp_min(1e-300)), (gap >= 0).to(gap.dtype))
        return float(share.mean())

    def quantile(self, share: float) -> float:
        """The accuracy below which a ``share`` of the chips lies, by bisection; 0 < share < 1."""
        low, high = float((self.centres - 9 * self.spread).min()), float((self.centres + 9 * self.spread).max())
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.cdf(middle) < share else (low, middle)
        return min(max(high, 0.0), 1.0)


def accuracy_law(probability: Tensor, unsure: Uncertain | None) -> AccuracyLaw:
    """Law of the mean of the outcomes of all images over chips.

    ``probability`` [images]: chance of each image to be right; it sets the mean. The leading eigenvectors of
    ``unsure.between`` (in standard deviations) are integrated over on a Sobol net. Given these factors, images are
    independent, and an image is right with the chance that its smallest margin is positive (Clark's formulas).
    """
    count, mean = len(probability), probability.double().mean()
    if unsure is None:
        return AccuracyLaw(mean.reshape(1), mean.new_zeros(1))
    given = _given_factors(unsure)
    # Each kept image stands for several, which move together with others as it does but not as one with each other.
    changes = given - given.mean(0)
    single, together = changes.square().mean(0).sum(), changes.sum(1).square().mean()
    pairs = (together - single).clamp_min(0)
    share = (single / unsure.stand_for + pairs) / together.clamp_min(1e-300)
    moved = changes.sum(1) * share.clamp(0, 1).sqrt()
    within = (given * (1 - given)).sum(1)
    own = unsure.probability
    # The images in no comparison keep their own small variance.
    sure = (probability * (1 - probability)).sum() - unsure.stand_for * (own * (1 - own)).sum()
    spread = (unsure.stand_for * within + sure.clamp_min(0)).sqrt() / count
    return AccuracyLaw(mean + unsure.stand_for * moved / count, spread)


def _given_factors(unsure: Uncertain) -> Tensor:
    """Chance of each image to be right at each node of the common factors, [nodes, n]."""
    n, rivals = unsure.mean.shape
    scale = unsure.cov.diagonal(dim1=1, dim2=2).clamp_min(1e-300).sqrt()
    flat = scale.flatten()
    values, vectors = torch.linalg.eigh(unsure.between / (flat[:, None] * flat))
    top = min(FACTORS, len(values))
    loads = (vectors[:, -top:].flip(1) * values[-top:].flip(0).clamp_min(0).sqrt()).reshape(n, rivals, top)
    rest = unsure.cov / (scale[:, :, None] * scale[:, None, :]) - loads @ loads.transpose(1, 2)
    nodes = normal_nodes(NODES, top)
    mean = (unsure.mean / scale)[None] + torch.einsum("qf,nrf->qnr", nodes, loads)
    # In standard deviations of each margin; the signs, and so the outcome, are those of the margins.
    mean, rest = mean * scale, rest * (scale[:, :, None] * scale[:, None, :])
    return smallest_positive(mean, rest)


def smallest_positive(mean: Tensor, cov: Tensor) -> Tensor:
    """P(min_r d_r > 0) for means [..., n, R] and covariances [n, R, R]: Clark's formulas, rival after rival."""
    # The largest of -d, and its covariance with those to come.
    m, v = -mean[..., 0], cov[:, 0, 0].clamp_min(0).expand_as(mean[..., 0])
    with_later = [cov[:, 0, r].expand_as(m) for r in range(mean.shape[-1])]
    for r in range(1, mean.shape[-1]):
        m, v, first = gauss.larger(m, v, -mean[..., r], cov[:, r, r].clamp_min(0), with_later[r])
        for s in range(r + 1, mean.shape[-1]):
            with_later[s] = first * with_later[s] + (1 - first) * cov[:, r, s]
    return torch.where(v > 0, torch.special.ndtr(-m / v.clamp_min(1e-300).sqrt()), (m < 0).to(m.dtype))
