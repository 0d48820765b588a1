"""Every case is what it says: same weights on both sides, right hardware, right amount of work."""

import pytest
import torch
from torch import nn

from mho.bench.cases import (
    CASES,
    bench_hardware,
    build_run,
    convert_for_bench,
    find_case,
    gradient_run,
    network,
    train_run,
)
from mho.errors import InputError
from mho.nn.site import analog_layers


def test_names_are_those_that_others_rely_on():
    assert list(CASES) == [
        "train_mlp",
        "train_resnet20",
        "train_transformer",
        "infer_mlp",
        "infer_resnet20",
        "infer_transformer",
        "linear1024",
        "linear1024_tiles256",
        "chips25_mlp",
        "chips25_resnet20",
    ]
    training = {"train_mlp": 1.8, "train_resnet20": 1.4, "train_transformer": 1.35}
    inference = dict.fromkeys(("infer_mlp", "infer_resnet20", "infer_transformer"), 1.5)
    others = {"linear1024": 1.4, "linear1024_tiles256": 1.8, "chips25_mlp": 1.2, "chips25_resnet20": 1.2}
    assert {name: case.aim for name, case in CASES.items()} == training | inference | others


def test_typo_is_answered_with_the_nearest_name():
    with pytest.raises(InputError, match=r"'train_mpl' is unknown\. Did you mean 'train_mlp'"):
        find_case("train_mpl")


@pytest.mark.parametrize(("name", "parameters", "batch"), [("mlp", 535_818, 128), ("resnet20", 269_722, 64)])
def test_networks_are_those_of_the_peers(name, parameters, batch):
    model, x = network(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(x) == batch


@pytest.mark.parametrize("name", ["mlp", "resnet20", "transformer", "linear"])
def test_every_matrix_is_analog_and_every_converter_knows_its_range(name):
    torch.manual_seed(0)
    digital, x = network(name)
    twin = convert_for_bench(digital, x[:4], rows=None)
    sites = [site for _, layer in analog_layers(twin) for site in layer.sites.values()]
    weights = [p for p in digital.parameters() if p.dim() > 1]
    assert len(sites) == len(weights)
    for layer in (layer for _, layer in analog_layers(twin)):
        for key, site in layer.sites.items():
            assert site.learned_ranges
            assert site.hw == bench_hardware()
            assert (getattr(layer, key + "_ranges") > 0).all()


def test_tiles_of_256_rows():
    digital, x = network("linear")
    (_, layer), *_ = analog_layers(convert_for_bench(digital, x, rows=256))
    assert next(iter(layer.sites.values())).hw.tile.rows == 256


def test_both_sides_have_the_same_weights_and_batch():
    digital, one_chip = build_run("infer_mlp", "digital")(), build_run("infer_mlp", "mho")()
    assert one_chip.shape == (1, *digital.shape)
    # Random weights: noise of 4 % of full scale leaves most of the signal.
    assert torch.corrcoef(torch.stack([one_chip.flatten(), digital.flatten()]))[0, 1] > 0.7


def test_a_chip_is_read_with_fresh_noise_and_digital_is_not():
    infer = build_run("infer_mlp", "mho")
    assert not torch.equal(infer(), infer())
    digital = build_run("infer_mlp", "digital")
    assert torch.equal(digital(), digital())


def test_chips_case_compares_25_chips_with_25_passes(monkeypatch):
    seen = []
    forward = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: seen.append(1) or forward(self, x))
    build_run("chips25_mlp", "digital")()
    assert len(seen) == 25 * 3
    monkeypatch.undo()
    assert build_run("chips25_mlp", "mho")().shape == (25, 128, 10)


@pytest.mark.parametrize("side", ["digital", "mho"])
@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_a_training_run_changes_every_matrix(name, side):
    torch.manual_seed(0)
    model, x = network(name)
    if side == "mho":
        model = convert_for_bench(model, x, rows=None)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    before = [p.detach().clone() for p in matrices]
    train_run(model, x, torch.randint(0, 10, (len(x),)))()
    assert matrices
    assert all(not torch.equal(p, old) for p, old in zip(matrices, before, strict=True))


def test_linear_case_goes_back_to_the_input_and_does_not_accumulate():
    model, x = network("linear")
    run = gradient_run(model, x)
    run()
    first = x.grad.clone(), model.weight.grad.clone(), model.bias.grad.clone()
    run()
    assert all(torch.equal(a, b) for a, b in zip(first, (x.grad, model.weight.grad, model.bias.grad), strict=True))
    assert first[0].abs().max() > 0


def test_tiled_linear_case_runs_forward_and_backward():
    torch.manual_seed(0)
    digital, x = network("linear")
    twin = convert_for_bench(digital, x, rows=256)
    gradient_run(twin, x)()
    assert x.grad.abs().max() > 0
    assert twin.weight.grad.abs().max() > 0
