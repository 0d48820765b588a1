"""Names and numbers of a loss, resolved or refused."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor

from mho.errors import RecipeError, nearest
from mho.objectives.levels import SCHEDULES, Schedule
from mho.objectives.tasks import cross_entropy, mean_squared_error

Task = Callable[[Tensor, Tensor], Tensor]
"""(outputs, target) -> scalar, a mean over the batch."""

_TASKS: Mapping[str, Task] = MappingProxyType({"cross_entropy": cross_entropy, "mse": mean_squared_error})


def resolve_task(task: str | Task, label_smoothing: float) -> tuple[str, Task]:
    """The name of a task for tables, and the task; :class:`RecipeError` for one that is not known."""
    if isinstance(task, str):
        check_name("task", task, tuple(_TASKS))
    if label_smoothing and task != "cross_entropy":
        raise RecipeError(
            f"PhysicsInformedLoss: label_smoothing = {label_smoothing:g} with task = {task!r}, which has no labels to "
            "smooth. Fix: task = 'cross_entropy', or label_smoothing = 0."
        )
    if task == "cross_entropy":
        return "cross_entropy", lambda outputs, target: cross_entropy(outputs, target, label_smoothing)
    if isinstance(task, str):
        return task, _TASKS[task]
    if not callable(task):
        raise RecipeError(
            f"PhysicsInformedLoss: task = {task!r}. Fix: {' or '.join(map(repr, _TASKS))} or a function of "
            "(outputs, target)."
        )
    return getattr(task, "__name__", type(task).__name__), task


def resolve_schedule(schedule: str | Schedule) -> Schedule:
    """A schedule by name, or the function itself; :class:`RecipeError` for one that is not known."""
    if isinstance(schedule, str):
        check_name("levels_schedule", schedule, tuple(SCHEDULES))
        return SCHEDULES[schedule]
    if not callable(schedule):
        raise RecipeError(
            f"PhysicsInformedLoss: levels_schedule = {schedule!r}. Fix: {' or '.join(map(repr, SCHEDULES))} or a "
            "function of the share of training done."
        )
    return schedule


def check_name(field: str, value: str, known: tuple[str, ...]) -> None:
    """Raise :class:`RecipeError`, with the nearest names, unless ``value`` is one of ``known``."""
    if value not in known:
        raise RecipeError(f"PhysicsInformedLoss: {field} = {value!r} is unknown. {nearest(str(value), known)}")


def check_number(field: str, value: float, below: float, fix: str) -> None:
    """Raise :class:`RecipeError` unless ``value`` is a number with 0 <= value < ``below``."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0.0 <= value < below:
        raise RecipeError(f"PhysicsInformedLoss: {field} = {value!r}. Fix: {fix}.")


__all__ = ["Task", "check_name", "check_number", "resolve_schedule", "resolve_task"]
