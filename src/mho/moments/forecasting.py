"""Mean and 5th percentile of the accuracy over chips from one analytic pass. No chip is simulated.

1. :meth:`AnalyticNetwork.respond` gives each image's logits as jointly normal; ``winning`` the probability
   p_i that the right one is the largest.
2. Two images on one chip see the same errors. Of each uncertain image the gradients of its margins (the right
   logit less each rival's) with respect to every cell's error are kept; the covariance of two margins over
   chips is K = sum_w var_w (dm_i/dw)(dm_j/dw).
3. ``law`` integrates over the leading factors of that covariance: what all images of a chip share, such as a
   class whose logit is too high. That is the law of the accuracy.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mho.errors import InputError
from mho.moments.law import AccuracyLaw, Uncertain, accuracy_law
from mho.moments.network import AnalyticNetwork, Choice, Response
from mho.moments.sources import Tape, WeightSource, columns, positions, weight_features
from mho.moments.winning import all_positive, differences, right_and_rivals

CHUNK = 25
PROBED = 16
"""Images on which the closure's variances are corrected."""

UNSURE = 1e-4
"""An image with p (1 - p) below this hardly moves the spread over chips and is in no pair."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Accuracy over chips, in percent, as foretold. ``probability`` [images]: that an image is right on a chip.

    ``mean``, ``std``, ``p5`` are over chips, one reading of the images each. ``law`` has other quantiles.
    """

    mean: float
    std: float
    p5: float
    probability: NDArray[np.float64] = field(repr=False)
    law: AccuracyLaw = field(repr=False)

    @property
    def images(self) -> int:
        return len(self.probability)


def forecast(
    model: nn.Module,
    loader: Iterable[Any],
    hardware: Choice = None,
    *,
    images: int | None = None,
    t_s: float | str | None = None,
    pairs: int = 256,
    rivals: int = 5,
) -> Forecast:
    """Foretell what ``mho.evaluate`` would measure over very many chips.

    ``loader``: (inputs, labels) batches; ``images``: only the first so many. ``hardware``, ``t_s``: as for
    :func:`mho.moments.propagate`. ``pairs``: at most so many uncertain images are compared with one another
    (evenly chosen from the loader's order; they stand for the others). ``rivals``: so many wrong classes of each
    image, those with the largest mean logits, can win; the others are taken as beaten.

    Valid where the errors are small enough that margins are near normal: README.md has measured errors.
    Raises :class:`InputError` for an empty loader or labels that do not fit.
    """
    if pairs < 2:
        raise InputError(f"forecast: pairs = {pairs}: two or more images are needed to be compared. Fix: 512.")
    if images is not None and images < 1:
        raise InputError(f"forecast: images = {images}: one or more, or None for all of the loader. Fix: images=None.")
    if rivals < 1:
        raise InputError(f"forecast: rivals = {rivals}: one wrong class or more must be able to win. Fix: 5.")
    network = AnalyticNetwork(model, hardware, t_s)
    found: list[Tensor] = []
    margins = _Margins(pairs)
    for x, y in _chunks(loader, images):

        def keep(tape: Tape, gradients: list[Tensor], response: Response) -> None:
            # The right class stands first among those that were chosen.
            d, cov = differences(response.mean, response.covariance.total())
            p = all_positive(d, cov)
            found.append(p)
            margins.add(tape, gradients, response, p, d)

        if not found:
            network.correct(x[:PROBED])
        network.respond(x, keep, partial(right_and_rivals, labels=y, count=rivals))
    if not found:
        raise InputError("forecast: the loader yielded no image. Way out: a loader that can be read more than once.")
    probability = torch.cat(found)
    law = accuracy_law(probability, margins.joined())
    return Forecast(
        mean=100 * law.mean,
        std=100 * law.std,
        p5=100 * law.quantile(0.05),
        probability=probability.numpy(),
        law=law,
    )


def _chunks(loader: Iterable[Any], images: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches cut to at most :data:`CHUNK` images, which bounds the memory of the gradients."""
    left = images
    for batch in loader:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise InputError("forecast: the loader must yield pairs (inputs, labels).")
        x, y = batch
        if left is not None:
            x, y = x[:left], y[:left]
            left -= len(y)
        for start in range(0, len(y), CHUNK):
            yield x[start : start + CHUNK], y[start : start + CHUNK]
        if left == 0:
            return


class _Kept(NamedTuple):
    """What is kept of the uncertain images of one chunk.

    ``cov``: static, curved and fresh, of the margins. A feature: the whole gradients, or two factors of each.
    """

    probability: Tensor
    mean: Tensor
    cov: tuple[Tensor, Tensor, Tensor]
    features: tuple[tuple[Tensor, ...], ...]

    def only(self, index: Tensor) -> "_Kept":
        static, curved, fresh = self.cov
        features = tuple(tuple(piece[index] for piece in f) for f in self.features)
        cov = (static[index], curved[index], fresh[index])
        return _Kept(self.probability[index], self.mean[index], cov, features)


@final
class _Margins:
    """Margins of uncertain images and their gradients with respect to the cells' errors, at most ``limit``."""

    def __init__(self, limit: int) -> None:
        self.limit, self.stride, self.seen = limit, 1, 0
        self.kept: list[_Kept] = []

    def add(self, tape: Tape, gradients: list[Tensor], response: Response, p: Tensor, d: Tensor) -> None:
        unsure = torch.nonzero(p * (1 - p) > UNSURE).flatten()
        numbers = self.seen + torch.arange(len(unsure))
        self.seen += len(unsure)
        chosen = unsure[numbers % self.stride == 0]
        if not len(chosen):
            return
        static, curved, fresh = (differences(response.mean, c)[1][chosen] for c in response.covariance)
        features = tuple(
            _features(source, g[chosen, :1] - g[chosen, 1:], chosen)
            for source, g in zip(tape.sources, gradients, strict=True)
            if isinstance(source, WeightSource)
        )
        self.kept.append(_Kept(p[chosen], d[chosen], (static, curved, fresh), features))
        while sum(len(k.probability) for k in self.kept) > self.limit:
            self._thin()

    def _thin(self) -> None:
        """Keep every second image, and from now on half as many."""
        self.stride *= 2
        thinned, place = [], 0
        for k in self.kept:
            count = len(k.probability)
            index = torch.nonzero((place + torch.arange(count)) % 2 == 0).flatten()
            place += count
            thinned.append(k.only(index))
        self.kept = [k for k in thinned if len(k.probability)]

    def joined(self) -> Uncertain | None:
        """All kept images together; ``None`` where every outcome is sure."""
        if not self.kept:
            return None
        probability = torch.cat([k.probability for k in self.kept])
        mean = torch.cat([k.mean for k in self.kept])
        static, curved, fresh = (torch.cat([k.cov[i] for k in self.kept]) for i in range(3))
        size = mean.numel()
        kernel = torch.zeros(size, size, dtype=torch.float64)
        for parts in zip(*(k.features for k in self.kept), strict=True):
            kernel += _products(parts, size).double()
        linear = (static + fresh).diagonal(dim1=1, dim2=2).flatten().clamp_min(1e-300)
        bent = curved.diagonal(dim1=1, dim2=2).flatten().clamp_min(0)
        # A second-order term of two margins is correlated as the square of what their first orders are.
        rho2 = kernel.square() / (linear[:, None] * linear)
        between = kernel + (bent[:, None] * bent).sqrt() * rho2
        return Uncertain(probability, mean, static + curved + fresh, between, self.seen / len(probability))


def _features(source: WeightSource, slope: Tensor, chosen: Tensor) -> tuple[Tensor, ...]:
    """Gradients of margins [n, R, ...] in standard deviations of each cell, whole or as factors [n, R, O], [n, K]."""
    g = columns(source.op, slope)
    u = positions(source.op, source.mean[chosen], len(chosen))
    var, column = source.spread()
    if g.shape[-1] == 1 and g.shape[2] == 1 and column is not None:
        return g[:, :, 0, :, 0] * column[0].sqrt(), u[:, 0, :, 0]
    return (weight_features(g, u, var).flatten(2),)


def _products(parts: tuple[tuple[Tensor, ...], ...], size: int) -> Tensor:
    """sum over weights of f f' for all margins of all images: [n R, n R]."""
    joined = [torch.cat(list(piece)) for piece in zip(*parts, strict=True)]
    flat = joined[0].flatten(0, 1)
    found = flat @ flat.t()
    if len(joined) == 1:
        return found
    inputs = (joined[1] @ joined[1].t()).repeat_interleave(size // len(joined[1]), 0)
    return found * inputs.repeat_interleave(size // len(joined[1]), 1)


__all__ = ["Forecast", "forecast"]
