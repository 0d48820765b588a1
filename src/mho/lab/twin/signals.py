"""From plain pairs to codes and what is known of the signals in front of the converter."""

import torch
from torch import Tensor

from mho.lab.twin.bits import PSEUDO_LEVELS, Sweep
from mho.lab.twin.cells import ReadBack
from mho.lab.twin.likelihood import Codes
from mho.lab.twin.measurements import Measurements, Pairs, Writing
from mho.physics.converters import levels, quantize


def codes_of(pairs: Pairs, bits: int | None, repeat: int = 0) -> tuple[Tensor, Tensor, int]:
    """(code, weight, levels) [n, cols] of one repeat; what did not come has weight 0."""
    top = PSEUDO_LEVELS if bits is None else levels(bits)
    share = pairs.currents_uA[repeat].double() / pairs.full_scale_uA
    valid = torch.isfinite(share)
    code = (torch.where(valid, share, 0.0) * top).round().clamp(-top, top).long()
    return code, valid.double(), top


def inputs_of(data: Measurements, pairs: Pairs, bits_in: int | None) -> Tensor:
    """What drives the rows, in units of v_max, rounded as the input converter does."""
    return quantize(pairs.inputs_V.double() / data.can.v_max_V, 1.0, bits_in)


def codes(
    data: Measurements, pairs: Pairs, reference: Tensor, noise: ReadBack | None, bits: tuple[int | None, int | None]
) -> Codes:
    """All repeats of ``pairs`` under each other; ``reference`` [rows, cols] in units of g_max.

    ``noise``: of a read-back from which the reference is the mean: its error at these inputs is a known variance.
    ``bits``: (input, output).
    """
    v = inputs_of(data, pairs, bits[0])
    r = pairs.full_scale_uA / data.unit_uA
    repeats = len(pairs.currents_uA)
    v2, x = v * v, reference.abs()
    s0 = (v2.sum(1, keepdim=True) / r**2).expand(-1, reference.shape[1])
    s1, s2 = v2 @ x / r**2, v2 @ (x * x) / r**2
    known = torch.zeros_like(s1)
    if noise is not None:
        a, b = noise.const, noise.rel
        known = (a * a * s0 + 2 * a * b * s1 + b * b * s2) / data.writings[pairs.writing].reads
    per_repeat = [codes_of(pairs, bits[1], k) for k in range(repeats)]

    def tall(t: Tensor) -> Tensor:
        return t.repeat(repeats, 1)

    return Codes(
        tall(v @ reference / r),
        tall(s0),
        tall(s1),
        tall(s2),
        tall(known),
        torch.cat([c for c, _, _ in per_repeat]),
        torch.cat([w for _, w, _ in per_repeat]),
        per_repeat[0][2],
    )


def reference_of(data: Measurements, writing: Writing) -> Tensor:
    """Conductances [rows, cols] in units of g_max: the mean read-back, where it failed the target."""
    target = writing.targets_uS.double()
    if writing.mean_uS is None:
        return target / data.can.g_max_uS
    mean = writing.mean_uS.double()
    return torch.where(torch.isfinite(mean), mean, target) / data.can.g_max_uS


def sweep_of(data: Measurements, bits_out: int | None) -> Sweep | None:
    """The amplitude sweep; ``None`` where none was measured.

    Its rows are driven together, so that each vector is one amplitude times a pattern of signs.
    """
    found = data.of("sweep")
    if not found:
        return None
    g = reference_of(data, data.writings[found[0].writing])
    volts = torch.cat([p.inputs_V for p in found]).double() / data.can.v_max_V
    column = volts[:, :1]
    sign = torch.where(volts[0] * column[0] < 0, -1.0, 1.0)
    r = found[0].full_scale_uA / data.unit_uA
    cut = [codes_of(p, bits_out) for p in found]
    x = g.abs()
    return Sweep(
        amplitude=column,
        slope=(sign.double() @ g) / r,
        s0=torch.full_like(x.sum(0), len(x) / r**2),
        s1=x.sum(0) / r**2,
        s2=x.square().sum(0) / r**2,
        code=torch.cat([c for c, _, _ in cut]),
        weight=torch.cat([w for _, w, _ in cut]),
        levels=cut[0][2],
    )
