"""Hidden chips calibrated: does every parameter lie in its 95 % interval, and how good is the twin?

python benchmarks/lab_twin.py [--chips 20] [--rows 256] [--cols 256] [--seed 0] [--wire-ohm 0]
    [--known 3000] [--out benchmarks/results/lab-twin.json]

Each chip is a VirtualDevice with hidden values drawn around: gain spread 15 %, offsets 1.5 LSB, a cubic of 1.5 LSB,
programming error 8 %, read noise 2 %, 6-bit converters, drift exponent 0.03. Spreads over columns are judged twice:
tile.*_spread is that of this very chip; adc.*_d2d is the law that it was drawn from, whose chi-square interval misses
the hidden sigma on one chip in twenty even where all columns are known exactly. How often it does is counted beside
(known_columns): on these chips, and on --known chips that are drawn and not measured. The columns themselves: the
share of gains and offsets of this chip in their own intervals. Counts come with their exact binomial interval.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
from command import command
from scipy import stats

import mho
from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping, Wires
from mho.lab.twin import Plan, fit, measure
from mho.lab.twin.estimates import spread
from mho.lab.virtual import VirtualDevice
from mho.physics.converters import levels
from mho.rng import normals, uniforms

BITS = 6
Z95 = 1.96
LAWS = ("adc.gain_d2d", "adc.offset_d2d_lsb")


def hidden(seed: int, wire_ohm: float) -> tuple[Hardware, dict[str, float]]:
    """A description that the host does not see, and its values by the names of the estimates."""
    u = uniforms((16,), seed, "hidden").tolist()
    truth = {
        "adc.gain_d2d": 0.12 + 0.06 * u[0],
        "adc.offset_d2d_lsb": 1.0 + u[1],
        "adc.inl_lsb": 1.0 + u[2],
        "cell.programming_noise": 0.064 + 0.032 * u[3],
        "cell.read_noise": 0.016 + 0.008 * u[4],
        "cell.drift_nu": 0.01 + 0.04 * u[5],
        "cell.drift_nu_d2d": 0.002 + 0.008 * u[6],
        "cell.t0_s": 1.0,
        "adc.bits": float(BITS),
        "dac.bits": float(BITS),
        "cell.programming_noise_rel": 0.0,
        "cell.read_noise_rel": 0.0,
        "output_noise": 0.0,
        "wires.wire_ohm": wire_ohm,
    }
    hw = Hardware(
        name="hidden",
        cell=GenericCell(**{key.removeprefix("cell."): truth[key] for key in truth if key.startswith("cell.")}),
        mapping=Mapping(scheme="signed"),
        dac=Dac(bits=BITS),
        adc=Adc(bits=BITS, **{k: truth[f"adc.{k}"] for k in ("gain_d2d", "offset_d2d_lsb", "inl_lsb")}),
        wires=Wires(wire_ohm=wire_ohm) if wire_ohm else None,
    )
    return hw, truth


def fabricated(seed: int, cols: int, truth: dict[str, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Gains and offsets (LSB) of this chip's columns, from the streams of VirtualDevice."""
    gain = 1 + truth["adc.gain_d2d"] * normals((1, cols), seed, "tile", 0, "adc_gain")[0]
    return gain, truth["adc.offset_d2d_lsb"] * normals((1, cols), seed, "tile", 0, "adc_offset")[0]


def known_columns(seed: int, cols: int) -> dict[str, bool]:
    """Whether the law's interval holds its sigma when every column of the chip is known exactly."""
    _, truth = hidden(seed, 0.0)
    parts = dict(zip(LAWS, fabricated(seed, cols, truth), strict=True))
    return {n: spread(n, x.double().tolist(), 0.0, "", "").holds(truth[n]) for n, x in parts.items()}


def counted(held: int, of: int) -> dict[str, Any]:
    """A count with the exact 95 % interval of its share (Clopper and Pearson)."""
    low, high = stats.binomtest(held, of).proportion_ci(0.95, "exact")
    return {"held": held, "of": of, "low": low, "high": high}


def share_in(found: torch.Tensor, error: torch.Tensor, truth: torch.Tensor) -> float:
    """Share of the columns whose truth lies in their interval."""
    return float(((found - truth).abs() <= Z95 * error).float().mean())


def chip(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One hidden chip: estimates, truths, times."""
    hw, truth = hidden(seed, options.wire_ohm)
    device = VirtualDevice(hw, seed, tiles=1, rows=options.rows, cols=options.cols)
    start = time.perf_counter()
    data = measure(device, Plan(name=f"benchmark {seed}"))
    middle = time.perf_counter()
    twin = fit(data)
    end = time.perf_counter()
    gain, offset_lsb = fabricated(seed, options.cols, truth)
    truth |= {"tile.gain_spread": float(gain.std()), "tile.offset_spread_lsb": float(offset_lsb.std())}
    own, error = twin.columns[0], twin.column_errors[0]
    return {
        "seed": seed,
        "error_over_noise": twin.error_over_noise,
        "measure_s": middle - start,
        "fit_s": end - middle,
        "calls": data.calls,
        "vectors": data.vectors,
        "known_columns": known_columns(seed, options.cols),
        "gains_in_interval": share_in(own.gain, error.gain, gain),
        "offsets_in_interval": share_in(own.offset, error.offset, offset_lsb / levels(BITS)),
        "estimates": {
            e.name: {
                "truth": truth[e.name],
                "value": e.value,
                "low": e.low,
                "high": e.high,
                "holds": e.holds(truth[e.name]),
            }
            for e in twin.estimates
        },
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How often each interval held its truth, and the worst of the rest."""
    names = list(rows[0]["estimates"])
    holds = {name: sum(r["estimates"][name]["holds"] for r in rows) for name in names}
    return {
        "chips": len(rows),
        "holds": holds,
        "shares": {name: counted(count, len(rows)) for name, count in holds.items()},
        "known_columns": {name: sum(r["known_columns"][name] for r in rows) for name in LAWS},
        "law_differs_from_known_columns": {
            name: sum(r["known_columns"][name] != r["estimates"][name]["holds"] for r in rows) for name in LAWS
        },
        "worst_error_over_noise": max(r["error_over_noise"] for r in rows),
        "mean_error_over_noise": sum(r["error_over_noise"] for r in rows) / len(rows),
        "worst_seconds": max(r["measure_s"] + r["fit_s"] for r in rows),
        "gains_in_interval": sum(r["gains_in_interval"] for r in rows) / len(rows),
        "offsets_in_interval": sum(r["offsets_in_interval"] for r in rows) / len(rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--cols", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wire-ohm", type=float, default=0.0)
    parser.add_argument("--known", type=int, default=3000, help="chips that are only drawn, for the law's intervals")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/lab-twin.json"))
    options = parser.parse_args()
    drawn = [known_columns(seed, options.cols) for seed in range(options.known)]
    about: dict[str, Any] = {
        "command": command(),
        "tile": [options.rows, options.cols],
        "threads": torch.get_num_threads(),
        "versions": {"mho": mho.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    about["known_columns"] = {name: counted(sum(d[name] for d in drawn), len(drawn)) for name in LAWS if drawn}
    rows: list[dict[str, Any]] = []
    for seed in range(options.seed, options.seed + options.chips):
        rows.append(chip(seed, options))
        r = rows[-1]
        out = [name for name, e in r["estimates"].items() if not e["holds"]]
        print(
            f"chip {seed:3}: error over noise {r['error_over_noise']:.4f}, {r['measure_s'] + r['fit_s']:5.1f} s, gains "
            f"{100 * r['gains_in_interval']:.1f} %, offsets {100 * r['offsets_in_interval']:.1f} % in their intervals; "
            f"outside: {', '.join(out) or 'none'}",
            flush=True,
        )
        options.out.write_text(json.dumps({**about, "summary": summary(rows), "rows": rows}, indent=1) + "\n")
    found = summary(rows)
    print(f"{'parameter':28} held by")
    for name, share in found["shares"].items():
        print(f"{name:28} {share['held']} of {len(rows)} ({100 * share['low']:.1f} to {100 * share['high']:.1f} %)")
    for name, share in about["known_columns"].items():
        print(f"{name:28} columns known exactly: {found['known_columns'][name]} of these, {share}")
    print({key: value for key, value in found.items() if key not in ("holds", "shares")})


if __name__ == "__main__":
    main()
