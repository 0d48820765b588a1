"""Files: measurements, twins, tables of pairs and pulses; and ``mho calibrate``."""

from pathlib import Path

import h5py
import pyarrow as pa
import pytest
import torch
import typer
from pyarrow import parquet
from safetensors.torch import save_file
from typer.testing import CliRunner

import mho.lab
from mho.cli.calibrate import calibrate
from mho.errors import TwinError
from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping, PulsedDevice, SoftBounds, load_hardware
from mho.lab.twin import (
    PairTable,
    Plan,
    PulseTable,
    fit,
    fit_pairs,
    fit_pulses,
    load_measurements,
    load_twin,
    measure,
    read_measurements,
    residual_layer,
    save_measurements,
)
from mho.lab.virtual import VirtualDevice
from mho.physics.pulses import pulse_train, spread_cells
from mho.rng import normals, uniforms

HIDDEN = Hardware(
    name="hidden",
    cell=GenericCell(programming_noise=0.08, read_noise=0.02),
    mapping=Mapping(scheme="signed"),
    dac=Dac(bits=6),
    adc=Adc(bits=8, gain_d2d=0.1, offset_d2d_lsb=2.0, inl_lsb=1.0),
)


def device() -> VirtualDevice:
    return VirtualDevice(HIDDEN, 3, tiles=1, rows=32, cols=8)


@pytest.fixture(scope="module")
def data() -> mho.lab.twin.Measurements:
    return measure(device(), Plan(name="files", broad=240, narrow=48, sparse=48))


def test_measurements_give_the_same_twin_after_a_file(data: mho.lab.twin.Measurements, tmp_path: Path) -> None:
    save_measurements(data, tmp_path / "m.safetensors")
    again = load_measurements(tmp_path / "m.safetensors")
    assert again.can == data.can
    assert again.ages[1].age_s == data.ages[1].age_s
    one, two = fit(data), fit(again)
    # To the last bits: how a sum is grouped depends on where its numbers lie in memory.
    assert two.columns[0].gain == pytest.approx(one.columns[0].gain, rel=1e-6)
    assert [e.name for e in one.estimates] == [e.name for e in two.estimates]
    for name in ("value", "low", "high"):
        mine, other = ([getattr(e, name) for e in t.estimates] for t in (one, two))
        assert other == pytest.approx(mine, rel=1e-4, abs=1e-7)


def test_a_twin_after_a_file(data: mho.lab.twin.Measurements, tmp_path: Path) -> None:
    twin = fit(data)
    hardware, statics = twin.save(tmp_path / "chip.toml")
    assert load_hardware(hardware) == twin.hardware
    again = load_twin(tmp_path / "chip.toml")
    assert again.hardware == twin.hardware
    assert again.estimates == twin.estimates
    assert again.unidentified == twin.unidentified
    assert (again.error_over_noise, again.inl_lsb) == (twin.error_over_noise, twin.inl_lsb)
    for name in ("columns", "column_errors"):
        assert torch.equal(getattr(again, name)[0].gain, getattr(twin, name)[0].gain)
        assert torch.equal(getattr(again, name)[0].offset, getattr(twin, name)[0].offset)
    assert torch.equal(again.matrix_uS[0], twin.matrix_uS[0])
    with pytest.raises(TwinError, match=r"chip\.txt: a hardware file ends in \.toml"):
        twin.save(tmp_path / "chip.txt")
    statics.write_bytes(b"no tensors")
    with pytest.raises(TwinError, match="not a safetensors file"):
        load_twin(tmp_path / "chip.toml")
    statics.unlink()
    with pytest.raises(TwinError, match=r"no such file\. Cause: .*chip\.toml was moved alone"):
        load_twin(tmp_path / "chip.toml")


def test_files_that_hold_something_else(tmp_path: Path) -> None:
    with pytest.raises(TwinError, match="no such file"):
        load_measurements(tmp_path / "none.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(TwinError, match="holds no measurements"):
        load_measurements(tmp_path / "other.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "new.safetensors", metadata={"mho.measurements": '{"schema": 99}'})
    with pytest.raises(TwinError, match="schema 99, this version reads 1"):
        load_measurements(tmp_path / "new.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x00")
    with pytest.raises(TwinError, match="not a safetensors file"):
        load_measurements(tmp_path / "broken.safetensors")


def test_the_residual_follows_the_input(data: mho.lab.twin.Measurements) -> None:
    layer, found = residual_layer(data, fit(data))
    assert found.nll < found.homoscedastic - 0.02
    held = torch.cat([p.inputs_V for p in data.of("held-out")])
    assert layer(held).shape == (len(held), 8)


def pairs(count: int = 90, repeats: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(inputs, outputs, the matrix that made them)."""
    x = (2 * uniforms((count, 6), "pairs") - 1).double().repeat(repeats, 1)
    matrix = 10 * normals((6, 3), "matrix").double()
    noise = 0.3 * x.square().sum(1, keepdim=True).sqrt() * normals((len(x), 3), "noise").double()
    return x, x @ matrix + torch.tensor([0.5, 0.0, -1.0]) + noise, matrix


def csv_of(folder: Path, x: torch.Tensor, y: torch.Tensor) -> Path:
    path = folder / "pairs.csv"
    header = [f"input_{k}" for k in range(x.shape[1])] + [f"output_{k}" for k in range(y.shape[1])] + ["full_scale_uA"]
    lines = [",".join(map(repr, [*a, *b, 100.0])) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    path.write_text("\n".join([",".join(header), *lines]) + "\n")
    return path


def test_three_formats_hold_the_same(tmp_path: Path) -> None:
    x, y, _ = pairs(20, 1)
    names = [f"input_{k}" for k in range(6)] + [f"output_{k}" for k in range(3)]
    table = pa.table(dict(zip(names, torch.cat([x, y], 1).t().tolist(), strict=True)) | {"full_scale_uA": [100.0] * 20})
    parquet.write_table(table, tmp_path / "pairs.parquet")
    with h5py.File(tmp_path / "pairs.h5", "w") as file:
        file["inputs_V"], file["outputs_uA"], file["full_scale_uA"] = x.numpy(), y.numpy(), [100.0] * 20
    for path in (csv_of(tmp_path, x, y), tmp_path / "pairs.parquet", tmp_path / "pairs.h5"):
        found = read_measurements(path)
        assert isinstance(found, PairTable)
        assert torch.equal(found.inputs_V, x)
        assert torch.equal(found.outputs_uA, y)
        assert found.full_scale_uA == 100.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("input_0,output_0\n1,2\n3,x\n", r"row 3, column 'output_0': 'x' is no number"),
        ("input_0,output_0\n1,2\nnan,4\n", r"row 3, column 'input_0': 'nan' is not finite"),
        ("input_0,output_0\n1,2\n3\n", r"row 3: 1 fields, the header has 2"),
        ("input_0,input_2,output_0\n1,2,3\n", r"column 'input_1' is missing"),
        ("volts,output_0\n1,2\n", r"column 'input_0' is missing \(there are: volts, output_0"),
        ("input_0,output_0,note\n1,2,3\n", r"column 'note' is unknown"),
        ("input_0,output_0,full_scale_uA\n1,2,9\n1,2,8\n", r"row 3, column 'full_scale_uA': one range above 0"),
        ("", "the table is empty"),
        ("input_0,output_0\n", "the table is empty"),
        ("cell,direction,g_uS\n0,2,5\n", r"row 2, column 'direction': 2\. Fix"),
        ("cell,direction,g_uS\n0.5,1,5\n", r"row 2, column 'cell': not a whole number"),
    ],
)
def test_bad_tables_are_named_by_row_and_column(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(TwinError, match=message) as error:
        read_measurements(path)
    assert str(path) in str(error.value)


def test_other_bad_files(tmp_path: Path) -> None:
    with pytest.raises(TwinError, match="no such file"):
        read_measurements(tmp_path / "none.csv")
    for name, message in (
        ("x.xls", "format '.xls'"),
        ("x.parquet", "not a Parquet file"),
        ("x.h5", "not an HDF5 file"),
    ):
        (tmp_path / name).write_text("no such thing")
        with pytest.raises(TwinError, match=message):
            read_measurements(tmp_path / name)
    with h5py.File(tmp_path / "cube.h5", "w") as file:
        file["outputs_uA"] = torch.zeros(2, 2, 2).numpy()
    with pytest.raises(TwinError, match=r"dataset 'outputs_uA' has shape \(2, 2, 2\)"):
        read_measurements(tmp_path / "cube.h5")
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file["input_0"], file["output_0"] = [1.0, 2.0], [1.0]
    with pytest.raises(TwinError, match="columns of different length"):
        read_measurements(tmp_path / "odd.h5")
    parquet.write_table(pa.table({"input_0": [1.0, None], "output_0": [1.0, 2.0]}), tmp_path / "hole.parquet")
    with pytest.raises(TwinError, match=r"row 2, column 'input_0': None is no number"):
        read_measurements(tmp_path / "hole.parquet")


def test_pairs_give_the_effective_matrix_and_say_what_they_cannot() -> None:
    x, y, matrix = pairs()
    twin = fit_pairs(PairTable(x, y, 100.0))
    assert twin.matrix_uS[0].double() == pytest.approx(matrix, abs=0.15)
    assert twin.columns[0].offset == pytest.approx(torch.tensor([0.5, 0.0, -1.0]) / 100, abs=1e-3)
    e = twin.estimate("cell.read_noise")
    assert e.holds(0.3 / float(twin.matrix_uS[0].abs().max()))
    assert e.high / e.low < 1.3
    assert twin.error_over_noise == pytest.approx(1.0, abs=0.1)
    assert any(
        u.startswith("adc.gain_d2d: the gain of a column and its conductances are one") for u in twin.unidentified
    )
    bent = fit_pairs(PairTable(x, y + 0.02 * (x @ matrix) ** 2, 100.0))
    assert bent.error_over_noise is not None
    assert bent.error_over_noise > 1.5


def test_pairs_that_clip_or_are_too_few() -> None:
    x, y, matrix = pairs()
    full = 15.0
    clipped = fit_pairs(PairTable(x, y.clamp(-full, full), full))
    assert clipped.matrix_uS[0].double() == pytest.approx(matrix, abs=0.4)
    blind = fit_pairs(PairTable(x, y.clamp(-full, full)))  # rails are not known: what they bend stays
    assert (blind.matrix_uS[0].double() - matrix).abs().max() > 1.0
    with pytest.raises(TwinError, match="7 different inputs of 6 rows"):
        fit_pairs(PairTable(x[:7], y[:7]))
    once = fit_pairs(PairTable(x[:90], y[:90]))
    assert once.error_over_noise is None
    assert any("no input was repeated" in u for u in once.unidentified)
    assert any("no full_scale_uA in the file" in u for u in once.unidentified)


TRUE = PulsedDevice(
    response=SoftBounds(slope_up=1.2, slope_down=0.8), dw_min=0.02, w_min=-0.6, w_max=0.6, c2c=0.3, d2d=0.15
)


def pulses(cells: int = 24, seed: int = 0) -> PulseTable:
    """Four trains of 80 pulses on each cell, g = 20 + 20 w uS, read with 0.02 uS of noise."""
    own = spread_cells(TRUE, normals((4, cells), seed, "cells"))
    w = torch.full((cells,), -0.5)
    history = [(0, 20 + 20 * w)]
    for train in range(4):
        up = 1 if train % 2 == 0 else -1
        for k in range(80):
            w = pulse_train(w, torch.full((cells,), float(up)), TRUE, own, normals((cells,), seed, "xi", train, k))
            history.append((up, 20 + 20 * w + 0.02 * normals((cells,), seed, "read", train, k)))
    steps = torch.tensor([s for s, _ in history]).repeat(cells)
    g = torch.stack([g for _, g in history], 1).reshape(-1).double()
    return PulseTable(torch.arange(cells).repeat_interleave(len(history)), steps > 0, steps == 0, g)


def test_soft_bounds_of_pulse_responses() -> None:
    found = fit_pulses(pulses())
    by_name = {e.name: e for e in found.estimates}
    truth = {
        "update.g_high_uS": 32.0,
        "update.g_low_uS": 8.0,
        "update.step_up": 0.02 * 1.2 / 0.6,
        "update.step_down": 0.02 * 0.8 / 0.6,
        "update.d2d": 0.15,
    }
    assert sum(by_name[name].holds(value) for name, value in truth.items()) >= 4
    for name, value in truth.items():
        assert by_name[name].value == pytest.approx(value, rel=0.35 if name == "update.d2d" else 0.12)
        assert not by_name[name].holds(2.2 * value)
    assert by_name["update.c2c"].value == pytest.approx(0.3, rel=0.12)
    assert isinstance(found.device.response, SoftBounds)
    ratio = found.device.response.slope_up / found.device.response.slope_down
    assert ratio == pytest.approx(1.5, rel=0.15)


def test_pulses_that_tell_nothing() -> None:
    table = pulses(cells=2)
    with pytest.raises(TwinError, match="2 cells with a train of 4 pulses or more both up"):
        fit_pulses(table)
    some = pulses(cells=3)
    turned = PulseTable(some.cell, ~some.up & ~some.start, some.start, some.g_uS)
    with pytest.raises(TwinError, match="cross"):
        fit_pulses(turned)
    steady = PulseTable(some.cell, some.up, some.start, torch.where(some.up, 1.0, -1.0).cumsum(0).double())
    with pytest.raises(TwinError, match="do not shrink towards a bound"):
        fit_pulses(steady)


def command() -> typer.Typer:
    app = typer.Typer()
    app.command()(calibrate)
    return app


def test_calibrate_a_device_its_measurements_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def connect(address: str, *, token: str | None = None, tls_ca: str | None = None) -> VirtualDevice:
        asked.append((address, token, tls_ca))
        return device()

    monkeypatch.setattr(mho.lab, "connect", connect)
    run = CliRunner().invoke
    chip, kept = tmp_path / "chip.toml", tmp_path / "kept.safetensors"
    result = run(command(), ["virtual:hidden", "-o", str(chip), "--budget", "3000", "--keep", str(kept)])
    assert result.exit_code == 0, result.output
    assert asked == [("virtual:hidden", None, None)]
    assert "adc.inl_lsb" in result.output
    assert "1 is perfect" in result.output
    twin = load_twin(chip)
    assert twin.hardware.adc is not None
    assert twin.hardware.adc.bits == 8
    assert set(twin.columns) == {0}

    again = run(command(), [str(kept), "-o", str(tmp_path / "again.toml")])
    assert again.exit_code == 0, again.output
    assert load_twin(tmp_path / "again.toml").columns[0].gain == pytest.approx(twin.columns[0].gain, rel=1e-6)
    assert len(asked) == 1

    x, y, _ = pairs()
    table = run(command(), [str(csv_of(tmp_path, x, y)), "-o", str(tmp_path / "pairs.toml")])
    assert table.exit_code == 0, table.output
    assert "not told: adc.gain_d2d" in table.output

    p = pulses(cells=6)
    step = torch.where(p.start, 0, torch.where(p.up, 1, -1))
    rows = [f"{c},{s},{g!r}" for c, s, g in zip(p.cell.tolist(), step.tolist(), p.g_uS.tolist(), strict=True)]
    (tmp_path / "pulses.csv").write_text("\n".join(["cell,direction,g_uS", *rows]))
    pulsed = run(command(), [str(tmp_path / "pulses.csv"), "-o", str(tmp_path / "pulsed.toml")])
    assert pulsed.exit_code == 0, pulsed.output
    assert load_hardware(tmp_path / "pulsed.toml").update is not None

    wrong = run(command(), ["virtual:hidden", "-o", str(tmp_path / "chip.json")])
    assert wrong.exit_code == 2
    assert "ends in .toml" in wrong.output
