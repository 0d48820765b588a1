"""The stochastic residual layer: hardware as a perturbation whose size depends on the input.

    a = W x + b,   r = phi(a + s(x) eps)  or  phi(a) + s(x) eps,   y = skip(x) + r

See STOCHASTIC.md of this folder for what it is for, and for its three uses: fit, train, budget.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, final

import torch
from torch import Tensor, nn

from mho.crossbar.ops import output_shape
from mho.hardware.spec import Hardware
from mho.nn import stochastic_checks as checks
from mho.nn.checks import check_input
from mho.nn.site import AnalogLayer, Site, fixed_bound
from mho.nn.stochastic_law import FEATURES, Form, LayerNoise, ReadLaw, features, perturbed, remainder
from mho.nn.stochastic_lower import lower
from mho.nn.stochastic_physics import Physics, Static
from mho.nn.surrogate import Surrogate, hardware_text

Mode = Literal["train", "fit", "budget"]
Objective = Literal["likelihood", "energy"]
Skip = nn.Module | Literal["identity"] | None


@final
class StochasticResidual(nn.Module):
    """y = skip(x) + r with r = phi(a + s(x) eps) (``form="pre"``) or phi(a) + s(x) eps (``"post"``), a = inner(x).

    ``inner``: nn.Linear, nn.Conv1d/2d/3d, what mho.convert makes of them, or ``None`` (a = x). ``hw``: where the
    physical terms of s^2 come from, ``None`` for none. ``activation``: phi, ``None`` for the identity.
    ``skip``: ``None``, "identity" or a module.

    ``static``: how static noise of the weights is drawn. "weights": one array a forward pass, shared by all
    samples and positions, always right. "outputs": independent at each output, exact in law for a Linear
    that sees one vector a sample, refused elsewhere. "positions": "outputs" anywhere, on request; wrong
    by the number of positions once they are pooled.

    ``sigma``: standard deviation of the remainder, in units of the output, 0 for none until it is fitted;
    ``mean_shift``: a gain and an offset an output, to be fitted; ``clip_sigma``: fixed full scale of the weights.

    In eval mode nothing is random: y = skip(x) + phi(a), with the mean shift, unless ``noise_in_eval``. On
    virtual chips (a converted inner layer) nothing is added; on the surrogate only the remainder.
    """

    unit2: Tensor
    scales: Tensor
    ranges: Tensor
    weight_bound: Tensor | None

    def __init__(
        self,
        inner: nn.Module | None,
        hw: Hardware | None = None,
        *,
        form: Form = "pre",
        activation: nn.Module | None = None,
        skip: Skip = None,
        static: Static = "weights",
        sigma: float = 0.0,
        mean_shift: bool = False,
        clip_sigma: float | None = None,
        noise_in_eval: bool = False,
    ) -> None:
        super().__init__()
        checks.check_words(form, static, skip)
        checks.check_parts(inner, hw, clip_sigma, static, mean_shift)
        self.inner, self.hw, self.form = inner, hw, form
        self.lowering = None if inner is None else lower(inner)
        self.physics: Physics | None = None
        if hw is not None and self.lowering is not None:
            checks.refuse_positions(static, self.lowering, None)
            self.physics = Physics.of(self.lowering, hw, static)
        self.activation = nn.Identity() if activation is None else activation
        self.identity_skip = skip == "identity"
        self.skip = skip if isinstance(skip, nn.Module) else None
        self.noise_in_eval, self.noise_scale = noise_in_eval, 1.0
        self.mode: Mode = "train"
        self.objective: Objective | None = None
        self.probe: Callable[[Tensor], Tensor] | None = None
        self._register(next(iter(() if inner is None else inner.parameters()), torch.zeros(())).device, mean_shift)
        if clip_sigma is not None and hw is not None and self.lowering is not None:
            site = Site("weight", self.lowering.op, hw, clip_sigma=clip_sigma)
            self.weight_bound = fixed_bound(self._weight(), site)
        self.set_sigma(sigma)

    def _register(self, device: torch.device, mean_shift: bool) -> None:
        """The layer's own numbers, all frozen until :meth:`use` says what is learned."""
        count = len(FEATURES) if self.lowering is not None else len(FEATURES) - 1
        self.theta = nn.Parameter(torch.zeros(count, device=device), requires_grad=False)
        self.log_level = nn.Parameter(torch.zeros((), device=device), requires_grad=False)
        self.register_buffer("unit2", torch.zeros((), device=device))
        self.register_buffer("scales", torch.ones(count, device=device))
        self.register_buffer("ranges", torch.zeros(2, device=device))
        self.register_buffer("weight_bound", None)
        self.shift_gain: nn.Parameter | None = None
        self.shift_offset: nn.Parameter | None = None
        if mean_shift and self.lowering is not None:
            outputs = self.lowering.outputs
            self.shift_gain = nn.Parameter(torch.zeros(outputs, device=device), requires_grad=False)
            self.shift_offset = nn.Parameter(torch.zeros(outputs, device=device), requires_grad=False)

    @classmethod
    def literal(cls, sigma: float, *, skip: Skip = None) -> "StochasticResidual":
        """r = ReLU(x) + eps, eps ~ N(0, sigma^2): the simplest setting.

        A constant eps behind the activation adds nothing to dr/dx: a network trained on it learns margins,
        not where its hardware is quiet.
        """
        return cls(None, form="post", activation=nn.ReLU(), skip=skip, sigma=sigma)

    def bounds(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The weight and its fixed bound, where there is one and the inner layer does not hold it itself."""
        if self.weight_bound is not None and not isinstance(self.inner, AnalogLayer):
            yield self._weight(), self.weight_bound

    # --- settings ---------------------------------------------------------------------------------

    def use(self, mode: Mode, *, objective: Objective | None = None) -> "StochasticResidual":
        """Say what is learned from now on; returns the layer.

        "train": weights, with s(x) given; theta is frozen unless the loss is declared to hold a likelihood
        or an energy (``objective``). "fit": theta, by :meth:`law` and a likelihood; a task loss does not
        reach theta, the likelihood not the weights. "budget": :attr:`level` in place of the remainder, by a loss
        that is declared to hold an energy (``objective="energy"``).

        A forward pass in training that would move theta or the level by a loss without its objective raises
        :class:`TrainingError`: on the task alone s(x) collapses to 0.
        """
        checks.check_use(mode, objective, bool(self.unit2 > 0))
        self.mode, self.objective = mode, objective
        self.theta.requires_grad_(mode == "fit" or (mode == "train" and objective is not None))
        self.log_level.requires_grad_(mode == "budget")
        return self

    @torch.no_grad()
    def set_sigma(self, sigma: float) -> None:
        """Make the remainder a constant of standard deviation ``sigma`` >= 0, in units of the output."""
        checks.check_positive("sigma", sigma, zero=True)
        self.unit2.fill_(sigma**2)
        self.theta.zero_()[0] = 1.0
        self.scales.fill_(1.0)

    @property
    def level(self) -> Tensor:
        """s of the budget mode, in units of the output, > 0."""
        return self.log_level.exp()

    @torch.no_grad()
    def set_level(self, level: float) -> None:
        """Set the level of the budget mode."""
        checks.check_positive("level", level)
        self.log_level.copy_(torch.as_tensor(level).log())

    @property
    def on_substrate(self) -> bool:
        """Whether a converted inner layer already gives the physical terms."""
        return isinstance(self.inner, AnalogLayer)

    # --- sampling ---------------------------------------------------------------------------------

    def draw(self, x: Tensor) -> LayerNoise:
        """Draw what one forward pass for ``x`` needs, from torch's generator."""
        scale = self._scale()
        if self.lowering is None:
            return LayerNoise(fresh=scale * torch.randn_like(x))
        shape = output_shape(self.lowering.op, self.lowering.padded(x))
        fresh = scale * torch.randn(shape, dtype=self._dtype(x), device=x.device)
        if self.physics is None or self.on_substrate:
            return LayerNoise(fresh=fresh)
        return LayerNoise(self.physics.draw(self._weight().shape, x.device, scale), fresh)

    # --- arithmetic -------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled() and self.objective is None:
            checks.refuse_collapse(self.mode, self.theta.requires_grad, self.log_level.requires_grad)
        return self.respond(x, self.draw(x) if self._is_noisy() else None)

    def respond(self, x: Tensor, noise: LayerNoise | None) -> Tensor:
        """The layer's output for given draws; ``None``: without randomness. Pure but for observed ranges."""
        driven, a, variance = self._product(x, noise)
        if noise is not None:
            own = self._own_variance(a, driven)
            variance = own if variance is None else variance + own
        base = self._shifted(a if self.form == "pre" else self.activation(a))
        if self.probe is not None:
            base = self.probe(base)
        r = perturbed(base, variance, None if noise is None else noise.fresh)
        if self.form == "pre":
            r = self.activation(r)
        if self.skip is None and not self.identity_skip:
            return r
        carried = x if self.skip is None else self.skip(x)
        checks.check_skip(carried, r)
        return carried + r

    def law(self, x: Tensor, *, of_reads: bool = False) -> ReadLaw:
        """Mean and variance of one read of a (form "pre") or of phi(a) ("post") for the inputs ``x``.

        All terms, over chips and reads; ``of_reads``: only what differs between repeated reads of one chip
        (fresh noise, ADC rounding, remainder). In mode "fit" only theta gets a gradient.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.mode != "fit"):
            psi, base, physical = self.terms(x, of_reads=of_reads)
            mean = self._shifted(base)
        learned = self._remainder(psi, self.theta, base.dtype)
        return ReadLaw(mean, (learned if physical is None else physical + learned).expand_as(mean))

    def terms(self, x: Tensor, *, of_reads: bool) -> tuple[tuple[Tensor, ...], Tensor, Tensor | None]:
        """(psi, mean before the shift, physical variance) of :meth:`law`: all that holds no learned number."""
        if self.lowering is None:
            return features(x, None, None), x if self.form == "pre" else self.activation(x), None
        self._check(x)
        op, driven = self.lowering.op, self.lowering.padded(x)
        a = op.apply(driven, self._weight(), self._bias())
        physical = None
        if self.physics is not None and not self.on_substrate:
            physical = self.physics.spread(driven, a, self._weight(), self.weight_bound, self.ranges, of_reads=of_reads)
        return features(a, driven, op), a if self.form == "pre" else self.activation(a), physical

    def _product(self, x: Tensor, noise: LayerNoise | None) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """(padded input, a, physical variance); a holds the static noise where weights are drawn."""
        if self.inner is None or self.lowering is None:
            return None, x, None
        self._check(x)
        if noise is None:
            return None, self.inner(x), None
        driven = self.lowering.padded(x)
        if self.physics is None or self.on_substrate:
            return driven, self.inner(x), None
        checks.refuse_positions(self.physics.static, self.lowering, x)
        found = self.physics.product(driven, self._weight(), self._bias(), self.weight_bound, self.ranges, noise.static)
        if self.training:
            with torch.no_grad():
                self.ranges.copy_(self.physics.moved(self.ranges, found.observed))
        return driven, found.a, found.variance

    def _own_variance(self, a: Tensor, driven: Tensor | None) -> Tensor:
        """What the layer adds to the physical terms: the remainder, or the level of a budget."""
        if self.mode == "budget":
            return (2 * self.log_level).exp().to(a.dtype)
        theta = self.theta if self.mode == "train" else self.theta.detach()
        return self._remainder(features(a, driven, None if self.lowering is None else self.lowering.op), theta, a.dtype)

    def _remainder(self, psi: tuple[Tensor, ...], theta: Tensor, dtype: torch.dtype) -> Tensor:
        return remainder(psi, theta.to(dtype), self.unit2.to(dtype), self.scales.to(dtype))

    def _shifted(self, base: Tensor) -> Tensor:
        if self.shift_gain is None or self.shift_offset is None or self.lowering is None:
            return base
        gain, offset = (self.lowering.op.over_columns(v).to(base.dtype) for v in (self.shift_gain, self.shift_offset))
        return base * (1 + gain) + offset

    # --- small things -----------------------------------------------------------------------------

    def _check(self, x: Tensor) -> None:
        low = self.lowering
        assert low is not None
        dim = low.feature_dim(x) if isinstance(x, Tensor) else -1
        check_input(f"{checks.LAYER}.inner.weight", x, self._weight(), low.inputs, dim, low.dims)

    def _is_noisy(self) -> bool:
        if not (self.training or self.noise_in_eval) or self._scale() == 0:
            return False
        # A chip, or a device, is itself: nothing is added to what it answers.
        return not isinstance(self.inner, AnalogLayer) or isinstance(self.inner.substrate, Surrogate)

    def _scale(self) -> float:
        substrate = self.inner.substrate if isinstance(self.inner, AnalogLayer) else None
        return substrate.noise_scale if isinstance(substrate, Surrogate) else self.noise_scale

    def _dtype(self, x: Tensor) -> torch.dtype:
        kind = x.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype

    def _weight(self) -> Tensor:
        assert self.inner is not None
        return self.inner.weight  # type: ignore[return-value]  # of an nn.Linear, a convolution or its analog twin

    def _bias(self) -> Tensor | None:
        assert self.inner is not None
        return self.inner.bias  # type: ignore[return-value]

    def extra_repr(self) -> str:
        where = "no hardware" if self.hw is None else hardware_text(self.hw)
        static = "" if self.physics is None else f", static={self.physics.static}"
        if self.on_substrate:
            where, static = "physical terms: the substrate's", ""
        skip = "identity" if self.identity_skip else "none" if self.skip is None else "module"
        return f"form={self.form}, skip={skip}, mode={self.mode}, {where}{static}"


@contextmanager
def probing(layer: StochasticResidual, probe: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, ``probe`` stands where the layer's noise enters: it takes the tensor and returns another."""
    before = layer.probe
    layer.probe = probe
    try:
        yield
    finally:
        layer.probe = before
