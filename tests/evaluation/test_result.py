import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from mho.errors import CheckpointError, InputError
from mho.evaluation.atomic import write_atomically
from mho.evaluation.result import DIMS, Result
from mho.evaluation.statistics import hierarchical_bootstrap

ATTRS = {"hardware": "generic", "model": "mlp", "chip_seed": 7, "versions": {"mho": "0.1.0"}, "command": "mho run"}
AGES = (25.0, 86400.0, 31557600.0)


@pytest.fixture
def outcomes():
    rng = np.random.default_rng(0)
    share = np.array([0.99, 0.95, 0.9])[None, None, :, None, None, None]
    return rng.random((2, 6, 3, 2, 1, 101)) < share * np.array([1.0, 0.8])[:, None, None]


@pytest.fixture
def result(outcomes):
    clean = np.random.default_rng(1).random((2, 101)) < 0.98
    return Result.of(outcomes, clean=clean, seeds=(0, 1), ages_s=AGES, noise_scales=(1.0, 2.0), bits=(0,), attrs=ATTRS)


def test_summary_holds_the_defined_numbers(result, outcomes):
    summary = result.summary(n_boot=300)
    here = summary.sel(age_s=86400.0, noise_scale=2.0, bits=0)
    chips = 100 * outcomes[:, :, 1, 1, 0].mean(axis=-1)
    assert float(here["mean"]) == pytest.approx(chips.mean())
    assert float(here["std"]) == pytest.approx(math.sqrt(np.mean(chips.var(axis=1, ddof=1))))
    assert float(here["std_seeds"]) == pytest.approx(abs(np.subtract(*chips.mean(axis=1))) / math.sqrt(2))
    assert float(here["p5"]) == pytest.approx(np.quantile(chips, 0.05))
    assert float(here["worst"]) == pytest.approx(chips.min())
    interval = (float(here["ci95_low"]), float(here["ci95_high"]))
    assert interval == hierarchical_bootstrap(outcomes[:, :, 1, 1, 0], n_boot=300)
    assert float(summary["clean"]) == pytest.approx(100 * result.data["clean"].to_numpy().mean())
    accuracy = result.accuracy()
    assert accuracy.dims == DIMS[:-1]
    assert accuracy.attrs["units"] == "percent"


def test_one_chip_has_no_spread_and_json_says_null():
    result = Result.of(np.ones((1, 1, 1, 1, 1, 9), dtype=bool))
    assert math.isnan(float(result.summary()["std"].squeeze()))
    numbers = result.numbers()
    assert numbers["std"] is None
    assert numbers["std_seeds"] is None
    assert "clean" not in numbers
    assert numbers["ci95"] == [100.0, 100.0]
    assert json.loads(result.to_json())["points"][0]["std"] is None
    assert any("1 chip" in note for note in result.notes())
    assert any("one training seed" in note for note in result.notes())


def test_numbers_has_the_keys_of_summary_json(result):
    numbers = result.select(age_s="1 day", noise_scale=1.0).numbers()
    assert {"clean", "mean", "std", "p5", "worst", "ci95", "chips"} <= numbers.keys()
    assert numbers["chips"] == 6
    with pytest.raises(InputError, match="select"):
        result.numbers()


def test_select_keeps_dims_and_answers_typos(result):
    part = result.select(age_s=["1 day", "1 year"], chip=3)
    assert part.data["correct"].dims == DIMS
    assert part.data["age_s"].to_numpy().tolist() == [86400.0, 31557600.0]
    assert part.chips == 1
    with pytest.raises(InputError, match="1 day"):
        result.select(age_s="1 week")
    with pytest.raises(InputError, match="unknown unit"):
        result.select(age_s="1 dya")
    with pytest.raises(InputError, match="as described"):
        result.select(bits=6)


def test_save_and_load_are_exact(result, tmp_path):
    path = result.save(tmp_path / "deep" / "result.npz")
    again = Result.load(path)
    assert again.data.identical(result.data)
    assert path.stat().st_size < 4000 + result.data["correct"].size / 6
    assert [p.name for p in path.parent.iterdir()] == ["result.npz"]


def test_damaged_files_are_named(result, tmp_path):
    path = result.save(tmp_path / "result.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"result\.npz"):
        Result.load(path)
    with pytest.raises(CheckpointError, match=r"absent\.npz"):
        Result.load(tmp_path / "absent.npz")
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with pytest.raises(CheckpointError, match=r"other\.npz"):
        Result.load(tmp_path / "other.npz")


def test_an_unwritable_path_is_named_and_the_former_file_stays(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("old")
    with pytest.raises(CheckpointError, match=r"below.*Fix"):
        write_atomically(blocker / "below", b"new")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match="folder"):
        write_atomically(tmp_path / "folder", b"new")
    assert blocker.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_wrong_data_is_refused(result, outcomes):
    with pytest.raises(InputError, match="correct"):
        Result(result.data.transpose("chip", ...))
    with pytest.raises(InputError, match="labels"):
        Result(result.data.drop_vars("age_s"))
    with pytest.raises(InputError, match="labels of sizes"):
        Result.of(outcomes)
    with pytest.raises(InputError, match="bool"):
        Result.of(outcomes.astype(float), seeds=(0, 1), ages_s=AGES, noise_scales=(1.0, 2.0))
    with pytest.raises(InputError, match="clean"):
        Result.of(outcomes, clean=np.ones((1, 101), dtype=bool), seeds=(0, 1), ages_s=AGES, noise_scales=(1.0, 2.0))
    with pytest.raises(InputError, match=r"Result\.attrs"):
        Result.of(np.ones((1, 1, 1, 1, 1, 9), dtype=bool), attrs={"bad": object()}).to_json()


def test_the_table_shows_swept_dims_and_notes(result):
    stream = io.StringIO()
    Console(file=stream, width=120).print(result.table(n_boot=200))
    text = stream.getvalue()
    for shown in ("mlp on generic", "1 year", "noise x", "p5 over 12"):
        assert shown in text
    assert "as described" not in text


def test_seeds_join_to_the_result_of_all(result):
    parts = [result.select(seed=0), result.select(seed=1)]
    assert Result.joined(parts).data.identical(result.data)
    with pytest.raises(InputError, match="measured alike"):
        Result.joined([parts[0], parts[1].select(noise_scale=2.0)])
