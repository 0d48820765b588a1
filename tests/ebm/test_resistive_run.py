"""``mho run ebm-resistive`` end to end, in miniature."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from mho.data import load_dataset
from mho.ebm.resistive import Learning, Solver
from mho.errors import CheckpointError
from mho.experiments.ebm import resistive_judge
from mho.experiments.ebm.resistive import Settings, certificate, network, run
from mho.hardware import load_hardware

TINY = Settings(
    name="tiny", hidden=(8,), epochs=1, subset=128, test_subset=60, chips=2, noise_scales=(0.0, 1.0), batch_size=64,
    ages=("1 day",),
)  # fmt: skip


def never(*args: object, **options: object) -> None:
    raise AssertionError("measured again")


def test_a_run_leaves_numbers_record_and_report_and_resumes_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    first = run(TINY, out=tmp_path, say=said.append)
    for name in ("summary.json", "record.json", "report.html", "settings.json", "hardware.toml", "results/chips.npz"):
        assert (first.folder / name).exists()
    assert json.loads((first.folder / "summary.json").read_text())["on_chips"]["chips"] == 2
    record = json.loads(first.record.read_text())
    assert [len(level[0]) for level in record["accuracy"]] == [2, 2]
    assert record["age_s"] == [86_400.0] and len(record["accuracy_at_age"][0][0]) == 2
    energy = first.summary["inference"]["energy_J"]
    assert 0 < energy["low"] < energy["typical"] < energy["high"]
    residual = first.summary["kirchhoff_residual"]
    assert residual["float64"] < 1e-9 < residual["in_use"] < 2e-6 and residual["in_use_V"] < 2e-6
    assert (residual["dtype"], residual["tolerance"], residual["images"]) == ("float32", 1e-6, 4)
    page = first.report.read_text()
    assert "tolerance 1e-06" in page and "in float64" in page
    assert "Accuracy against age" in page and "co-content" in page and "What an inference costs" in page
    assert "an inference" in first.summary["sentence"] and len(first.summary["table"]["rows"]) == 2
    assert 0 <= first.summary["digital"] <= 100 and any("digital network" in line for line in said)
    for name in ("evaluate_on_chips", "digital_accuracy"):
        monkeypatch.setattr(resistive_judge, name, never)
    again = run(TINY, out=tmp_path, resume=True)
    assert again.summary["clean"] == first.summary["clean"]
    assert again.summary["on_chips"] == first.summary["on_chips"]
    older = run(TINY.model_copy(update={"ages": ()}), out=tmp_path, resume=True)
    assert older.summary["on_chips"] == first.summary["on_chips"]
    with pytest.raises(CheckpointError, match=r"nudge was 0\.5 and is 0\.2"):
        run(TINY.model_copy(update={"nudge": 0.2}), out=tmp_path, resume=True)


def test_a_misspelt_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="hiden"):
        Settings(hiden=(8,))  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="unknown unit"):
        Settings(ages=("1 fortnight",))
    with pytest.raises(ValidationError, match="epochs"):
        Settings(epochs=0)


def test_the_certificate_tells_a_loose_solver_from_float64() -> None:
    """What training stops at is certified, not only what float64 could reach."""
    tiny = TINY.model_copy(update={"hidden": (8, 8)})
    model = network(tiny, 784, 10, load_hardware("generic"), 0)
    images = load_dataset("mnist-mini").test_x[:2]
    tight = certificate(model, images, model.wanted())
    model.learning = Learning(solver=Solver(tolerance=0.1))
    loose = certificate(model, images, model.wanted())
    assert loose.float64 == tight.float64 < 1e-11
    assert loose.in_use > 100 * tight.in_use and loose.in_use_V > 100 * tight.in_use_V
    assert loose.tolerance == 0.1 and loose.images == 2
