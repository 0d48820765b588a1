"""A run with made-up data, marked as such: for the tests and for looking at the page."""

import numpy as np

from mho.reporting.run import RunData
from mho.reporting.series import Curve, Group, History

DIGITAL, QUANTISED, AWARE = "Digital", "Quantised digital", "Hardware-aware"
RECIPE = """# made-up data
name = "made-up <demo>"
hardware = "generic"

[train]
epochs = 12
batch = 128
learning_rate = 0.002  # a comment that is rather long, so that a narrow page has to scroll inside its own box
"""


def _network(clean: float, slope: float, spread: float, x: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mean = clean - slope * x**1.7
    noise = -np.abs(rng.standard_normal((len(x), 25))) * spread * (0.1 + x[:, None])
    return np.clip(mean[:, None] + noise, 10.0, 100.0)


def demo_run() -> RunData:
    """Every part present; figures of no real network."""
    rng = np.random.default_rng(0)
    scale = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0])
    ages = np.array([1.0, 25.0, 3600.0, 86400.0, 2629800.0, 31557600.0, 315576000.0])
    at = np.log10(ages) / 8.5
    cells = np.abs(rng.standard_normal((128, 256))) * 6 + 0.4
    noise = (
        Curve(AWARE, scale, _network(97.9, 0.5, 0.35, scale, 1)),
        Curve(DIGITAL, scale, _network(98.1, 14.0, 4.0, scale, 2)),
        Curve(QUANTISED, scale, _network(97.6, 11.0, 3.6, scale, 3)),
    )
    summary = {
        "name": "made-up <demo>",
        "hardware": "generic",
        "seeds": [0],
        "digital": {"accuracy": 98.1},
        "digital_on_chips": {"mean": 80.2, "std": 3.1, "p5": 74.0, "worst": 70.5, "ci95": [79.0, 81.4], "chips": 25},
        "digital_quantized": {
            "clean": 97.6,
            "mean": 83.9,
            "std": 2.7,
            "p5": 78.8,
            "worst": 76.1,
            "ci95": [82.8, 85.0],
            "chips": 25,
        },
        "hardware_aware": {
            "clean": 97.9,
            "mean": 97.52,
            "std": 0.2,
            "p5": 97.1,
            "worst": 96.9,
            "ci95": [97.3, 97.7],
            "chips": 25,
        },
        "wall_s": 170.0,
        "versions": {"mho": "0.1.0", "torch": "2.13.0"},
    }
    epochs = np.arange(1.0, 13.0)
    return RunData(
        name="made-up <demo>",
        hardware="generic",
        summary=summary,
        curves_noise=noise,
        curves_age=(
            Curve(AWARE, ages, _network(97.7, 1.1, 0.5, at, 4)),
            Curve(DIGITAL, ages, _network(88.0, 16.0, 5.0, at, 5)),
        ),
        histogram=tuple(Group(curve.name, curve.accuracy[4]) for curve in noise),
        training=(
            History(DIGITAL, epochs, 98.1 - 9 * np.exp(-epochs / 2)),
            History(AWARE, epochs, 97.9 - 14 * np.exp(-epochs / 3)),
        ),
        conductance_uS=cells,
        conductance_layer="fc1.weight, positive cells",
        dominance=(
            ("Programming error", -24.1, "static, 10 % of the range, per cell"),
            ("Output converter, 6 bits", -36.9, "uniform, one LSB of the column's range"),
            ("Read noise", -41.0, "fresh, 1 % of the range"),
            ("Thermal noise", -78.3, "300 K, 100 ns"),
            ("Shot noise", -np.inf, "ohmic cells"),
        ),
        recipe_toml=RECIPE,
        command="mho run mnist-mini --seed 0 --name 'made-up <demo>'",
    )
