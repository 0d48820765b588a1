"""The command line as a person meets it: help, tables, errors, exit codes."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import mho
from mho.cli import main
from mho.cli.runs import chosen_seeds, open_in_browser
from mho.costs.text import quantity_text
from mho.hardware import load_hardware, preset_names

SRC = Path(mho.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, "-m", "mho.cli"]

RECIPE = """
name = "tiny"
[data]
subset = 256
batch_size = 64
[network]
model = "mlp"
args = {{sizes = [784, 16, 10]}}
[train]
epochs = {epochs}
[evaluate]
chips = 2
batch_size = 1200
"""


@pytest.fixture
def call(capsys, monkeypatch):
    """Run ``mho`` with arguments; returns (exit code, standard output, standard error)."""
    monkeypatch.delenv("MHO_DATA", raising=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(list(map(str, arguments)))
        found = capsys.readouterr()
        return stopped.value.code, found.out, found.err

    return run


def test_version(call):
    assert call("--version") == (0, f"mho {mho.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("hardware",), ("bench",), ("--help",), ("run", "--help"), ("hardware", "show", "--help"),
        ("inspect", "--help"), ("evaluate", "--help"), ("report", "--help"), ("join", "--help"),
        ("bench", "speed", "--help"),
    ],
)  # fmt: skip
def test_help_is_an_answer_not_an_error(call, arguments):
    code, out, err = call(*arguments)
    assert code == 0 and not err and out.startswith("Usage: mho")


def test_hardware_list_is_plain_text_with_one_line_a_preset(call):
    code, out, _ = call("hardware", "list")
    lines = out.splitlines()
    assert code == 0 and "\x1b" not in out and out.isascii()
    assert [line.split()[0] for line in lines[1:]] == list(preset_names())
    assert load_hardware("pcm-joshi2020").summary in out  # long lines are not cut in a pipe


def test_hardware_show_names_every_constant_with_its_source(call):
    code, out, _ = call("hardware", "show", "pcm-hermes")
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith("cell.read_q.high"))
    assert line.split()[1:3] == ["0.04", "fitted"] and "Le Gallo" in line
    assert "Khaddam-Aljameh" in next(line for line in out.splitlines() if line.startswith("tile.rows"))


@pytest.mark.parametrize("name", ["pcm-hermes", "neuron-asymmetric"])
def test_hardware_show_toml_is_a_description_of_ones_own(call, tmp_path, name):
    code, out, _ = call("hardware", "show", name, "--toml")
    (tmp_path / "own.toml").write_text(out)
    assert code == 0 and tomllib.loads(out)["name"] == name
    assert load_hardware(tmp_path / "own.toml") == load_hardware(name)


def test_hardware_noise_is_sorted_and_follows_the_age(call):
    code, young, _ = call("hardware", "show", "pcm-hermes", "--noise", "--rows", 64, "--cols", 64)
    _, old, _ = call("hardware", "show", "pcm-hermes", "--noise", "--rows", 64, "--cols", 64, "--age", "1 year")
    levels = [float(word) for line in young.splitlines()[2:] for word in line.split()[:8] if word.startswith("-")]
    assert code == 0 and len(levels) >= 4 and levels == sorted(levels, reverse=True)
    assert young != old
    assert "no source of error" in call("hardware", "show", "ideal", "--noise")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rnu",), "'run'"),
        (("hardware", "lst"), "'list'"),
        (("run", "mnist-mni"), "'mnist-mini'"),
        (("run", "--resum"), "--resume"),
        (("run", "--seed", "-1"), "--seed"),
        (("run", "--seeds", "0,x"), "0-2"),
        (("run", "--seeds", "2-0"), "'2-0'"),
        (("run", "--device", "gpu"), "cuda"),
        (("run", "--device", "meta"), "cpu and cuda"),
        (("run", "--device", "cuda:99"), "GPUs here"),
        (("run", "ebm-eqprop", "--device", "cuda"), "CPU only"),
        (("hardware", "show", "pcm-herms"), "'pcm-hermes'"),
        (("hardware", "show", "generic", "--noise", "--age", "3 fortnights"), "unknown unit 'fortnights'"),
        (("hardware", "show", "generic", "--noise", "--toml"), "ask for one"),
        (("hardware", "show", "generic", "--noise", "--rows", "0"), "--rows"),
        (("inspect", "nosuchmodule:make"), "nosuchmodule"),
        (("inspect", "torch.nn:Linearr"), "Linearr"),
        (("inspect", "lenett"), "Did you mean 'lenet'"),
        (("energy", "lenett"), "Did you mean 'lenet'"),
        (("energy", "mnist-mni"), "Did you mean 'mnist-mini'"),
        (("energy", "resnet"), "'resnet20'"),
        (("energy", "none-such.toml"), "a network of mho"),
        (("inspect", "lenet", "--hardware", "idea"), "'ideal'"),
        (("evaluate", "runs/none"), "mho run"),
        (("evaluate", "runs/none", "--age", "soon"), "soon"),
        (("report", "runs/none"), "mho run"),
        (("join", "runs/none"), "at least two"),
        (("join", "runs/none", "runs/nothing"), "no finished run"),
        (("bench", "speed", "--case", "train_mpl"), "'train_mlp'"),
    ],
)
def test_an_error_is_one_block_with_a_way_out_and_exit_code_2(call, arguments, said):
    code, out, err = call(*arguments)
    assert code == 2 and out == ""
    assert err.startswith("error: ") and err.count("error:") == 1 and said in err
    assert "Traceback" not in err and "\x1b" not in err


def test_traceback_on_request(call):
    assert "Traceback" in call("--traceback", "hardware", "show", "pcm-herms")[2]


def test_inspect_a_factory_and_its_refusals(call, tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(
        "from torch import nn\n\n"
        "def good():\n    return nn.Sequential(nn.Linear(4, 3), nn.ReLU())\n\n"
        "def bad():\n    return nn.Sequential(nn.Linear(4, 3), nn.ConvTranspose2d(1, 1, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    code, out, _ = call("inspect", "own_networks:good", "--hardware", "ideal")
    assert code == 0 and "on ideal" in out and "15 of 15 parameters" in out
    code, out, _ = call("inspect", "own_networks:bad")
    assert code == 1 and "refused" in out and "Way out" in out
    code, out, _ = call("inspect", "own_networks:bad", "--digital", "1")
    assert code == 0 and "on request" in out


def test_inspect_the_network_of_a_recipe(call):
    code, out, _ = call("inspect", "mnist-mini")
    assert code == 0 and "Conv2d" in out and "on generic" in out


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny run through the real command in a process of its own: (folder, standard output, standard error)."""
    place = tmp_path_factory.mktemp("cli")
    (place / "tiny.toml").write_text(RECIPE.format(epochs=1))
    done = subprocess.run(
        [*COMMAND, "run", "tiny.toml", "--out", "out", "--seeds", "3", "--record", "records/tiny.json"],
        cwd=place, env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place / "out" / "tiny", done.stdout, done.stderr


def test_run_prints_a_plain_table_and_says_where_the_report_is(finished):
    folder, out, err = finished
    assert "\x1b" not in out and "hardware-aware" in out and "worst" in out
    assert out.splitlines()[-1] == f"report: {Path('out') / 'tiny' / 'report.html'}"
    assert (folder / "report.html").is_file() and (folder / "summary.json").is_file()
    assert "seed 3" in err  # progress does not go to standard output
    assert (folder.parents[1] / "records" / "tiny.json").read_bytes() == (folder / "record.json").read_bytes()


def test_seeds_are_a_list_or_a_range():
    assert chosen_seeds(None, None) is None
    assert chosen_seeds([3], None) == (3,)
    assert chosen_seeds([3], "0, 2") == (3, 0, 2)
    assert chosen_seeds(None, "1-3,2,7") == (1, 2, 3, 7)


def test_evaluate_and_report_a_finished_run(call, finished, tmp_path):
    folder = finished[0]
    saved = tmp_path / "again.npz"
    code, out, _ = call("evaluate", folder, "--chips", 2, "--noise", 0, "--noise", 1, "--out", saved)
    assert code == 0 and "noise x" in out and saved.is_file()
    code, out, _ = call("report", saved)
    assert code == 0 and saved.with_suffix(".html").is_file()
    code, out, _ = call("report", folder, "--out", tmp_path / "page.html")
    assert code == 0 and "hardware-aware" in out and (tmp_path / "page.html").is_file()
    told = json.loads((folder / "summary.json").read_text())["energy"]
    assert out.splitlines()[-2] == told["sentence"] == finished[1].splitlines()[-2]
    for printed in (out, finished[1]):
        rows = {line.split("  ")[0]: line for line in printed.splitlines()}
        for name, start in (("analog_J", "analog, hardware-aware, mean over chips"), ("fp32_J", "digital fp32")):
            row = next(line for key, line in rows.items() if key.startswith(start))
            assert row.endswith(quantity_text(told[name][2], "J")) and quantity_text(told[name][1], "J") in row


def test_a_wrong_network_of_a_run_is_answered_with_the_nearest(call, finished):
    code, _, err = call("evaluate", finished[0], "--network", "hardware_awre")
    assert code == 2 and "'hardware_aware'" in err


def test_the_data_folder_comes_from_the_environment(call, monkeypatch, tmp_path):
    recipe = tmp_path / "full.toml"
    recipe.write_text('name = "full"\n[data]\ndataset = "mnist"\n')
    monkeypatch.setenv("MHO_DATA", str(tmp_path / "absent"))
    with pytest.raises(SystemExit) as stopped:
        main(["run", str(recipe), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2 and not (tmp_path / "out").exists()
    code, _, err = call("run", recipe, "--out", tmp_path / "out", "--data-dir", tmp_path / "nowhere")
    assert code == 2 and "nowhere" in err


def test_ctrl_c_says_how_to_go_on_and_leaves_a_checkpoint(tmp_path):
    (tmp_path / "long.toml").write_text(RECIPE.format(epochs=2000))
    begun = subprocess.Popen(
        [*COMMAND, "run", "long.toml", "--out", "my out"],
        cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for line in begun.stderr:
            if "epoch 2/" in line:
                break
        begun.send_signal(signal.SIGINT)
        out, err = begun.communicate(timeout=60)
    finally:
        begun.kill()
        begun.wait()
    assert begun.returncode == 130 and out == "" and "Traceback" not in err
    assert err.splitlines()[-1].endswith("Continue with: mho run long.toml --out 'my out' --resume")
    assert (tmp_path / "my out" / "tiny" / "seed-0" / "digital" / "LATEST").is_file()


def test_a_browser_opens_only_where_there_is_a_display(monkeypatch, tmp_path):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda url: opened.append(url) or True)
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert open_in_browser(tmp_path / "page.html") is False and opened == []
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert open_in_browser(tmp_path / "page.html") is True and opened == [(tmp_path / "page.html").as_uri()]


def test_a_closed_pipe_is_no_error():
    done = subprocess.run(
        f"'{sys.executable}' -m mho.cli hardware show pcm-hermes | head -n 1",
        shell=True, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("pcm-hermes") and done.stderr == ""


def test_commands_leave_the_random_state_of_torch_alone(call):
    before = torch.get_rng_state()
    call("hardware", "show", "generic", "--noise")
    assert torch.equal(before, torch.get_rng_state())
