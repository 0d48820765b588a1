"""What structure leaves, as noise whose size depends on the input: a stochastic residual layer behind the twin's
matrix.

    I = shift(M v) + s(v) eps,   M[c, r] = gain_c g[r, c]

Bends, rounding, errors of the read-back and whatever no term of the structure has, end up in the shift and in s.
"""

import torch
from torch import nn

from mho.errors import TwinError
from mho.lab.twin.measurements import Measurements
from mho.lab.twin.twin import Twin
from mho.nn import StochasticResidual
from mho.objectives import fit_noise
from mho.objectives.heteroscedastic import NoiseFit


def residual_layer(data: Measurements, twin: Twin) -> tuple[StochasticResidual, NoiseFit]:
    """A layer [n, rows] V -> [n, cols] uA fitted to the pairs that were held out, and what its noise is worth.

    ``NoiseFit.nll`` against ``homoscedastic`` (nats a read, on a quarter of the inputs): how much of the noise follows
    the input. The spread is that of all reads about the layer's mean, errors of the twin included.
    :class:`TwinError` without held-out pairs of one full scale, or where numbers are missing.
    """
    pairs = data.of("held-out")
    if not pairs or len({p.full_scale_uA for p in pairs}) > 1:
        raise TwinError("residual: needs held-out pairs of one full scale. Fix: measure(device, plan).")
    reads = torch.cat([p.currents_uA for p in pairs], 1)
    if not bool(torch.isfinite(reads).all()):
        lost = int((~torch.isfinite(reads)).sum())
        raise TwinError(f"residual: {lost} of {reads.numel()} currents did not come. Fix: measure again.")
    inner = nn.Linear(data.can.rows, data.can.cols, bias=False)
    with torch.no_grad():
        inner.weight.copy_((twin.matrix_uS[data.tile] * twin.columns[data.tile].gain).t())
    layer = StochasticResidual(inner, mean_shift=True)
    found = fit_noise(layer, torch.cat([p.inputs_V for p in pairs]), reads, of_reads=False)
    return layer, found
