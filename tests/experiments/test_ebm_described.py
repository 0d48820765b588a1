"""Energy-based runs: ``resume`` goes on with the training of the same settings only. Nothing is trained here."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mho.data import Dataset, load_dataset
from mho.errors import CheckpointError
from mho.experiments.ebm import eqprop, generate, resistive
from mho.experiments.ebm.described import begin, training_keys
from mho.hardware import GenericCell, Hardware, dump_hardware, load_hardware

EXPERIMENTS = {"eqprop": eqprop, "resistive": resistive, "generate": generate}
FIRST_STEP = {"eqprop": "_trained", "resistive": "digital", "generate": "_judge"}
"""What each run does first after its folder is described."""

TRAINING = [
    ("eqprop", {"train": {"lr": 0.01}}, "train.lr was 0.002 and is 0.01"),
    ("eqprop", {"train": {"nudge": 0.2}}, "train.nudge"),
    ("eqprop", {"train": {"variant": "positive"}}, "train.variant was 'centred' and is 'positive'"),
    ("eqprop", {"data": {"dataset": "mnist"}}, "data.dataset"),
    ("eqprop", {"network": {"units": [8]}}, "network.units"),
    ("eqprop", {"conditions": {"bits": 4}}, "conditions.bits was 6 and is 4"),
    ("eqprop", {"conditions": {"read_noise": 0.02}}, "hardware.cell.read_noise"),
    ("eqprop", {"hardware": "generic"}, "hardware.mapping.per_column was True and is False"),
    ("resistive", {"lr": 0.2}, "lr was 0.1 and is 0.2"),
    ("resistive", {"nudge": 0.2}, "nudge"),
    ("resistive", {"variant": "positive"}, "variant"),
    ("resistive", {"dataset": "fashion-mnist"}, "dataset was 'mnist-mini' and is 'fashion-mnist'"),
    ("resistive", {"hardware": "generic-channel"}, "hardware.mapping.per_column"),
    ("generate", {"dataset": "mnist"}, "dataset was 'mnist-mini' and is 'mnist'"),
    ("generate", {"layout": "random"}, "layout"),
    ("generate", {"latent": 2}, "latent"),
    ("generate", {"coupling_limit": 0.4}, "coupling_limit"),
    ("generate", {"rbm_updates": 5}, "rbm_updates was 8000 and is 5"),
    ("generate", {"diffusion_updates": 5}, "diffusion_updates"),
    ("generate", {"judge_epochs": 1}, "judge_epochs"),
]
EVALUATION = [
    ("eqprop", {"evaluate": {"chips": 3, "ages": ["1 day"]}}),
    ("eqprop", {"network": {"free_steps": 30}, "train": {"on_chips": False}, "seeds": [1]}),
    ("resistive", {"chips": 3, "chip_seed": 5, "noise_scales": [1.0], "ages": ["1 day"], "test_subset": 20}),
    ("generate", {"images": 16, "chips": 2, "skip_test": 3, "readout": "last", "baselines": False}),
    ("generate", {"test_coupling_error": 0.1, "test_temperature_error": 0.1, "rbm_sweeps": 5, "seeds": [0, 1]}),
]


class Reached(Exception):
    """The run went on."""


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_dataset(limit_per_class=1)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Dataset) -> Callable[..., Path]:
    """Start an experiment up to its first step; gives its folder, which is described then."""

    def stop(*args: object, **options: object) -> None:
        raise Reached

    for kind, module in EXPERIMENTS.items():
        monkeypatch.setattr(module, "load_dataset", lambda name, data_dir: data)
        monkeypatch.setattr(module, FIRST_STEP[kind], stop)

    def started(kind: str, changes: dict[str, Any], *, resume: bool = False) -> Path:
        settings = _settings(EXPERIMENTS[kind], changes)
        with pytest.raises(Reached):
            EXPERIMENTS[kind].run(settings, out=tmp_path, resume=resume)
        return tmp_path / settings.name

    return started


def _settings(module: ModuleType, changes: dict[str, Any]) -> Any:
    return module.Settings.model_validate(changes)


@pytest.mark.parametrize(("kind", "change", "told"), TRAINING)
def test_a_changed_training_key_is_refused_before_anything_is_written(
    start: Callable[..., Path], kind: str, change: dict[str, Any], told: str
) -> None:
    folder = start(kind, {}, resume=True)  # nothing is there: it starts
    (folder / "seed0" / "network").touch()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="belongs to another run") as caught:
        EXPERIMENTS[kind].run(_settings(EXPERIMENTS[kind], change), out=folder.parent, resume=True)
    assert told in str(caught.value) and "--out with another folder" in str(caught.value)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    start(kind, {}, resume=True)


@pytest.mark.parametrize(("kind", "change"), EVALUATION)
def test_changed_keys_of_evaluation_are_no_other_training(
    start: Callable[..., Path], kind: str, change: dict[str, Any]
) -> None:
    folder = start(kind, {})
    (folder / "seed0" / "network").touch()
    start(kind, change, resume=True)
    assert (folder / "seed0" / "network").is_file()
    written = json.loads((folder / "settings.json").read_text())
    assert written == _settings(EXPERIMENTS[kind], change).model_dump(mode="json")
    start(kind, {}, resume=True)


@pytest.mark.parametrize("kind", EXPERIMENTS)
def test_every_key_of_evaluation_is_a_key(kind: str) -> None:
    settings = EXPERIMENTS[kind].Settings
    for key in settings.EVALUATION:
        fields = settings.model_fields
        *tables, last = key.split(".")
        for table in tables:
            fields = fields[table].annotation.model_fields
        assert last in fields


def test_a_killed_start_of_other_settings_does_not_go_on_from_the_run_of_before(start: Callable[..., Path]) -> None:
    folder = start("resistive", {"seeds": [0, 1]})
    for seed in ("seed0", "seed1"):
        (folder / seed / "network").touch()
    start("resistive", {})  # afresh and the same: what lies there is what it would train
    assert (folder / "seed0" / "network").is_file()
    start("resistive", {"lr": 0.2})
    assert not (folder / "seed0" / "network").exists() and (folder / "seed1" / "network").is_file()
    start("resistive", {"lr": 0.2}, resume=True)
    with pytest.raises(CheckpointError, match=r"seed1.settings\.json.*lr was 0\.1 and is 0\.2"):
        start("resistive", {"lr": 0.2, "seeds": [0, 1]}, resume=True)


def test_a_folder_that_describes_its_seeds_itself_resumes_and_refuses_too(start: Callable[..., Path]) -> None:
    folder = start("eqprop", {})
    for name in ("settings.json", "hardware.toml"):
        (folder / "seed0" / name).unlink()
    with pytest.raises(CheckpointError, match=r"train\.lr"):
        start("eqprop", {"train": {"lr": 0.01}}, resume=True)
    (folder / "seed0" / "network").touch()
    start("eqprop", {}, resume=True)
    assert (folder / "seed0" / "network").is_file() and (folder / "seed0" / "settings.json").is_file()


def test_of_hardware_its_physics_counts_not_its_name_or_prices(tmp_path: Path) -> None:
    settings, hw = resistive.Settings(), load_hardware("generic")
    assert hw.cost is not None and not any("cost" in key for key in training_keys(settings, hw))
    begin(tmp_path, settings, hw, resume=True)
    own = settings.model_copy(update={"hardware": "mine.toml"})
    begin(tmp_path, own, hw.replace(name="mine", cost=None, sources=()), resume=True)
    other = hw.replace(cell=GenericCell(programming_noise=0.3))
    with pytest.raises(CheckpointError, match=r"hardware\.cell\.programming_noise was .* and is 0\.3"):
        begin(tmp_path, own, other, resume=True)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    settings, hw = resistive.Settings(), Hardware(name="plain")
    begin(tmp_path, settings, hw, resume=True)
    (tmp_path / "hardware.toml").unlink()
    with pytest.raises(CheckpointError, match=r"hardware\.toml: cannot be read"):
        begin(tmp_path, settings, hw, resume=True)
    (tmp_path / "hardware.toml").write_text(dump_hardware(hw))
    begin(tmp_path, settings, hw, resume=True)
    (tmp_path / "settings.json").write_text('{"experiment": "another"}')
    with pytest.raises(CheckpointError, match=r"settings\.json: cannot be read .*another folder"):
        begin(tmp_path, settings, hw, resume=True)
    begin(tmp_path, settings, hw, resume=False)
    begin(tmp_path, settings, hw, resume=True)


def test_many_changed_keys_are_not_all_told(tmp_path: Path) -> None:
    settings = resistive.Settings()
    begin(tmp_path, settings, load_hardware("generic"), resume=True)
    with pytest.raises(CheckpointError, match=r"and \d+ keys more\. Fix"):
        begin(tmp_path, settings, load_hardware("pcm-hermes"), resume=True)
