"""Gradients without a model of the device: from its answers alone.

Each is a loss that ``mho.fit`` takes (``on_model``): its value is the loss on the device, its derivative the estimate.
None of them needs a twin; all are noisier than one with it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from mho import ste
from mho.errors import ConversionError
from mho.hardware.fields import Count, Positive, check_fields
from mho.nn.site import Programmed, Site, Substrate, analog_layers, substituted
from mho.rng import normals, uniforms

SampleLoss = Callable[[Tensor, Tensor], Tensor]
"""Losses of single samples, [batch]: ``functools.partial(F.cross_entropy, reduction="none")``."""


@dataclass(frozen=True, kw_only=True)
class Spsa:
    """Simultaneous perturbation (Spall, IEEE Trans. Autom. Control 37, 332, 1992).

    g = (L(w + c d) - L(w - c d)) / (2 c) d with d_i = +-1, mean over ``samples`` draws. ``step``: c as a share of the
    standard deviation of each weight tensor. 2 x samples device passes a step, each after writing the weights anew: its
    variance grows with the number of weights, and with a device whose writing errs.
    """

    step: Positive = 0.05
    samples: Count = 1

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class NodePerturbation:
    """Noise on the outputs of the analog layers, correlated with the change of each sample's loss.

    g_a = (L(a + s xi) - L(a)) xi / s per sample, then g_W = g_a x^T (Williams, Machine Learning 8, 229, 1992; the
    weights are not written anew). ``step``: s as a share of the standard deviation of each layer's output. 1 +
    samples device passes.
    """

    step: Positive = 0.1
    samples: Count = 1

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class FeedbackAlignment:
    """Direct feedback alignment (Nokland, NeurIPS 2016): the output's error through fixed random matrices to each
    layer.

    The gradient at the input of analog layer l > 1 is e B_l with e = dL/dy at the network's output and B_l ~ N(0, 1 /
    outputs) fixed by ``seed``; the way from there to the layer before is local. One device pass.
    """

    seed: int = 0


Estimator = Spsa | NodePerturbation | FeedbackAlignment


@dataclass(eq=False)
class _Seen:
    """What passed, product after product: the inputs with their history, the local outputs, what was added to them."""

    inputs: list[Tensor] = field(default_factory=list)
    local: list[Tensor] = field(default_factory=list)
    pushed: list[tuple[Tensor, float]] = field(default_factory=list)


@final
class _Tape:
    """A substrate that notes what passes: x with its history, and the output, perturbed where asked.

    The layers are cut apart: no gradient passes a product to the layers before it.
    """

    simulated = False

    def __init__(
        self, inner: Substrate, seen: _Seen, step: float, draw: Callable[[Tensor, int], Tensor] | None
    ) -> None:
        self.inner = inner
        self.seen = seen
        self.step = step
        self.draw = draw

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
        """The inner product's value; its derivative is that of the ideal product, for this layer's parameters only."""
        self.seen.inputs.append(x)
        with torch.no_grad():
            y = self.inner.mvm(site, x.detach(), weight, bias, ranges, bound, training, programmed)
            if self.draw is not None:
                xi = self.draw(y, len(self.seen.pushed))
                scale = self.step * float(y.std()) if y.numel() > 1 else self.step
                self.seen.pushed.append((xi, scale))
                y = y + scale * xi
        ideal = site.op.apply(x.detach(), weight, bias)
        self.seen.local.append(ideal)
        return ste.straight_through(y, ideal)


@contextmanager
def _taped(model: nn.Module, step: float = 0.0, draw: Callable[[Tensor, int], Tensor] | None = None) -> Iterator[_Seen]:
    if next(analog_layers(model), None) is None:
        raise ConversionError("gradient: the network has no analog layer. Way out: mho.convert(model, hardware) first.")
    seen = _Seen()
    with substituted(model, lambda layer: _Tape(layer.substrate, seen, step, draw)):
        yield seen


@final
class EstimatedLoss:
    """A loss for ``mho.fit`` whose gradient is estimated on the device by ``how``.

    ``loss(logits, y)`` gives one number a sample. The draws depend on ``seed`` and the number of the step, which counts
    from the share of the run that ``mho.fit`` tells: a resumed run draws what it would have drawn.
    """

    def __init__(self, loss: SampleLoss, how: Estimator, *, seed: int = 0) -> None:
        self.loss = loss
        self.how = how
        self.seed = seed
        self._share = "0"

    def set_progress(self, share: float) -> None:
        """Told by ``mho.fit`` before each step."""
        self._share = repr(share)

    def on_model(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The loss on the device, with the estimated gradient."""
        if isinstance(self.how, Spsa):
            return self._spsa(self.how, model, x, y)
        if isinstance(self.how, NodePerturbation):
            return self._nodes(self.how, model, x, y)
        return self._alignment(self.how, model, x, y)

    def _spsa(self, how: Spsa, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        slopes = [torch.zeros_like(p) for _, p in named]
        total = 0.0
        for k in range(how.samples):
            moves = []
            for name, p in named:
                sign = uniforms(tuple(p.shape), self.seed, "spsa", self._share, k, name).to(p) < 0.5
                size = how.step * float(p.detach().std()) if p.numel() > 1 else how.step
                moves.append(torch.where(sign, -1.0, 1.0) * max(size, 1e-6))
            values = []
            with torch.no_grad():
                for direction in (1.0, -2.0):
                    for (_, p), move in zip(named, moves, strict=True):
                        p.add_(move, alpha=direction)
                    values.append(float(self.loss(model(x), y).mean()))
                for (_, p), move in zip(named, moves, strict=True):
                    p.add_(move)
            for slope, move in zip(slopes, moves, strict=True):
                slope.add_((values[0] - values[1]) / 2 / move, alpha=1 / how.samples)
            total += sum(values) / 2 / how.samples
        return _with_slopes(total, [p for _, p in named], slopes)

    def _nodes(self, how: NodePerturbation, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with _taped(model) as tape:
            clean = self.loss(model(x), y)
        local = tape.local
        signals = [torch.zeros_like(a) for a in local]
        for k in range(how.samples):

            def draw(a: Tensor, layer: int, k: int = k) -> Tensor:
                return normals(tuple(a.shape), self.seed, "node", self._share, k, layer).to(a)

            with torch.no_grad(), _taped(model, how.step, draw) as pushed:
                change = self.loss(model(x), y) - clean.detach()
            for signal, (xi, scale) in zip(signals, pushed.pushed, strict=True):
                signal.add_(change.reshape(-1, *([1] * (xi.dim() - 1))) * xi / (scale * how.samples * len(x)))
        value = clean.mean().detach()
        pull = sum(((a * s).sum() - (a * s).sum().detach() for a, s in zip(local, signals, strict=True)), start=value)
        return torch.as_tensor(pull)

    def _alignment(self, how: FeedbackAlignment, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with _taped(model) as tape:
            out = model(x)
        value = self.loss(out, y).mean()
        (error,) = torch.autograd.grad(value, out, retain_graph=True)
        pull = value
        for layer, h in enumerate(tape.inputs):
            if not h.requires_grad:
                continue
            width = h[0].numel()
            back = normals((out.shape[-1], width), how.seed, "feedback", layer).to(h) / out.shape[-1] ** 0.5
            term = (h * (error.reshape(len(error), -1) @ back).reshape(h.shape)).sum()
            pull = pull + term - term.detach()
        return pull


def _with_slopes(value: float, parameters: list[nn.Parameter], slopes: list[Tensor]) -> Tensor:
    """A scalar of ``value`` whose gradient is ``slopes``."""
    pull = torch.stack([(p * s).sum() for p, s in zip(parameters, slopes, strict=True)]).sum()
    return pull - pull.detach() + value


@torch.no_grad()
def _slopes(
    network: nn.Module, loss: SampleLoss, x: Tensor, y: Tensor, *, step: float, directions: int, seed: int = 0
) -> Tensor:
    """(L(x + h d) - L(x - h d)) / 2 h of every sample along random unit directions d: [directions, batch]."""
    found = []
    for k in range(directions):
        d = _direction(x, k, seed)
        ahead, behind = (loss(network(x + sign * step * d), y) for sign in (1.0, -1.0))
        found.append((ahead - behind) / (2 * step))
    return torch.stack(found)


def _direction(x: Tensor, k: int, seed: int) -> Tensor:
    d = normals(tuple(x.shape), seed, "direction", k).to(x)
    length: Tensor = d.flatten(1).norm(dim=1)
    return d / length.reshape(-1, *([1] * (x.dim() - 1)))


def gradient_cosine(
    network: nn.Module,
    loss: SampleLoss,
    x: Tensor,
    y: Tensor,
    *,
    step: float,
    directions: int = 8,
    repeats: int = 1,
    seed: int = 0,
) -> tuple[float, float]:
    """How well the gradient that training uses agrees with the device's own differences.

    Along random directions of the input, which need no writing: a = grad L . d from autograd (through the twin), b =
    the central difference of the device, means over ``repeats``. Returns (cos(a, b), the same divided by the
    reliability of b), the second being what a noiseless difference would give; NaN where the noise leaves nothing.
    ``step``: in units of x, several steps of the input converter.
    """
    network.eval()
    live = x.detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(loss(network(live), y).sum(), live)
    a = torch.stack([(slope * _direction(x, k, seed)).flatten(1).sum(1) for k in range(directions)])
    reads = []
    for r in range(max(repeats, 2)):
        _salt(network, f"cosine {seed} {r}")
        reads.append(_slopes(network, loss, x, y, step=step, directions=directions, seed=seed))
    _salt(network, "")
    b = torch.stack(reads)
    mean = b.mean(0)
    noise = float(b.var(0).mean()) / len(reads)
    signal = float(mean.square().mean()) - noise
    cosine = float((a * mean).sum() / (a.norm() * mean.norm()).clamp_min(1e-30))
    reliability = (signal / float(mean.square().mean())) ** 0.5 if signal > 0 else float("nan")
    return cosine, cosine / reliability


def _salt(network: nn.Module, salt: str) -> None:
    for _, layer in analog_layers(network):
        if hasattr(layer.substrate, "salt"):
            layer.substrate.salt = salt
