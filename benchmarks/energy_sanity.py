"""The energy model beside published chips, from the price lists of their descriptions alone.

python benchmarks/energy_sanity.py [--vectors 256] [--seed 0] [--out benchmarks/results/energy-sanity.json]

One full tile, weights normal and cut at 2.5 sigma, inputs uniform on [-1, 1]: the papers do not say on which data they
measured, and the energy of the cells follows both. ``ratio``: model over published. What is circular is said: a price
that a paper derives from its own total proves only that the mapping counts alike.
"""

import argparse
import json
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import mho
from mho.costs import EnergyReport, energy
from mho.hardware import load_hardware
from mho.hardware.spec import Adc, Dac, Hardware

# Extended Data Fig. 12b of the paper, fJ an operation (word lines, neurons, input pulses), as digitised by CiMLoop.
NEURRAM_FJ = {(4, 6): (21.756, 29.108, 11.507), (6, 8): (37.219, 52.483, 19.239), (8, 10): (50.525, 75.857, 27.510)}
NEURRAM_OPERATIONS = 2 * 256 * 128
NEURRAM_PARTS = {"lines": 0, "adc": 1, "array": 2}
HERMES_OPERATIONS = 2 * 256 * 256


@dataclass(frozen=True)
class Row:
    """One comparison; energies of one product on one full tile in nJ."""

    chip: str
    what: str
    published_nJ: float
    source: str
    model_nJ: float
    low_nJ: float
    high_nJ: float
    aim: float | None
    why: str

    @property
    def ratio(self) -> float:
        return self.model_nJ / self.published_nJ

    @property
    def verdict(self) -> str:
        """``aim``: the factor either way that was asked for; none: shown for information."""
        if self.aim is None:
            return "-"
        return "yes" if 1 / self.aim <= self.ratio <= self.aim else "MISSED"


def full_tile(hw: Hardware, rows: int, cols: int, vectors: int, seed: int) -> EnergyReport:
    """One product on one full tile."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(rows, cols, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(cols, rows, generator=generator).clamp(-2.5, 2.5))
    return energy(nn.Sequential(layer), 2 * torch.rand(vectors, rows, generator=generator) - 1, hw)


def row(
    chip: str,
    what: str,
    published_nJ: float,
    source: str,
    report: EnergyReport,
    aim: float | None,
    why: str,
    parts: Sequence[str] | None = None,
) -> Row:
    found = [v for k, v in report.parts_J.items() if parts is None or k in parts]
    low, typical, high = (1e9 * sum(getattr(v, k) for v in found) for k in ("low", "typical", "high"))
    return Row(chip, what, published_nJ, source, typical, low, high, aim, why)


def isaac(vectors: int, seed: int) -> list[Row]:
    report = full_tile(load_hardware("reram-isaac"), 128, 16, vectors, seed)
    return [
        row(
            "ISAAC", "array's share of a tile, 16-bit product", 330e-3 * 1.6e-6 / 96 * 1e9,
            "ISCA 2016: 330 mW a tile of 96 arrays, 1.6 us", report, 1.25,
            "prices derived from the paper's own powers: what is tested is the count of phases, slices, columns",
        )
    ]  # fmt: skip


def neurram(vectors: int, seed: int) -> list[Row]:
    hw, rows = load_hardware("reram-wan2022"), []
    why = (
        "neurons and lines from components, cells from V^2 g t; the paper's weights and inputs are not known; cells "
        "are 2 times too high, the aim is met by the other parts"
    )
    reasons = {
        "array": "not explained: normal weights and uniform inputs stand in for the paper's, and the pulse of 10 ns is "
        "that of a model of the chip"
    }
    for (bits_in, bits_out), shares in NEURRAM_FJ.items():
        report = full_tile(hw.replace(dac=Dac(bits=bits_in), adc=Adc(bits=bits_out)), 128, 256, vectors, seed)
        bits = f"{bits_in} bits in, {bits_out} out"
        scale, source = NEURRAM_OPERATIONS * 1e-6, "Nature 608, 504 (2022), Ext. Data Fig. 12b"
        rows.append(row("NeuRRAM", bits, sum(shares) * scale, source, report, 1.25, why, tuple(NEURRAM_PARTS)))
        for part, place in NEURRAM_PARTS.items():
            rows.append(
                row(
                    "NeuRRAM",
                    f"{bits}: {part}",
                    shares[place] * scale,
                    source,
                    report,
                    None,
                    reasons.get(part, ""),
                    (part,),
                )
            )
    return rows


def hermes(vectors: int, seed: int) -> list[Row]:
    hw, rows = load_hardware("pcm-hermes"), []
    assert hw.cost is not None
    core = "one core's measured 10.5 TOPS/W is in the price of a tile: what is tested is the step from core to chip"
    alone = (
        "converters at 25.8 pJ, the survey's median of 8 to 10 bits, which the description takes for its 8, and cells "
        "alone: scaling logic, clocks, bias and links are missing; the aim is met by that choice of a bin (row below)"
    )
    surveyed = (
        "as above, with what the model itself says where a description gives no price: 10.1 pJ at 8 bits, between the "
        "medians of 6 to 8 and of 8 to 10 bits; the price of this chip's converter is not known here, and no row shows "
        "that converters and cells alone foretell the chip"
    )
    for reads, tops_per_W in ((1, 9.76), (4, 2.48)):
        cost = replace(hw.cost, drive=replace(hw.cost.drive, sign_reads=reads))
        report = full_tile(hw.replace(cost=cost), 256, 256, vectors, seed)
        what, published = f"{reads}-phase read, {tops_per_W} TOPS/W", HERMES_OPERATIONS / tops_per_W * 1e-3
        source = "Nat. Electron. 2023"
        rows.append(row("HERMES, 64 cores", what, published, source, report, 2.0, core))
        parts = tuple(p for p in report.parts_J if p != "tile")
        rows.append(
            row("HERMES, 64 cores", f"{what}: without the tile's", published, source, report, 2.0, alone, parts)
        )
        free = replace(cost, adc=replace(cost.adc, energy_pJ=None, bits=None))
        report = full_tile(hw.replace(cost=free), 256, 256, vectors, seed)
        what = f"{what}: without the tile's, converters by the model's survey"
        rows.append(row("HERMES, 64 cores", what, published, source, report, 2.0, surveyed, parts))
    return rows


def mythic(vectors: int, seed: int) -> list[Row]:
    report = full_tile(load_hardware("flash-sonos"), 1024, 1024, vectors, seed)
    why = (
        "a vendor's figure for a whole chip with processors, memory and PCIe; ours are converters, cells and buffers, "
        "with a voltage and a time of a read that are chosen"
    )
    published = 2 * 1024**2 / (26 / 3.5) * 1e-3
    return [row("Mythic M1076", "26 TOPS at 3 to 4 W", published, "product page", report, None, why)]


def run(vectors: int, seed: int) -> list[Row]:
    return [*isaac(vectors, seed), *neurram(vectors, seed), *hermes(vectors, seed), *mythic(vectors, seed)]


def table(rows: list[Row]) -> str:
    header = ("chip", "product", "published nJ", "model nJ", "low", "high", "ratio", "aim", "met")
    body = [
        (
            r.chip, r.what, f"{r.published_nJ:.3g}", f"{r.model_nJ:.3g}", f"{r.low_nJ:.3g}", f"{r.high_nJ:.3g}",
            f"{r.ratio:.2f}", "" if r.aim is None else f"{r.aim:g}x", r.verdict,
        )
        for r in rows
    ]  # fmt: skip
    widths = [max(len(line[i]) for line in (header, *body)) for i in range(len(header))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in (header, *body)]
    reasons = dict.fromkeys(f"{r.chip}: {r.why}." for r in rows if r.why)
    return "\n".join([*lines, "", *reasons])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = run(options.vectors, options.seed)
    print(table(rows))
    if options.out is not None:
        document: dict[str, Any] = {
            "command": shlex.join(["python", "benchmarks/energy_sanity.py", *sys.argv[1:]]),
            "versions": {"mho": mho.__version__, "torch": torch.__version__, "python": platform.python_version()},
            "rows": [{**asdict(r), "ratio": r.ratio, "met": r.verdict} for r in rows],
        }
        options.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
