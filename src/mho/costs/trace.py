"""One example input through a converted network's own forward code; every product that it asks for is counted."""

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mho.costs.cells import driven_conductance_uS, effort, total_conductance
from mho.costs.counts import Counts, Layout, count, layout
from mho.crossbar.mvm import wanted_range
from mho.crossbar.ops import ConvOp, LinearOp
from mho.errors import InputError
from mho.hardware.spec import Hardware
from mho.nn.site import Programmed, Site, analog_layers
from mho.nn.surrogate import NewChip
from mho.nn.watch import FirstForward, remove_hooks

Change = Callable[[Hardware], Hardware]


@final
@dataclass
class Traced:
    """What one weight did for the example input."""

    site: Site
    place: Layout
    counts: Counts = field(default_factory=Counts)
    driven_uS: float = 0.0
    conductance_uS: float = 0.0
    adc_fill: float | None = None
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say something once."""
        if text not in self.notes:
            self.notes.append(text)


@final
class Recorder:
    """A substrate that answers with the digital product and notes what the analog one would do.

    ``flops``: what its own arithmetic adds to torch's count.
    """

    simulated = False

    def __init__(self) -> None:
        self.found: dict[str, Traced] = {}
        self.flops = 0
        self._g: dict[str, Tensor] = {}

    def mvm(
        self,
        site: Site,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ranges: Tensor,
        bound: Tensor | None,
        training: bool,
        programmed: Programmed,
    ) -> Tensor:
        """The product without noise; counts and drive are added to those of ``site``."""
        y = site.op.apply(x, weight, bias)
        known = self.found.get(site.name)
        if known is None:
            known = self.found[site.name] = Traced(site, layout(site.op, site.hw))
            g = total_conductance(weight, site.hw, bound, known.place.references)
            known.conductance_uS = float(g.sum())
            self._g[site.name] = g * effort(site.hw, g)
        outputs = known.place.outputs
        vectors = y.numel() // outputs if outputs else 0
        done = count(site.op, site.hw, vectors, numbers_in=x.numel(), bias=bias is not None)
        known.counts = known.counts + done
        r_in = _input_range(known, x, ranges)
        _fill(known, r_in, ranges, weight)
        known.driven_uS += driven_conductance_uS(x, r_in, self._g[site.name], site.op, site.hw)
        # The product, and the sum over the drive, which has one column a group.
        self.flops += 2 * done.macs + 2 * done.macs * known.place.groups // max(1, outputs)
        return y


def _input_range(known: Traced, x: Tensor, ranges: Tensor) -> Tensor:
    """The input that is full scale: the calibrated one, else what this example asks for (and says so)."""
    if not bool(torch.isfinite(x).all()):
        raise InputError(
            f"mho.energy: the input of {known.site.name} holds NaN or infinity. Way out: an example input of real data."
        )
    if not bool((x != 0).any()):
        known.note("its input is all zero: cells draw nothing; give an example of real data")
    r_in = ranges[0].detach()
    if float(r_in) > 0:
        return r_in
    if known.site.hw.dac is not None:
        known.note("converter ranges not known (mho.calibrate): taken from this example")
    return wanted_range(x, None if known.site.hw.dac is None else known.site.hw.dac.range_sigma)


def _fill(known: Traced, r_in: Tensor, ranges: Tensor, weight: Tensor) -> None:
    """ADC range over the largest output that a row block could give: what a column's thermal noise is measured in."""
    if known.adc_fill is None and float(ranges[1]) > 0 and float(r_in) > 0:
        top = float(weight.detach().abs().amax()) if weight.numel() else 0.0
        largest = float(r_in) * top * known.site.op.rows / max(1, known.place.blocks)
        if largest > 0:
            known.adc_fill = min(1.0, float(ranges[1]) / largest)


@final
@dataclass(frozen=True)
class Trace:
    """All weights by name in the order of their first use, those never used, and multiply-adds done elsewhere.

    ``inferences``: how many the example input holds.
    """

    sites: dict[str, Traced]
    unused: dict[str, Site]
    digital_macs: int
    inferences: int


def trace(model: nn.Module, inputs: tuple[Any, ...], change: Change, inferences: int) -> Trace:
    """Run ``model`` (converted; left as it is) on ``inputs`` in eval mode. ``change``: the hardware of each weight."""
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    remove_hooks(twin, NewChip, FirstForward)
    recorder = Recorder()
    sites: dict[str, Site] = {}
    for _, layer in analog_layers(twin):
        layer.substrate = recorder
        layer.sites = {key: replace(site, hw=change(site.hw)) for key, site in layer.sites.items()}
        sites |= {site.name: site for site in layer.sites.values()}
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), _countable(), counter:
        twin(*inputs)
    elsewhere = max(0, counter.get_total_flops() - recorder.flops) // 2
    unused = {name: site for name, site in sites.items() if name not in recorder.found}
    return Trace(recorder.found, unused, elsewhere, inferences)


@contextmanager
def _countable() -> Iterator[None]:
    """Keep torch from fused kernels that its counter of operations does not look into (attention, LSTM)."""
    fast, mkldnn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with ExitStack() as stack:
            with warnings.catch_warnings():
                # Leaving mkldnn's flags as they are warns of Intel GPUs where there is none.
                warnings.simplefilter("ignore", UserWarning)
                stack.enter_context(mkldnn.flags(enabled=False))
            with sdpa_kernel([SDPBackend.MATH]):
                yield
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                stack.close()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def tensors_of(example: Any) -> tuple[Any, ...]:
    """The example as positional arguments; raises :class:`InputError` where no number is in it."""
    inputs = example if isinstance(example, tuple) else (example,)
    tensors = [t for t in inputs if isinstance(t, Tensor)]
    if not tensors:
        raise InputError(
            f"mho.energy: the example input is {type(example).__name__}. Way out: a tensor, or a tuple of what the "
            "network is called with."
        )
    empty = next((t for t in tensors if t.numel() == 0), None)
    if empty is not None:
        raise InputError(
            f"mho.energy: the example input has shape {tuple(empty.shape)}, no element. Way out: one real input."
        )
    return inputs


def weights_of(site: Site) -> int:
    """How many numbers a weight holds."""
    op = site.op
    if isinstance(op, LinearOp):
        return op.in_features * op.out_features
    assert isinstance(op, ConvOp)
    return op.out_channels * (op.in_channels // op.groups) * math.prod(op.kernel)
