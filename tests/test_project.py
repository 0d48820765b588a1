"""The project's own promises: what an import costs, what is pinned, and that the README runs."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import requires, version
from pathlib import Path
from statistics import median

import pytest

import mho

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HEAVY = ("pydantic", "scipy", "xarray", "matplotlib", "typer", "rich", "pooch", "PIL", "pandas", "requests")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}

TINY_EBM = """
experiment = "eqprop"
name = "ebm-eqprop"
[data]
subset = 500
[network]
units = [32]
[train]
epochs = 1
noise_free = false
[evaluate]
chips = 2
noise_scales = []
"""
TINY = """
name = "mnist-mini"
[data]
subset = 256
batch_size = 64
[network]
model = "mlp"
args = {sizes = [784, 16, 10]}
[train]
epochs = 1
[evaluate]
chips = 2
batch_size = 1200
"""


def python(code: str, cwd: Path | None = None) -> str:
    """Standard output of ``code`` in a fresh interpreter."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_mho_imports_nothing_heavy():
    # torch brings what it likes; only what mho adds counts.
    added = "import sys, torch; before = set(sys.modules); import mho; print(*(set(sys.modules) - before))"
    names = {name.partition(".")[0] for name in python(added).split()}
    assert not names & set(HEAVY)
    assert python("import mho; print(mho.__version__)").strip() == mho.__version__


def test_hardware_and_layers_can_be_had_without_the_heavy_libraries():
    added = (
        "import sys, torch; before = set(sys.modules); import mho.nn, mho.hardware; print(*(set(sys.modules) - before))"
    )
    names = {name.partition(".")[0] for name in python(added).split()}
    assert not names & {"matplotlib", "typer", "xarray", "pooch"}


def test_importing_mho_costs_at_most_a_fifth_of_a_second_more_than_torch():
    timed = "import time, torch; t = time.perf_counter(); import mho; print(time.perf_counter() - t)"
    assert median(float(python(timed)) for _ in range(5)) <= 0.2


def test_every_public_name_resolves():
    for name in mho.__all__:
        assert getattr(mho, name) is not None
    with pytest.raises(AttributeError, match="convrt"):
        getattr(mho, "convrt")  # noqa: B009 (the attribute does not exist)


def test_one_version_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert PROJECT["project"]["version"] == mho.__version__
    assert f"\nversion: {mho.__version__}\n" in citation


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {re.sub(r"[-_.]+", "-", name).lower(): exact for name, exact in pairs}


def test_constraints_pin_every_dependency_and_theirs():
    pins = pinned()
    assert pins["torch"] == "2.13.0"
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["dev"]]
    assert "hatchling" in pins and "editables" in pins  # they build the package in a place of their own
    seen: set[str] = set()
    while wanted:
        text = wanted.pop()
        name = re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", text)[0]).lower()
        if name == PROJECT["project"]["name"]:  # its own extra: mho[lab]
            extra = re.search(r"\[(.+)\]", text)[1]
            wanted += PROJECT["project"]["optional-dependencies"][extra]
            continue
        if name in seen or "extra ==" in text or (name not in pins and ";" in text):
            continue  # an extra that nobody asked for, or meant for another platform or Python
        seen.add(name)
        assert name in pins, f"{name} is not pinned in constraints.txt"
        assert version(name).split("+")[0] == pins[name]
        wanted += requires(name) or ()
    assert len(seen) > 30


# This test may itself run under make, which hands its variables down.
OF_MAKE = (
    "MAKEFLAGS",
    "MAKELEVEL",
    "MFLAGS",
    "ARGS",
    "TESTS",
    "RECIPE",
    "OUT",
    "MHO",
    "PYTEST",
    "PYTHON",
    "VENV",
    "WORKERS",
)
OUTSIDE = {name: value for name, value in ENVIRONMENT.items() if name not in OF_MAKE}


def make(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """``make`` as if everything were installed, with this interpreter."""
    command = ["make", "-C", str(ROOT), "--no-print-directory", "-o", ".venv/.installed"]
    return subprocess.run(
        [*command, *arguments], env={**OUTSIDE, **more}, capture_output=True, text=True, timeout=280, check=False
    )


def test_make_run_is_the_whole_experiment(tmp_path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY)
    done = make(
        "run", f"MHO={sys.executable} -m mho.cli", f"RECIPE={recipe}", f"OUT={tmp_path}", DISPLAY="", WAYLAND_DISPLAY=""
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "mnist-mini" / "summary.json").read_text())
    assert summary["hardware_aware"]["chips"] == 2 and "hardware-aware" in done.stdout
    assert (tmp_path / "mnist-mini" / "report.html").stat().st_size > 10_000


def test_make_test_runs_pytest_and_fails_when_a_test_fails(tmp_path):
    (tmp_path / "test_one.py").write_text("def test_good():\n    pass\n\ndef test_bad():\n    assert False\n")
    python_tests = f"PYTEST={sys.executable} -m pytest -p no:cacheprovider"
    bad = make("test", python_tests, f"TESTS={tmp_path}")
    assert bad.returncode != 0 and "1 failed, 1 passed" in bad.stdout
    good = make("test", python_tests, f"TESTS={tmp_path}", "ARGS=-k good")
    assert good.returncode == 0 and "1 passed" in good.stdout


def test_make_refuses_an_old_python_with_the_way_out(tmp_path):
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.0" && exit\nexit 1\n')
    old.chmod(0o755)
    command = ["make", "-C", str(ROOT), "-B", "install", "VENV=" + str(tmp_path / "venv"), f"PYTHON={old}"]
    done = subprocess.run(command, env=OUTSIDE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0 and "Python 3.9.0, mho needs 3.11" in done.stderr and "PYTHON=" in done.stderr
    command[-1] = "PYTHON=no-such-python"
    done = subprocess.run(command, env=OUTSIDE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0 and "there is no no-such-python" in done.stderr
    assert not (tmp_path / "venv").exists()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


COMMANDS = [line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines() if line[:2] == "$ "]


def test_the_python_of_the_readme_runs(tmp_path):
    first, *more = blocks("python")
    assert "mho.convert" in first and len([line for line in first.splitlines() if line.strip()]) <= 16
    # One program, as a reader goes on; with fewer steps and images, where it takes long.
    code = "\n".join((first, *more))
    small = code.replace("train_batches(128, seed=0), epochs=3", "train_batches(128, seed=0, subset=512), epochs=1")
    small = small.replace("train_batches(128, seed=1)", "train_batches(128, seed=1, subset=256)")
    small = small.replace("test_batches(500)", "test_batches(500, subset=500)")
    small = small.replace("test_batches(200), images=400", "test_batches(50, subset=50), images=50")
    small = small.replace("subset=1280", "subset=256")
    assert small.count("subset=") == 5
    printed = python(small, cwd=tmp_path)
    assert "analog" in printed and "tensor(" in printed and "margin_noise" in printed and "symmetry point" in printed
    assert (tmp_path / "report.html").is_file()


def test_the_readme_shows_the_two_commands_first():
    assert COMMANDS[:2] == ["make run", "make test"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder that holds runs/mnist-mini, made by the README's own ``mho run`` on a tiny recipe of the same name."""
    place = tmp_path_factory.mktemp("readme")
    (place / "tiny.toml").write_text(TINY)
    (place / "tiny-ebm.toml").write_text(TINY_EBM)
    mho_command(place, ["run", "tiny.toml"])
    return place


def mho_command(place: Path, arguments: list[str]) -> str:
    command = [sys.executable, "-m", "mho.cli", *arguments]
    done = subprocess.run(command, cwd=place, env=ENVIRONMENT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("mho ")])
def test_every_mho_command_of_the_readme_runs(command, workplace):
    arguments = shlex.split(command)[1:]
    if arguments[:2] == ["run", "mnist-mini"]:
        arguments[1:2] = ["tiny.toml", "--resume"]
    elif arguments[:2] == ["run", "ebm-eqprop"]:
        arguments[1:2] = ["tiny-ebm.toml"]
    elif arguments[0] == "front":
        arguments += ["--chips", "2", "--images", "100"]
    elif arguments[0] == "evaluate":
        arguments += ["--chips", "2"]
    elif arguments[:2] == ["bench", "speed"]:
        arguments += ["--case", "infer_mlp"]
    assert mho_command(workplace, arguments).strip()


def test_no_command_of_the_readme_is_left_untested():
    assert all(c in ("make run", "make test") or c.startswith("mho ") for c in COMMANDS) and len(COMMANDS) >= 8


def test_links_between_the_pages_lead_somewhere():
    for page in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert target.startswith("https://") or (ROOT / target).exists(), f"{page}: {target}"


def test_rooms_that_the_architecture_names_exist_and_the_others_are_named():
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for room in (ROOT / "src" / "mho").iterdir():
        if (room / "__init__.py").is_file():
            assert f"`{room.name}`" in text or f"`mho.{room.name}`" in text, (
                f"ARCHITECTURE.md does not name {room.name}"
            )


def test_the_results_block_is_filled_from_a_run(workplace, tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text(README, encoding="utf-8")
    script = ROOT / "benchmarks" / "make_readme.py"
    for _ in range(2):  # filling twice is filling once
        subprocess.run(
            [sys.executable, script, workplace / "runs" / "mnist-mini", "--readme", copy],
            env=ENVIRONMENT, check=True, timeout=120, capture_output=True,
        )  # fmt: skip
    text = copy.read_text(encoding="utf-8")
    summary = json.loads((workplace / "runs" / "mnist-mini" / "summary.json").read_text())
    assert text.count("Hardware-aware network, on the chips") == 1
    assert f"{summary['hardware_aware']['worst']:.2f}" in text
    svg = (tmp_path / "docs" / "results.svg").read_text(encoding="utf-8")
    assert svg.count("<circle") == 3 * 2 and "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert text.replace(
        text[text.index("<!-- results:begin -->") : text.index("<!-- results:end -->")], ""
    ) == README.replace(README[README.index("<!-- results:begin -->") : README.index("<!-- results:end -->")], "")


def test_the_page_of_results_is_what_the_records_say(tmp_path):
    script = ROOT / "benchmarks" / "make_results.py"
    subprocess.run([sys.executable, script, "--docs", tmp_path], env=ENVIRONMENT, check=True, timeout=120)
    made = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert made == (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for picture in re.findall(r"\]\((results-[^)]+\.svg)\)", made):
        assert (tmp_path / picture).is_file() and (ROOT / "docs" / picture).is_file()
    for record in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert "command" in record.read_text(encoding="utf-8"), record


def test_an_ablation_removes_and_adds_one_element_at_a_time(tmp_path):
    script = ROOT / "benchmarks" / "ablation.py"
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY.replace("epochs = 1", "epochs = 1\nclip_sigma = 1.5"))
    options = ["--subset", "256", "--validation", "200", "--chips", "2", "--only", "without bounds"]
    places = ["--out", tmp_path / "runs", "--results", tmp_path / "results"]
    for _ in range(2):  # the second time everything is there
        subprocess.run([sys.executable, script, recipe, *options, *places], env=ENVIRONMENT, check=True, timeout=240)
    found = json.loads((tmp_path / "results" / "ablation-mnist-mini.json").read_text())
    assert [entry["name"] for entry in found["ablation"]] == ["the recipe", "without bounds"]
    assert found["ablation"][0]["against"] is None and found["ablation"][1]["against"]["low"] <= 100
    assert found["ablation"][0]["rho"] != found["ablation"][1]["rho"]
