"""A factor for the closure's variances at each bend, measured with the response on a few images.

The closure (``product``, ``rules``) takes channels as independent and gives a channel one spatial pattern; after
many layers, and after residual sums above all, its variances are off by a factor that is much the same for
all elements of a layer. The response has all correlations. At each bend of one forward pass it is asked for the
variance of a few elements, spread over images, channels and positions, and the closure is scaled to it before the
pass goes on.
"""

from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from mho.errors import ConversionError
from mho.moments import gauss
from mho.moments.sources import Tape, respond

GOLDEN = 0.6180339887498949


@final
@dataclass
class Corrections:
    """Factors of the bends of a network, in the order in which its forward meets them.

    ``probes``: elements of each image looked at a bend while measuring; 0: the known factors are used.
    """

    probes: int = 0
    factors: list[float] = field(default_factory=list)
    place: int = 0

    def __call__(self, m: Tensor, v: Tensor, tape: Tape) -> float:
        """The factor of the bend that comes next, measured or known."""
        if self.probes:
            self.factors.append(measured(m, v, self.probes, tape))
        if self.place == len(self.factors):
            raise ConversionError(
                f"mho.moments: this pass has more nonlinearities than the {self.place} of the pass that measured their "
                "variances. Way out: a forward whose path does not depend on its input."
            )
        self.place += 1
        return self.factors[self.place - 1]


def measured(m: Tensor, v: Tensor, probes: int, tape: Tape) -> float:
    """sum of response variances over sum of closure variances at the probed elements; 1 where nothing varies."""
    index = elements(m.detach(), v, probes)
    closure = v.flatten(1).gather(1, index)
    if not m.requires_grad or not bool((closure > 0).any()):
        return 1.0
    true = respond(tape, m.flatten(1).gather(1, index))[0].total().diagonal(dim1=1, dim2=2)
    return float(true.sum() / closure.sum())


def elements(m: Tensor, v: Tensor, probes: int) -> Tensor:
    """Indices [N, probes] into the flattened elements of each image, one in each of ``probes`` runs of channels.

    Of a run the elements are sorted by s phi(m/s), what a corner at 0 does to the mean; from image to image another
    rank of the upper half is taken (golden-section sequence).
    """
    count = min(probes, m.shape[1])
    weight = (v.clamp_min(0).sqrt() * gauss.pdf(m / v.clamp_min(torch.finfo(v.dtype).tiny).sqrt())).flatten(1)
    per_channel = weight.shape[1] // m.shape[1]
    found = []
    for k in range(count):
        first, last = k * m.shape[1] // count * per_channel, (k + 1) * m.shape[1] // count * per_channel
        order = weight[:, first:last].argsort(1, descending=True)
        rank = torch.tensor(
            [int(((n * count + k + 1) * GOLDEN % 1.0) * (last - first) / 2) for n in range(len(m))], device=m.device
        )
        found.append(first + order.gather(1, rank[:, None]))
    return torch.cat(found, 1)
