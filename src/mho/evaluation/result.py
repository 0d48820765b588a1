"""What an evaluation found: labelled outcomes of every image on every chip, and their numbers."""

import io
import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from rich.table import Table

from mho.errors import CheckpointError, InputError
from mho.evaluation.atomic import write_atomically
from mho.evaluation.statistics import fifth_percentile, hierarchical_bootstrap, percentile_note
from mho.units import duration_text, seconds

DIMS = ("seed", "chip", "age_s", "noise_scale", "bits", "image")
POINT = ("age_s", "noise_scale", "bits")
_FORMAT = 1

Choice = float | str | Sequence[float | str] | None


@dataclass(frozen=True)
class Result:
    """Outcomes of a sweep. ``data`` holds

    ``correct`` (bool) of dims (seed, chip, age_s, noise_scale, bits, image), any of size one or more;
    ``bits`` = 0 means converters as described. Optional ``clean`` (bool) of dims (seed, image): the same
    weights without noise. ``attrs``: hardware, model, chip_seed, versions, command, ... (what JSON can hold).

    Raises :class:`InputError` for other dims, dtypes or missing labels.
    """

    data: xr.Dataset

    def __post_init__(self) -> None:
        correct = self.data.get("correct")
        if correct is None or correct.dims != DIMS or correct.dtype != np.bool_ or 0 in correct.shape:
            found = "nothing" if correct is None else f"{correct.dtype} {dict(correct.sizes)}"
            raise InputError(
                f"Result.data['correct']: found {found}, needs bool of dims {DIMS}, none empty. Fix: Result.of(...)."
            )
        missing = [dim for dim in DIMS[:-1] if dim not in self.data.coords]
        if missing:
            raise InputError(f"Result.data: no labels for {missing}. Fix: Result.of(...) or data.assign_coords(...).")
        clean = self.data.get("clean")
        if clean is not None and (clean.dims != ("seed", "image") or clean.dtype != np.bool_):
            raise InputError(f"Result.data['clean']: {clean.dtype} {clean.dims}, needs bool (seed, image).")

    @classmethod
    def of(
        cls,
        correct: ArrayLike,
        *,
        clean: ArrayLike | None = None,
        seeds: Sequence[int] = (0,),
        ages_s: Sequence[float] = (0.0,),
        noise_scales: Sequence[float] = (1.0,),
        bits: Sequence[int] = (0,),
        attrs: Mapping[str, Any] | None = None,
    ) -> "Result":
        """From ``correct[seed, chip, age_s, noise_scale, bits, image]``, ``clean[seed, image]`` and labels.

        Chips are numbered from 0 in the order of the axis. Raises :class:`InputError` where sizes differ.
        """
        outcomes = np.asarray(correct)
        sizes = (len(seeds), None, len(ages_s), len(noise_scales), len(bits), None)
        if outcomes.ndim != 6 or any(w not in (None, n) for w, n in zip(sizes, outcomes.shape, strict=True)):
            raise InputError(f"Result.of: correct is {outcomes.shape} for dims {DIMS} with labels of sizes {sizes}.")
        variables: dict[str, Any] = {"correct": (DIMS, outcomes)}
        if clean is not None:
            reference = np.asarray(clean)
            if reference.shape != (outcomes.shape[0], outcomes.shape[5]):
                raise InputError(
                    f"Result.of: clean is {reference.shape}, needs [seed, image] = "
                    f"{(outcomes.shape[0], outcomes.shape[5])}."
                )
            variables["clean"] = (("seed", "image"), reference)
        coords = {
            "seed": np.asarray(seeds, dtype=np.int64),
            "chip": np.arange(outcomes.shape[1]),
            "age_s": np.asarray(ages_s, dtype=np.float64),
            "noise_scale": np.asarray(noise_scales, dtype=np.float64),
            "bits": np.asarray(bits, dtype=np.int64),
        }
        return cls(xr.Dataset(variables, coords=coords, attrs=dict(attrs or {})))

    @classmethod
    def joined(cls, results: Sequence["Result"]) -> "Result":
        """One result of several training seeds from results of some each, with the attributes of the first.

        Raises :class:`InputError` where their chips, points or images differ.
        """
        first = results[0].data
        for other in results[1:]:
            same = all(np.array_equal(first[dim], other.data[dim]) for dim in DIMS[1:-1])
            if not same or first.sizes["image"] != other.data.sizes["image"] or set(first) != set(other.data):
                raise InputError(
                    f"Result.joined: {dict(first.sizes)} and {dict(other.data.sizes)} were not measured alike. Fix: "
                    "the same chips, points and images for each seed."
                )
        return cls(xr.concat([r.data for r in results], "seed", combine_attrs="override", join="exact"))

    @property
    def chips(self) -> int:
        """Number of virtual chips of each training seed."""
        return int(self.data.sizes["chip"])

    def accuracy(self) -> xr.DataArray:
        """Percent of images right, dims (seed, chip, age_s, noise_scale, bits)."""
        shares = 100.0 * self.data["correct"].mean("image")
        return shares.rename("accuracy").assign_attrs(units="percent")

    def clean_accuracy(self) -> xr.DataArray | None:
        """Percent of images right without noise, dims (seed), or None where it was not measured."""
        if "clean" not in self.data:
            return None
        return 100.0 * self.data["clean"].mean("image")

    def summary(self, n_boot: int = 2000, seed: int = 0) -> xr.Dataset:
        """Numbers of each point (age_s, noise_scale, bits), all in percent.

        ``mean``: over seeds, chips and images. ``std``: over chips, root mean square over seeds of the
        standard deviation with n - 1 (NaN for one chip). ``std_seeds``: of the seeds' means (NaN for one
        seed). ``p5``, ``worst``: 5th percentile (:func:`~mho.evaluation.statistics.fifth_percentile`) and
        minimum over all chips of all seeds. ``ci95_low``, ``ci95_high``: hierarchical bootstrap of the
        mean, the same resamples at each point. ``clean``: mean over seeds, where measured.
        """
        accuracy = self.accuracy()
        shape = tuple(accuracy.sizes[dim] for dim in POINT)
        names = ("mean", "std", "std_seeds", "p5", "worst", "ci95_low", "ci95_high")
        numbers = {name: np.full(shape, math.nan) for name in names}
        for point in np.ndindex(shape):
            where = dict(zip(POINT, point, strict=True))
            chips = accuracy.isel(where).transpose("seed", "chip").to_numpy()
            correct = self.data["correct"].isel(where).transpose("seed", "chip", "image").to_numpy()
            found = (*_spread(chips), *hierarchical_bootstrap(correct, n_boot=n_boot, seed=seed))
            for name, value in zip(names, found, strict=True):
                numbers[name][point] = value
        variables: dict[str, Any] = {name: (POINT, values) for name, values in numbers.items()}
        clean = self.clean_accuracy()
        if clean is not None:
            variables["clean"] = float(clean.mean())
        coords = {dim: self.data[dim] for dim in POINT}
        return xr.Dataset(variables, coords=coords, attrs={**self.data.attrs, "units": "percent", "chips": self.chips})

    def notes(self) -> tuple[str, ...]:
        """What a reader of the numbers must know: few chips, one seed."""
        chips, seeds = self.chips, int(self.data.sizes["seed"])
        few = percentile_note(chips * seeds)
        one = "one training seed: the interval says nothing about another training" if seeds == 1 else None
        return tuple(note for note in (few, one) if note is not None)

    def select(
        self,
        *,
        age_s: Choice = None,
        noise_scale: Choice = None,
        bits: Choice = None,
        seed: Choice = None,
        chip: Choice = None,
    ) -> "Result":
        """The result at some labels only: ``select(age_s="1 day", bits=[4, 6])``; all dims are kept.

        Raises :class:`InputError` with the known labels where one was not evaluated.
        """
        wanted = {"age_s": age_s, "noise_scale": noise_scale, "bits": bits, "seed": seed, "chip": chip}
        index = {dim: self._positions(dim, choice) for dim, choice in wanted.items() if choice is not None}
        return Result(self.data.isel(index))

    def _positions(self, dim: str, choice: float | str | Sequence[float | str]) -> list[int]:
        labels = self.data[dim].to_numpy()
        items = [choice] if isinstance(choice, (int, float, str, np.number)) else list(choice)
        found = []
        for item in items:
            value = _label(dim, item)
            hits = np.flatnonzero(np.isclose(labels, value, rtol=1e-9, atol=0.0))
            if hits.size == 0:
                known = ", ".join(_label_text(dim, label) for label in labels)
                raise InputError(f"Result.select: {dim} = {item!r} was not evaluated. Fix: one of {known}.")
            found.append(int(hits[0]))
        return found

    def numbers(self, n_boot: int = 2000) -> dict[str, Any]:
        """The entry of ``summary.json`` of a result with one point: clean, mean, std, p5, worst, ci95, chips.

        NaN (one chip has no spread) is None. Raises :class:`InputError` for more than one point.
        """
        sizes = {dim: int(self.data.sizes[dim]) for dim in POINT}
        if any(size != 1 for size in sizes.values()):
            raise InputError(f"Result.numbers: {sizes} points, needs one. Fix: select(...) first, or summary().")
        return _entry(self.summary(n_boot).isel(dict.fromkeys(POINT, 0)))

    def to_dict(self, n_boot: int = 2000) -> dict[str, Any]:
        """Labels, numbers of each point, notes and attributes, as JSON can hold them."""
        summary = self.summary(n_boot)
        points = []
        for index in np.ndindex(tuple(summary.sizes[dim] for dim in POINT)):
            here = summary.isel(dict(zip(POINT, index, strict=True)))
            labels = {"age_s": float(here["age_s"]), "noise_scale": float(here["noise_scale"])}
            points.append({**labels, "bits": int(here["bits"]), **_entry(here)})
        seeds = [int(value) for value in self.data["seed"].to_numpy()]
        images = int(self.data.sizes["image"])
        return {
            "attrs": dict(self.data.attrs),
            "seeds": seeds,
            "chips": self.chips,
            "images": images,
            "points": points,
            "notes": list(self.notes()),
        }

    def to_json(self, n_boot: int = 2000) -> str:
        """:meth:`to_dict` as indented JSON (strict: no NaN)."""
        return _json(self.to_dict(n_boot))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything to one compressed ``.npz``, atomically; outcomes are packed eight a byte.

        Raises :class:`CheckpointError` for an unwritable path, :class:`InputError` for attributes that JSON
        cannot hold.
        """
        arrays: dict[str, Any] = {dim: self.data[dim].to_numpy() for dim in DIMS[:-1]}
        meta = {"format": _FORMAT, "shape": list(self.data["correct"].shape), "attrs": dict(self.data.attrs)}
        arrays["meta"] = np.asarray(_json(meta))
        for name in ("correct", "clean"):
            if name in self.data:
                arrays[name] = np.packbits(self.data[name].to_numpy().ravel())
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Result":
        """Read what :meth:`save` wrote. Raises :class:`CheckpointError` naming a missing or damaged file."""
        try:
            with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            meta = json.loads(str(arrays["meta"]))
            if meta["format"] != _FORMAT:
                raise CheckpointError(
                    f"{path}: result format {meta['format']}, this version reads {_FORMAT}. "
                    "Fix: read it with the version of mho that wrote it."
                )
            shape = tuple(int(size) for size in meta["shape"])
            variables: dict[str, Any] = {"correct": (DIMS, _unpack(arrays["correct"], shape))}
            if "clean" in arrays:
                variables["clean"] = (("seed", "image"), _unpack(arrays["clean"], (shape[0], shape[5])))
            coords = {dim: arrays[dim] for dim in DIMS[:-1]}
            return cls(xr.Dataset(variables, coords=coords, attrs=meta["attrs"]))
        except CheckpointError:
            raise
        except (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise CheckpointError(
                f"{path}: not a readable result of mho ({type(error).__name__}: {error}). "
                "Fix: check the path, or evaluate again."
            ) from error

    def table(self, n_boot: int = 2000) -> Table:
        """A table for the terminal: one row a point; columns of one and the same label are left out."""
        summary = self.summary(n_boot)
        title = " on ".join(str(self.data.attrs[key]) for key in ("model", "hardware") if key in self.data.attrs)
        clean = f", clean {float(summary['clean']):.2f} %" if "clean" in summary else ""
        caption = ". ".join((f"Accuracy in percent over {self.chips} chips{clean}", *self.notes()))
        table = Table(title=title or None, caption=caption)
        shown = [dim for dim in POINT if self.data.sizes[dim] > 1]
        heads = {"age_s": "age", "noise_scale": "noise x", "bits": "bits"}
        for dim in shown:
            table.add_column(heads[dim])
        for name in ("mean", "std", "p5", "worst", "95 % interval"):
            table.add_column(name, justify="right")
        for index in np.ndindex(tuple(summary.sizes[dim] for dim in POINT)):
            here = summary.isel(dict(zip(POINT, index, strict=True)))
            labels = [_label_text(dim, here[dim].item()) for dim in shown]
            cells = [_percent(float(here[name])) for name in ("mean", "std", "p5", "worst")]
            interval = f"{float(here['ci95_low']):.2f} to {float(here['ci95_high']):.2f}"
            table.add_row(*labels, *cells, interval)
        return table


def _spread(accuracy: np.ndarray[Any, Any]) -> tuple[float, float, float, float, float]:
    """mean, std over chips, std over seeds, p5 and worst of accuracy[seed, chip]."""
    seeds, chips = accuracy.shape
    std = math.sqrt(float(accuracy.var(axis=1, ddof=1).mean())) if chips > 1 else math.nan
    std_seeds = float(accuracy.mean(axis=1).std(ddof=1)) if seeds > 1 else math.nan
    return float(accuracy.mean()), std, std_seeds, fifth_percentile(accuracy), float(accuracy.min())


def _entry(point: xr.Dataset) -> dict[str, Any]:
    entry: dict[str, Any] = {"clean": float(point["clean"])} if "clean" in point else {}
    for name in ("mean", "std", "std_seeds", "p5", "worst"):
        value = float(point[name])
        entry[name] = value if math.isfinite(value) else None
    entry["ci95"] = [float(point["ci95_low"]), float(point["ci95_high"])]
    entry["chips"] = int(point.attrs["chips"])
    return entry


def _label(dim: str, item: float | str) -> float:
    try:
        return seconds(item) if dim == "age_s" else float(item)
    except ValueError as error:
        raise InputError(f"Result.select: {dim} = {item!r}: {error}") from error


def _label_text(dim: str, value: float) -> str:
    if dim == "age_s":
        return duration_text(value)
    if dim == "bits":
        return "as described" if value == 0 else f"{value:g}"
    return f"{value:g}"


def _percent(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def _unpack(packed: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    count = math.prod(shape)
    if packed.dtype != np.uint8 or packed.size != -(-count // 8):
        raise ValueError(f"{packed.size} packed bytes for {count} outcomes of shape {shape}")
    return np.unpackbits(packed, count=count).astype(np.bool_).reshape(shape)


def _json(value: dict[str, Any]) -> str:
    try:
        return json.dumps(value, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"Result.attrs: {error}. JSON holds finite numbers, text, lists and dicts. Fix: convert the attribute."
        ) from error
