"""Refusals of the stochastic residual layer: same words, cause and way out."""

from torch import Tensor, nn

from mho.crossbar.ops import LinearOp
from mho.errors import ConversionError, InputError, TrainingError
from mho.hardware.spec import Hardware
from mho.nn.site import AnalogLayer
from mho.nn.stochastic_lower import Lowering

LAYER = "StochasticResidual"


def check_words(form: str, static: str, skip: object) -> None:
    """Raise :class:`InputError` for a setting that is misspelt."""
    if form not in ("pre", "post"):
        raise InputError(f"{LAYER}: form = {form!r}: must be 'pre' or 'post'.")
    if static not in ("weights", "outputs", "positions"):
        raise InputError(f"{LAYER}: static = {static!r}: must be 'weights', 'outputs' or 'positions'.")
    if skip is not None and skip != "identity" and not isinstance(skip, nn.Module):
        raise InputError(f"{LAYER}: skip = {skip!r}: must be None, 'identity' or a module.")


def check_use(mode: str, objective: str | None, has_unit: bool) -> None:
    """Raise for an unknown use, and for a remainder without a unit that is to be fitted."""
    if mode not in ("train", "fit", "budget"):
        raise InputError(f"{LAYER}.use: mode = {mode!r}: must be 'train', 'fit' or 'budget'.")
    if objective not in (None, "likelihood", "energy"):
        raise InputError(f"{LAYER}.use: objective = {objective!r}: must be 'likelihood', 'energy' or None.")
    if mode == "budget" and objective == "likelihood":
        raise InputError(
            f"{LAYER}.use: mode = 'budget' with objective = 'likelihood': a level is weighed against an energy. "
            "Way out: objective='energy', or use('fit') for a likelihood of reads."
        )
    if mode == "fit" and not has_unit:
        raise TrainingError(
            f"{LAYER}.use: the remainder has no unit yet, theta would never move. Way out: mho.objectives.fit_noise, "
            "which sets it from the reads, or set_sigma(an expected sigma)."
        )


def check_parts(
    inner: nn.Module | None, hw: Hardware | None, clip_sigma: float | None, static: str, mean_shift: bool
) -> None:
    """Raise :class:`ConversionError` for parts that need one another, or exclude one another."""
    if clip_sigma is not None and not 0 < clip_sigma < float("inf"):
        raise InputError(f"{LAYER}: clip_sigma = {clip_sigma!r}: must be above 0, or None for no bound.")
    if mean_shift and inner is None:
        raise ConversionError(
            f"{LAYER}: mean_shift belongs to the outputs of an inner layer. Way out: give one, or mean_shift=False."
        )
    if hw is None:
        if clip_sigma is not None:
            raise ConversionError(f"{LAYER}: clip_sigma bounds the weights of a hardware. Way out: give hw=.")
        if static != "weights":
            raise ConversionError(f"{LAYER}: static = {static!r} is about a hardware's noise. Way out: give hw=.")
    elif inner is None:
        raise ConversionError(
            f"{LAYER}: hardware without an inner layer has no product to be noisy. Way out: hw=None and sigma=, or an "
            "inner layer."
        )
    elif isinstance(inner, AnalogLayer):
        raise ConversionError(
            f"{LAYER}: the inner layer is converted, its substrate gives the physical terms. Way out: hw=None."
        )


def refuse_positions(static: str, lowering: Lowering, x: Tensor | None) -> None:
    """Raise where static noise would be drawn anew at each output of one sample.

    ``x``: the input, ``None`` before there is one.
    """
    if static != "outputs":
        return
    if not isinstance(lowering.op, LinearOp):
        why = "a convolution reads one kernel at all positions"
    elif x is not None and x.dim() > 2:
        why = f"an input of shape {tuple(x.shape)} holds many vectors a sample"
    else:
        return
    raise ConversionError(
        f"{LAYER}: static='outputs' draws static noise anew at each output, but {why}, and independent draws "
        "average out when they are pooled. Way out: static='weights'; or static='positions' if that is meant."
    )


def refuse_collapse(mode: str, theta: bool, level: bool) -> None:
    """Raise where a forward pass would train s(x) and no objective is declared: a task loss alone drives it to 0.

    ``theta``, ``level``: whether they require a gradient. In mode "fit" a forward pass reaches neither.
    """
    if mode == "train" and theta:
        raise TrainingError(
            f"{LAYER}: theta would be trained on the task loss, on which s(x) collapses to 0. Way out: use('train') to "
            "freeze theta; mho.objectives.fit_noise, or use('fit') and BetaNLL on law(x), to fit it to reads; "
            "use('budget', objective='energy') and noise_energy to weigh noise against energy; "
            "use('train', objective='likelihood') if the loss holds such a term."
        )
    if mode == "budget" and level:
        raise TrainingError(
            f"{LAYER}: the level of use('budget') would be trained on the task loss, on which s(x) collapses to 0. "
            "Way out: use('budget', objective='energy') and task loss + lambda noise_energy(layer.level, ...) of "
            "mho.objectives; noise_curvature and noise_budget for the closed form; use('train') to keep s(x) as it is."
        )


def check_skip(carried: Tensor, r: Tensor) -> None:
    """Raise :class:`InputError` where skip and layer cannot be added."""
    if carried.shape != r.shape:
        raise InputError(
            f"{LAYER}: the skip gives {tuple(carried.shape)}, the layer {tuple(r.shape)}. Way out: a module for skip= "
            "that brings the input to the shape of the output (a 1x1 convolution, a Linear)."
        )


def check_positive(what: str, value: float, *, zero: bool = False) -> None:
    """Raise :class:`InputError` unless ``value`` is finite and above 0 (``zero``: or 0)."""
    if not (0 < value < float("inf") or (zero and value == 0)):
        bound = "not negative" if zero else "above 0"
        raise InputError(f"{LAYER}: {what} = {value!r}: must be finite and {bound}.")
