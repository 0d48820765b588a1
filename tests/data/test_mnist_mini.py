import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch

from mho.data import load_dataset
from mho.data.mnist_mini import FILE, unpack
from mho.errors import DataError, InputError


def test_counts_balance_and_statistics():
    data = load_dataset()
    assert data.name == "mnist-mini"
    assert data.train_x.shape == (12_000, 1, 28, 28)
    assert data.test_x.shape == (2_400, 1, 28, 28)
    assert torch.bincount(data.train_y).tolist() == [1200] * 10
    assert torch.bincount(data.test_y).tolist() == [240] * 10
    assert data.train_y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # MNIST begins like this
    assert data.test_y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    pixels = data.train_x.double() / 255
    assert abs(pixels.mean() - data.mean[0]) < 3e-3
    assert abs(pixels.std() - data.std[0]) < 3e-3


def test_file_is_small_and_guarded():
    content = (resources.files("mho.data") / FILE).read_bytes()
    assert len(content) < 2_000_000
    broken = bytearray(content)
    broken[1000] ^= 1
    with pytest.raises(DataError, match="sha256"):
        unpack(bytes(broken), FILE)


def test_limit_per_class():
    assert torch.bincount(load_dataset("mnist-mini", limit_per_class=7).train_y).tolist() == [7] * 10


def test_unknown_name_gets_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'mnist-mini'"):
        load_dataset("mnist-mimi")


def test_import_is_light():
    code = "import sys, mho.data; print([m for m in ('pooch', 'requests', 'PIL', 'scipy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert found.stdout.strip() == "[]"


def test_images_are_the_first_of_mnist():
    folder = os.environ.get("MHO_DATA")
    if not folder or not (Path(folder) / "MNIST").is_dir():
        pytest.skip("MHO_DATA names no folder with MNIST")
    mini, whole = load_dataset(), load_dataset("mnist", data_dir=folder, download=False)
    limited = whole.limit(1200)
    assert torch.equal(mini.train_x, limited.train_x)
    assert torch.equal(mini.train_y, limited.train_y)
    chosen = torch.cat([torch.nonzero(whole.test_y == digit).flatten()[:240] for digit in range(10)]).sort().values
    assert torch.equal(mini.test_x, whole.test_x[chosen])
    assert torch.equal(mini.test_y, whole.test_y[chosen])
