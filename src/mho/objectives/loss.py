"""The task loss and what the hardware adds to it, term by term."""

import math
from contextlib import nullcontext
from typing import Literal, final

import torch
from torch import Tensor, nn

from mho.errors import ConversionError, InputError, RecipeError
from mho.hardware import PulsedDevice
from mho.nn.site import analog_layers
from mho.nn.surrogate import draw_seed
from mho.objectives import jacobian as sensitivity
from mho.objectives.arguments import Task, check_name, check_number, resolve_schedule, resolve_task
from mho.objectives.asymmetry import mean_asymmetry
from mho.objectives.describe import Term, table
from mho.objectives.distillation import Teacher
from mho.objectives.levels import Schedule, level_distance
from mho.objectives.margin_noise import margin_variance
from mho.objectives.neuron import Line, lost_energy
from mho.objectives.observe import Observed, observed
from mho.objectives.power import array_power_uW
from mho.objectives.range_filling import unfilled
from mho.objectives.tasks import class_margin, half_squared_error
from mho.objectives.weights import required_weights

Estimator = Literal["projection", "exact", "margin"]
Norm = Literal["l2", "l1"]

_ESTIMATORS = ("projection", "exact", "margin")
_NORMS = ("l2", "l1")
_LINES = ("own", "symmetric")


@final
class PhysicsInformedLoss:
    """task + sum_k weight_k term_k, each term switched on by a weight above 0 (see README.md of this folder).

    ``mho.fit(model, loader, loss=...)`` takes it; in a loop of one's own: ``loss.on_model(model, x, y)``. All terms
    read one forward pass.

    * ``task``: "cross_entropy" (with ``label_smoothing``), "mse", or any callable(outputs, target). With a ``teacher``
      (:class:`~mho.objectives.Teacher`) part of it follows the teacher's outputs.
    * ``jacobian``: input sensitivity |df/dx|. ``jacobian_estimator``: "projection" on ``projections`` random
      directions, "exact", or "margin" (of the class margin alone); ``jacobian_norm``: "l2" is the squared
      Frobenius norm, "l1" the smoothed sum of absolute values.
    * ``margin_noise``: variance of the class margin over chips, first order in the static noise of the weights.
    * ``levels``: distance to the conductance levels, times ``levels_schedule``: "constant", "linear", "late", or a
      function of the share of training done.
    * ``range_filling``: rms(w)/w_max below ``range_target``.
    * ``neuron``: what the saturating analog neuron takes away from a line: its "own" one, with two gains, or with
      ``neuron_line="symmetric"`` the one of the positive side, from which unequal gains take away too (not for a
      rectifier, whose missing side is its function).
    * ``asymmetry``: unequal up and down response of ``device`` (``None``: of the hardware's ``update``) at the weights.
    * ``power``: mean power of a cell.

    Random directions come from a seed that torch's global generator gives, as all noise of training does: a
    resumed run sees the same ones. Raises :class:`RecipeError` for arguments that are impossible or contradict
    each other; what a term misses in model, hardware or data is an error at its first use.
    """

    def __init__(
        self,
        task: str | Task = "cross_entropy",
        *,
        jacobian: float = 0.0,
        jacobian_estimator: Estimator = "projection",
        jacobian_norm: Norm = "l2",
        projections: int = 1,
        margin_noise: float = 0.0,
        levels: float = 0.0,
        levels_schedule: str | Schedule = "linear",
        range_filling: float = 0.0,
        range_target: float = 0.5,
        neuron: float = 0.0,
        neuron_line: Line = "own",
        asymmetry: float = 0.0,
        device: PulsedDevice | None = None,
        power: float = 0.0,
        label_smoothing: float = 0.0,
        teacher: Teacher | None = None,
    ) -> None:
        self.teacher = teacher
        self.weights = {
            "jacobian": jacobian,
            "margin_noise": margin_noise,
            "levels": levels,
            "range_filling": range_filling,
            "neuron": neuron,
            "asymmetry": asymmetry,
            "power": power,
        }
        for name, weight in self.weights.items():
            check_number(name, weight, math.inf, "a finite weight >= 0 (0 switches the term off)")
        check_number("label_smoothing", label_smoothing, 1.0, "at least 0 and below 1")
        self.task_name, self._task = resolve_task(task, label_smoothing)
        check_name("jacobian_estimator", jacobian_estimator, _ESTIMATORS)
        check_name("jacobian_norm", jacobian_norm, _NORMS)
        check_name("neuron_line", neuron_line, _LINES)
        if jacobian_norm == "l1" and jacobian_estimator == "projection":
            raise RecipeError(
                "PhysicsInformedLoss: jacobian_norm = 'l1' with jacobian_estimator = 'projection': random projections "
                "are unbiased for squares only. Fix: jacobian_estimator = 'margin' (one backward pass) or 'exact'."
            )
        if type(projections) is not int or projections < 1:
            raise RecipeError(f"PhysicsInformedLoss: projections = {projections!r}. Fix: a whole number, at least 1.")
        if not 0.0 < range_target <= 1.0:
            raise RecipeError(f"PhysicsInformedLoss: range_target = {range_target!r}. Fix: above 0, at most 1.")
        self.estimator, self.norm, self.projections = jacobian_estimator, jacobian_norm, projections
        self.levels_schedule = resolve_schedule(levels_schedule)
        self.range_target, self.neuron_line, self.device = range_target, neuron_line, device
        self.progress = 1.0

    @classmethod
    def input_sensitivity(
        cls, lam: float, *, norm: Norm = "l1", estimator: Estimator = "exact"
    ) -> "PhysicsInformedLoss":
        """1/N sum_n [ 1/2 ||y_n - f(x_n)||^2 + lam |df/dx_n| ]; "l1": sum of |df_o/dx_i|, "l2": of its squares."""
        return cls(half_squared_error, jacobian=lam, jacobian_norm=norm, jacobian_estimator=estimator)

    def set_progress(self, share: float) -> None:
        """Tell the loss what share of training is done, in [0, 1]; 1 until told. Schedules depend on it alone."""
        if not 0.0 <= share <= 1.0:
            raise RecipeError(f"PhysicsInformedLoss: progress = {share!r}. Fix: the share of steps done, 0 to 1.")
        self.progress = float(share)

    def on_model(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The loss of one batch: a differentiable scalar."""
        values = self._values(model, x, y)
        total = values.pop("task")
        for name, value in values.items():
            total = total + self._weight(name) * value
        return total

    def terms(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The unweighted value of the task and of each term that is on, detached: for logs.

        A forward pass like any other: in train mode it moves converter ranges and batch statistics.
        """
        return {name: value.detach() for name, value in self._values(model, x, y).items()}

    def describe(self) -> str:
        """A table of all terms: weight, measure, unit, and cost beyond the task's own passes."""
        on = self.weights
        return table(
            (
                Term("task", 1.0, self.task_name, "nat" if self.task_name == "cross_entropy" else "loss",
                     "none" if self.teacher is None else "1 forward of the teacher"),
                Term("jacobian", on["jacobian"], *self._jacobian_text()),
                Term("margin_noise", on["margin_noise"], "variance of the class margin over chips", "logit^2",
                     "1 backward with a graph, 1 product a layer (neuron, ADC), kernel gradients"),
                Term("levels", on["levels"], "mean squared distance to the nearest level", "level step^2",
                     "weights only"),
                Term("range_filling", on["range_filling"], f"mean max(0, {self.range_target:g} - rms(w)/w_max)^2", "1",
                     "weights only"),
                Term("neuron", on["neuron"], f"mean squared loss in the saturating neuron ({self.neuron_line} line)",
                     "ADC range^2",
                     "1 product a layer"),
                Term("asymmetry", on["asymmetry"], "mean ((f_up - f_down)/(f_up + f_down))^2", "1", "weights only"),
                Term("power", on["power"], "mean |g| v_read^2", "uW a cell", "weights only"),
            )
        )  # fmt: skip

    def _jacobian_text(self) -> tuple[str, str, str]:
        of = "m" if self.estimator == "margin" else "f"
        measure = f"||d{of}/dx||^2" if self.norm == "l2" else f"sum |d{of}/dx|"
        unit = f"({'logit' if of == 'm' else 'output'}/input)" + ("^2" if self.norm == "l2" else "")
        count = {"projection": f"{self.projections}", "exact": "one an output:", "margin": "1"}[self.estimator]
        return f"{measure} ({self.estimator})", unit, f"{count} backward with a graph"

    def _weight(self, name: str) -> float:
        weight = self.weights[name]
        if name != "levels":
            return weight
        factor = self.levels_schedule(self.progress)
        check_number(f"levels_schedule({self.progress:g})", factor, math.inf, "a finite factor >= 0")
        return weight * factor

    def _values(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        on = {name for name, weight in self.weights.items() if weight > 0}
        looks = bool(on & {"margin_noise", "neuron"})
        if looks:
            required_weights(model, min(on & {"margin_noise", "neuron"}))
        _refuse_once_differentiable(model, on)
        # Slopes are part of the value, also where the caller wants no graph of it.
        with torch.enable_grad() if on & {"jacobian", "margin_noise"} else nullcontext():
            x = _differentiable(x) if "jacobian" in on else x
            with observed(model) if looks else nullcontext(Observed()) as seen:
                outputs = model(x)
            task = self._task(outputs, y)
            values = {"task": task if self.teacher is None else self.teacher.mixed(task, outputs, x)}
            if "jacobian" in on:
                values["jacobian"] = self._jacobian(outputs, x, y)
            if "margin_noise" in on:
                values["margin_noise"] = margin_variance(class_margin(outputs, y), seen.products).mean()
            if "neuron" in on:
                values["neuron"] = lost_energy(seen.products, self.neuron_line)
        values.update(self._weight_terms(model, on))
        return values

    def _weight_terms(self, model: nn.Module, on: set[str]) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        if "levels" in on:
            values["levels"] = level_distance(required_weights(model, "levels"))
        if "range_filling" in on:
            values["range_filling"] = unfilled(required_weights(model, "range_filling"), self.range_target)
        if "asymmetry" in on:
            values["asymmetry"] = mean_asymmetry(required_weights(model, "asymmetry"), self.device)
        if "power" in on:
            values["power"] = array_power_uW(required_weights(model, "power"))
        return values

    def _jacobian(self, outputs: Tensor, x: Tensor, y: Tensor) -> Tensor:
        if self.estimator == "margin":
            return sensitivity.of_margin(class_margin(outputs, y), x, self.norm)
        if outputs.dim() < 2:
            raise InputError(
                f"jacobian: outputs of shape {tuple(outputs.shape)} have no batch of vectors. Fix: [batch, outputs]."
            )
        if self.estimator == "exact":
            return sensitivity.exact(outputs, x, self.norm)
        samples, count = len(outputs), outputs.flatten(1).shape[1]
        generator = torch.Generator().manual_seed(draw_seed())
        return sensitivity.projected(outputs, x, sensitivity.sphere(self.projections, samples, count, generator))


def _differentiable(x: Tensor) -> Tensor:
    if not x.dtype.is_floating_point:
        raise InputError(
            f"jacobian: the input is {x.dtype}, and df/dx needs real numbers. Fix: x.float(); for tokens, jacobian = 0."
        )
    return x.detach().requires_grad_()


def _refuse_once_differentiable(model: nn.Module, on: set[str]) -> None:
    """A noisy backward pass is a read of the array and has no derivative of its own."""
    slopes = on & {"jacobian", "margin_noise"}
    if not slopes or not model.training:
        return
    for _, layer in analog_layers(model):
        for site in layer.sites.values():
            if site.backward == "noisy":
                raise ConversionError(
                    f"{site.name}: {min(slopes)} differentiates the backward pass, which is noisy here and cannot be. "
                    f"Way out: mho.convert(..., backward='ideal'), or {min(slopes)} = 0."
                )


__all__ = ["PhysicsInformedLoss"]
