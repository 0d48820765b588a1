"""A tensor of normal variables that flows through a network's own forward code.

A :class:`Signal` looks like a tensor (shape, dtype, device) and carries the mean and the variance of each
element, and what its elements share. Functions of torch that have a rule (``moments.rules``) work on it; any
other is an error that names it.
"""

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor

from mho.errors import ConversionError
from mho.moments import gauss
from mho.moments.gauss import Passed
from mho.moments.sources import BendSource, FreshSource, Source, Tape

Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}
"""The rule of each function of torch; filled by ``moments.rules``."""

_METADATA: frozenset[Any] = frozenset(
    {Tensor.dim, Tensor.size, Tensor.numel, Tensor.is_floating_point, Tensor.is_complex, Tensor.__len__}
    | {getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "requires_grad", "layout")}
)


@final
class Signal(Tensor):
    """Elements ~ N(mean, var), [N, ...].

    ``m``, ``v``: mean and variance. ``amp``: shared amplitude of each element, or ``None`` for none: within one
    image and channel Cov(p, q) is taken as amp_p amp_q for positions p != q, and as 0 between channels.
    ``group``: positions of each channel in the last dimension (a flattened map), 1 where the positions are
    dimensions of their own. ``tape``: where sources are noted, ``None`` to carry moments only.

    ``before``: of a signal max(u, 0), the mean and variance of u, as long as only elements are moved. ``terms``: of a
    sum, the rectified one of its two terms and the other. A rectified skip is no normal variable, and the next
    rectifier in its way is open when the first was.
    """

    m: Tensor
    v: Tensor
    amp: Tensor | None
    group: int
    tape: Tape | None
    before: tuple[Tensor, Tensor] | None
    terms: tuple["Signal", "Signal"] | None

    @staticmethod
    def __new__(
        cls, m: Tensor, v: Tensor, amp: Tensor | None = None, group: int = 1, tape: Tape | None = None
    ) -> "Signal":
        if tape is not None and (m.dim() == 0 or m.shape[0] != tape.images):
            raise ConversionError(
                f"mho.moments: a tensor of shape {tuple(m.shape)} among {tape.images} images: the first dimension "
                "has to stay the batch. Way out: reshape the other dimensions only."
            )
        made = Tensor._make_wrapper_subclass(cls, m.shape, dtype=m.dtype, device=m.device)
        made.m, made.v, made.amp, made.group, made.tape = m, v, amp, group, tape
        made.before, made.terms = None, None
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Signal(shape={tuple(self.m.shape)}, shared={self.amp is not None}, group={self.group})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule = RULES.get(func)
        if rule is not None:
            return rule(*args, **(kwargs or {}))
        if func in _METADATA:
            return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        name = getattr(func, "__qualname__", None) or getattr(func, "__name__", repr(func))
        raise ConversionError(
            f"mho.moments: {name} has no rule for a tensor of moments. Way out: use a function that has one (see "
            "mho/moments/README.md), or simulate virtual chips with mho.evaluate."
        )

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise ConversionError(
            f"mho.moments: {func} reached a tensor of moments below torch's functions. Way out: plain torch."
        )

    def through(self, f: Callable[[Tensor], Tensor], *, group: int | None = None, shared: bool = True) -> "Signal":
        """The same rearrangement of means, variances and amplitudes: views, slices, padding with zeros."""
        t = f(self.amp) if shared and self.amp is not None else None
        made = Signal(f(self.m), f(self.v), t, self.group if group is None else group, self.tape)
        made.before = None if self.before is None else (f(self.before[0]), f(self.before[1]))
        return made

    def affine(self, scale: Tensor | float, shift: Tensor | float = 0.0) -> "Signal":
        """scale x + shift with known numbers that broadcast without adding dimensions."""
        square = scale * scale
        t = None if self.amp is None else self.amp * scale
        m, v = self.m * scale + shift, self.v * square
        if m.shape != self.m.shape:
            raise ConversionError(
                f"mho.moments: a known tensor widens {tuple(self.m.shape)} to {tuple(m.shape)}. Way out: expand before."
            )
        return Signal(m, v, t, self.group, self.tape)

    def bend(self, f: Callable[[Tensor, Tensor], Passed]) -> "Signal":
        """f(x) for a nonlinearity with moments f(m, v). The variance is first corrected (``moments.correction``)."""
        x = self if self.tape is None else self.corrected(self.tape.factor(self.m, self.v, self.tape))
        return x.passing(f(*x.moments()))

    def corrected(self, factor: float) -> "Signal":
        """The same means with variances times ``factor``."""
        t = None if self.amp is None else self.amp * factor**0.5
        return Signal(self.m, self.v * factor, t, self.group, self.tape)

    def rounded(self, f: Callable[[Tensor, Tensor], Passed]) -> "Signal":
        """f(x) for a converter with moments f(m, v)."""
        return self.passing(f(*self.moments()), rounding=True)

    def passing(self, passed: Passed, *, rounding: bool = False) -> "Signal":
        """f(x) for an elementwise f whose moments are ``passed``: statistical linearisation, slope = gain."""
        return self.linearised(passed, passed.gain * self.m, rounding=rounding)

    def rectified(self) -> "Signal":
        """max(x, 0), which remembers what it was made of."""
        x = self if self.tape is None else self.corrected(self.tape.factor(self.m, self.v, self.tape))
        if self.terms is None:
            made = x.passing(gauss.relu(*x.moments()))
        else:
            skip, branch = self.terms
            assert skip.before is not None
            (m_b, v_b), v_s = branch.moments(), skip.v
            # What the closure lacks is put down to the branch: the skip has been corrected where it was made.
            v_b = torch.maximum(x.v - v_s, 0.1 * v_b) if self.tape is not None else v_b
            both = gauss.relu_of_sum(*skip.before, m_b, v_b)
            explained = both.skip_gain.square() * v_s + both.gain.square() * v_b
            gain = (explained / (v_s + v_b).clamp_min(torch.finfo(v_s.dtype).tiny)).sqrt()
            straight = both.skip_gain * skip.m + both.gain * branch.m
            made = x.linearised(Passed(both.mean, gain, torch.maximum(both.var, explained)), straight)
        made.before = x.moments()
        return made

    def linearised(self, passed: Passed, straight: Tensor, *, rounding: bool = False) -> "Signal":
        """A nonlinearity as its mean plus the changes of ``straight``, a linear function on the graph, and a source.

        The excess variance - gain^2 v of a pair at correlation rho is correlated by about rho^2 (its leading
        Hermite order); that of a converter's rounding is independent.
        """
        excess = (passed.var - passed.gain.square() * self.v).clamp_min(0)
        t, bent = None, None
        if self.amp is not None:
            t = passed.gain * self.amp
            if not rounding:
                share = self.amp.square() / self.v.clamp_min(torch.finfo(self.v.dtype).tiny)
                bent = (share.clamp(0, 1) * excess.clamp_min(0).sqrt()) * torch.sign(self.amp)
                t = (t.square() + bent.square()).clamp_min(0).sqrt() * torch.sign(self.amp)
        if self.tape is None:
            return Signal(passed.mean, passed.var, t, self.group)
        m = on_graph(straight + (passed.mean - straight.detach()))
        made = Signal(m, passed.var, t, self.group, self.tape)
        source: Source = FreshSource(m, excess) if rounding else BendSource(m, excess, bent, self.group)
        if bool((excess > 0).any()):
            self.tape.sources.append(source)
        return made

    def moments(self) -> tuple[Tensor, Tensor]:
        """(mean, variance) outside the graph of a tape."""
        return (self.m if self.tape is None else self.m.detach()), self.v


def on_graph(m: Tensor) -> Tensor:
    """``m`` as a node whose gradient can be asked for."""
    return m if m.requires_grad else m.detach().requires_grad_()


def sure(x: Tensor, tape: Tape | None) -> Signal:
    """A known tensor as a signal without variance."""
    return Signal(x, torch.zeros_like(x), None, 1, tape)
