"""A finished run read back for its costs: ``mho energy FOLDER``, digital accuracies that were measured, error paths."""

import json
import shutil

import pytest
import torch
from torch import nn

from mho.cli import main
from mho.costs import energy
from mho.errors import CheckpointError, TrainingError
from mho.experiments import run_recipe
from mho.experiments.digital import accuracy_at, digital_accuracies
from mho.experiments.finished import FinishedRun, evaluate_stored
from mho.experiments.folder import make_folder
from mho.hardware import dump_hardware, load_hardware

RECIPE = """
name = "tiny-energy"
hardware = "generic-channel"
seeds = [0, 1]
[data]
dataset = "mnist-mini"
subset = 256
batch_size = 128
[network]
model = "mlp"
args = {sizes = [784, 8, 10]}
[train]
epochs = 1
clip_sigma = 2.0
[evaluate]
chips = 2
noise_scales = []
sweep_images = 100
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return run_recipe(path, out=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def call(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


def test_the_command_reads_the_trained_network_and_its_own_hardware(finished, call, tmp_path):
    file, page = tmp_path / "energy.json", tmp_path / "energy.html"
    code, out, err = call("energy", finished.folder, "--json", file, "--out", page)
    assert code == 0, err
    assert "weights are trained" in out and "16 test images of mnist-mini" in out and f"report: {page}" in out
    run = FinishedRun.read(finished.folder)
    by_hand = energy(run.hardware_aware, run.data.normalise(run.data.test_x[:16]))
    written = json.loads(file.read_text())
    assert written["total_J"]["typical"] == pytest.approx(by_hand.total_J.typical)
    assert {layer["hardware"] for layer in written["layers"]} == {"generic-channel"}
    assert not any("ranges not known" in note for layer in written["layers"] for note in layer["notes"])
    html = page.read_text(encoding="utf-8")
    assert html.count("<figure") == 1 and "Cost of one inference" in html and "Energy of tiny-energy" in html


def test_training_is_seen_in_the_energy_of_the_cells(finished):
    run = FinishedRun.read(finished.folder)
    x = run.data.normalise(run.data.test_x[:16])
    trained = energy(run.hardware_aware, x).parts_J["array"].typical
    for p in run.hardware_aware.parameters():
        p.data.mul_(0.5)
    assert energy(run.hardware_aware, x).parts_J["array"].typical != pytest.approx(trained, rel=1e-3)


def test_another_hardware_overrides_the_runs_with_ranges_of_its_own(finished, call, tmp_path):
    own = tmp_path / "own.toml"
    described = load_hardware("pcm-hermes").replace(name="own")
    own.write_text(dump_hardware(described))
    code, out, _ = call("energy", finished.folder, "--hardware", own, "--constants")
    assert code == 0 and "calibrated on its training images for own" in out and "14 nm, 0.8 V" in out
    assert "own: adc.energy_pJ: 25.8 (0.28 to 48.8) pJ; model; 14 nm, voltage not stated; Murmann" in out


@pytest.mark.parametrize("name", ["ideal", "neuron-asymmetric", "photonic-mzi", "reram-isaac", "sram-charge"])
def test_hardware_of_every_kind_can_override(finished, call, name):
    code, out, err = call("energy", finished.folder, "--hardware", name)
    assert code == 0, err
    assert f"for {name}" in out


def test_what_is_no_run_is_said(finished, call, tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        code, out, err = call("energy", folder)
        assert (code, out) == (2, "") and "no finished run is in it" in err and "mho run" in err
    assert "--shape is for networks" in call("energy", finished.folder, "--shape", "784")[2]
    (tmp_path / "summary.json").write_text("{}")
    assert "no finished run is in it" in call("energy", tmp_path)[2]
    gone = tmp_path / "gone"
    shutil.copytree(finished.folder, gone)
    shutil.rmtree(gone / "seed-0" / "hardware_aware")
    with pytest.raises(CheckpointError, match=r"hardware_aware: no checkpoint"):
        FinishedRun.read(gone)


def test_a_network_whose_checkpoint_is_gone_is_not_trained_anew(finished, tmp_path):
    gone = shutil.copytree(finished.folder, tmp_path / "gone")
    shutil.rmtree(gone / "seed-1" / "quantized")
    assert evaluate_stored(gone, chips=1).data.sizes["seed"] == 2
    with pytest.raises(CheckpointError, match=r"seed-1.quantized: no checkpoint"):
        evaluate_stored(gone, "quantized", chips=1)
    assert not (gone / "seed-1" / "quantized").exists()


def test_one_of_many_processes_writes_no_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    with pytest.raises(TrainingError, match=r"WORLD_SIZE = 2.*mho join.*mho.train.distributed"):
        run_recipe(tmp_path / "tiny.toml", out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert make_folder(tmp_path / "runs").is_dir()


# --- the digital network, rounded ------------------------------------------------------------------------------------


def by_hand(net, bits, calibration, x):
    """Round weights of each output and inputs to 2^bits - 1 symmetric levels, layer by layer; ranges: the largest
    input of each layer, in the rounded network."""
    top = 2 ** (bits - 1) - 1
    seen, h = calibration, x
    for layer in net:
        if isinstance(layer, nn.Linear):
            scale = layer.weight.abs().amax(1, keepdim=True) / top
            weight = (layer.weight / scale).round() * scale
            step = seen.abs().max() / top
            seen, h = ((v / step).round().clamp(-top, top) * step @ weight.t() + layer.bias for v in (seen, h))
        else:
            seen, h = layer(seen), layer(h)
    return h.argmax(-1)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_rounding_is_that_of_symmetric_integers(bits):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 4))
    x, calibration = torch.randn(400, 12), torch.randn(200, 12)
    with torch.no_grad():
        mine = by_hand(net, bits, calibration, x)
        exact = net(x).argmax(-1)
    assert accuracy_at(bits, net, [calibration], [(x, mine)]) >= 99.5  # a tie may fall either way
    assert accuracy_at(None, net, [calibration], [(x, exact)]) == 100.0
    assert bits == 8 or float((mine != exact).float().mean()) > 0.01  # else the test could not fail


def test_accuracies_are_means_over_networks_and_what_is_known_is_not_measured_again():
    torch.manual_seed(1)
    nets = [nn.Sequential(nn.Linear(6, 3)) for _ in range(2)]
    x, y = torch.randn(90, 6), torch.randint(3, (90,))
    found = digital_accuracies(nets, [x], [(x, y)], {"fp32": 12.5})
    assert list(found) == ["fp32", "int8", "int4"] and found["fp32"] == 12.5
    alone = [accuracy_at(4, n, [x], [(x, y)]) for n in nets]
    assert found["int4"] == pytest.approx(sum(alone) / 2) and alone[0] != alone[1]


def test_a_run_says_what_it_measured_at_int8_and_int4(finished):
    costs = finished.summary["energy"]
    run = FinishedRun.read(finished.folder)
    assert costs["fp32_accuracy"] == finished.summary["digital"]["accuracy"]
    first = digital_accuracies([run.digital], run.calibration, run.batches(None))
    assert abs(costs["int4_accuracy"] - first["int4"]) < 20  # the mean over two seeds
    assert 0 <= costs["int4_accuracy"] <= costs["int8_accuracy"] + 1
    for name in ("fp32", "int8", "int4"):
        assert f"{costs[f'{name}_accuracy']:.2f} % at {name}" in costs["sentence"]
    assert costs["compared_with"] in ("digital fp32", "digital int8", "digital int4")
    record = json.loads(finished.record.read_text())
    assert record["summary"]["energy"] == costs
    page = finished.report.read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    assert f"{costs['int4_accuracy']:.2f} % at int4" in page
