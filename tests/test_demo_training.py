"""Training of the demo network and the judge's data: the data set, resuming, files that are never half-written."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from fewstep.demo.data import load_images
from fewstep.demo.train import learning_rate, train
from fewstep.tensor_files import load_tensors, save_tensors


@pytest.fixture(scope="module")
def dataset():
    try:
        return load_images("test")
    except FileNotFoundError as error:
        pytest.skip(f"The data set is not installed: {error}")


def test_images_are_padded_and_scaled(dataset):
    images, labels = dataset
    assert images.shape == (10_000, 1, 32, 32) and labels.bincount().tolist() == [1000] * 10
    assert images.min() == -1 and images.max() == 1
    assert (images[:, :, :2] == -1).all() and (images[..., -2:] == -1).all()


def test_unknown_split():
    with pytest.raises(ValueError, match="'validation'"):
        load_images("validation")


def test_missing_data_set_is_explained(monkeypatch, tmp_path):
    monkeypatch.setenv("FEWSTEP_FASHION_MNIST", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        load_images("train")


def test_an_interrupted_run_goes_on_where_it_stopped(dataset, tmp_path):
    def run(folder, iterations):
        return train(
            tmp_path / folder, iterations, batch=4, peak_rate=1e-3, ema_decay=0.99, channels=(32, 32), save_every=2, device="cpu", seed=3
        )

    torch.set_num_threads(1)
    whole, _ = load_tensors(run("whole", 4))
    # the rate of an iteration depends on the planned length, so the interrupted run is stopped from outside
    script = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "import fewstep.demo.train as t\n"
        "save = t.save_tensors\n"
        "def stop(path, *rest):\n"
        "    save(path, *rest)\n"
        "    sys.exit(9)\n"
        "t.save_tensors = stop\n"
        f"t.train(Path({str(tmp_path / 'parts')!r}), 4, 4, 1e-3, 0.99, (32, 32), 2, 'cpu', 3)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 9
    assert load_tensors(tmp_path / "parts" / "state.safetensors")[1]["iteration"] == 2
    parts, record = load_tensors(run("parts", 4))
    assert record["iterations"] == 4
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-4)


def test_learning_rate_warms_up_stays_and_falls():
    rates = [learning_rate(i, 10_000, 1.0) for i in range(10_000)]
    assert rates[0] == pytest.approx(0.002) and rates[5000] == 1.0
    assert rates[8750] == pytest.approx(0.5, abs=0.01) and 0 <= rates[-1] < 0.001


def test_a_failed_write_leaves_the_former_file(monkeypatch, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"a": torch.ones(3)}, {"version": 1})

    def fails(tensors, name, metadata):
        with open(name, "wb") as file:
            file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("fewstep.tensor_files.save_file", fails)
    with pytest.raises(OSError, match="No space"):
        save_tensors(path, {"a": torch.zeros(3)}, {"version": 2})
    tensors, record = load_tensors(path)
    assert torch.equal(tensors["a"], torch.ones(3)) and record == json.loads('{"version": 1}')
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]
