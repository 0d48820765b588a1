"""What a case counts, against numbers counted by hand, and the floor that they make."""

import pytest
from torch import nn

from mho.bench.cases import CASES, network
from mho.bench.roofline import Counts, Peaks, count, floors_ms, measure_peaks
from mho.bench.speed import speed_document
from mho.errors import InputError

MACS = 784 * 512 + 512 * 256 + 256 * 10
PARAMETERS = MACS + 512 + 256 + 10
OUTPUTS = 512 + 256 + 10
BATCH = 128


def test_the_mlp_counts_what_a_hand_counts() -> None:
    moved = 4 * (PARAMETERS + BATCH * (784 + 10))
    assert count("infer_mlp") == Counts(2 * BATCH * MACS, moved, BATCH * OUTPUTS)
    trained = count("train_mlp")
    assert trained.operations == 2 * BATCH * (3 * MACS - 784 * 512)  # the input wants no gradient
    assert trained.normals == BATCH * OUTPUTS + MACS
    assert trained.bytes == 4 * (6 * PARAMETERS + BATCH * (784 + 10))
    many = count("chips25_mlp")
    assert (many.operations, many.normals) == (25 * 2 * BATCH * MACS, 25 * BATCH * OUTPUTS)
    assert many.bytes == 4 * (25 * PARAMETERS + BATCH * (784 + 25 * 10))


def test_every_tile_is_converted_by_itself() -> None:
    one, tiles = count("linear1024"), count("linear1024_tiles256")
    assert one.operations == tiles.operations == 3 * 2 * 512 * 1024 * 1024
    assert (one.normals, tiles.normals) == (512 * 1024 + 1024**2, 4 * 512 * 1024 + 1024**2)


def test_a_convolution_counts_its_positions() -> None:
    model, x = network("resnet20")
    macs, outputs = 0, 0

    def seen(m: nn.Module, given: tuple, y) -> None:
        nonlocal macs, outputs
        macs += y.numel() * m.weight[0].numel()
        outputs += y.numel()

    for m in model.modules():
        if isinstance(m, nn.Conv2d | nn.Linear):
            m.register_forward_hook(seen)
    model(x)
    found = count("infer_resnet20")
    assert (found.operations, found.normals) == (2 * macs, outputs)


def test_the_floor_is_the_slower_of_arithmetic_and_memory_and_the_noise_on_top() -> None:
    peaks = Peaks(operations_s=1e9, bytes_s=1e8, normals_s=1e7)
    assert floors_ms(Counts(2_000_000, 100_000, 10_000), peaks) == pytest.approx((2.0, 3.0))
    assert floors_ms(Counts(2_000_000, 500_000, 0), peaks) == pytest.approx((5.0, 5.0))


def test_peaks_are_positive_and_an_unknown_case_is_refused() -> None:
    found = measure_peaks(1)
    assert min(found.operations_s, found.bytes_s, found.normals_s) > 1e6
    with pytest.raises(InputError, match="infer_mlp"):
        count("infer_mpl")


def test_the_document_has_a_floor_for_each_case_that_was_run() -> None:
    document = speed_document([{"case": "infer_mlp"}], peaks=Peaks(1e11, 1e10, 1e9))
    row = document["roofline"]["cases"]["infer_mlp"]
    assert row["mho_floor_ms"] > row["digital_floor_ms"] > 0
    assert speed_document([])["roofline"] is None
    assert set(CASES) >= set(document["roofline"]["cases"])
