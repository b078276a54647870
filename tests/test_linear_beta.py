"""The fashion model on linear betas: how it sees x, its range, its training run. Its weights do not ship."""

from __future__ import annotations

import math

import pytest
import torch

from fewstep.demo import load_demo_model
from fewstep.demo.evaluate import Trial, teacher_images
from fewstep.demo.linear_beta import FILE_VARIABLE, EpsPrecond, LinearBetaModel, linear_beta_schedule, load_linear_beta_model
from fewstep.demo.network import UNet
from fewstep.demo.train_linear_beta import draw_levels, epsilon_loss, starting_network, train
from fewstep.demo.training_run import Amount
from fewstep.schedules import NoiseSchedule
from fewstep.tensor_files import load_tensors, save_tensors


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_net(seed: int = 0) -> UNet:
    torch.manual_seed(seed)
    net = UNet((16, 32), blocks=1, embedding=32)
    torch.nn.init.normal_(net.conv_out.weight, std=0.1)
    return net


def test_the_range_is_that_of_a_ddpm():
    ns = linear_beta_schedule()
    assert (ns.sigma_min, ns.sigma_max) == (pytest.approx(0.01, rel=1e-3), pytest.approx(157.4, rel=1e-3))
    model = LinearBetaModel(EpsPrecond(small_net()), ns)
    assert model.family == "vp" and model.noise_schedule == NoiseSchedule.from_model(model)


def test_the_model_answers_with_what_the_network_says_of_the_noise():
    net = small_net()
    model = LinearBetaModel(EpsPrecond(net), linear_beta_schedule()).eval()
    x, sigma, labels = torch.randn(4, 1, 32, 32), torch.tensor([0.01001, 0.5, 20.0, 157.0]), torch.tensor([0, 3, 9, 10])
    with torch.no_grad():
        shown = x / (sigma[:, None, None, None] ** 2 + 1).sqrt()
        expected = x - sigma[:, None, None, None] * net(shown, sigma.log() / 4, labels)
        answer = model(x, sigma, labels[:4].clamp(max=9))
    torch.testing.assert_close(answer[:3], expected[:3], rtol=1e-3, atol=1e-3)


def test_the_loss_is_least_for_the_true_noise():
    class Oracle(EpsPrecond):
        def epsilon(self, x, sigma, labels):
            return (x - self.x0) / sigma[:, None, None, None]

    model = Oracle(small_net())
    model.x0 = torch.randn(6, 1, 32, 32)
    noise, sigma, labels = torch.randn(6, 1, 32, 32), torch.logspace(-2, 2, 6), torch.zeros(6, dtype=torch.long)
    assert epsilon_loss(model, model.x0, labels, sigma, noise) < 1e-6
    assert epsilon_loss(model, model.x0 + 0.1, labels, sigma, noise) > 1e-3


def test_levels_are_those_of_uniform_timesteps():
    levels = torch.from_numpy(linear_beta_schedule().levels.copy()).float()
    drawn = draw_levels(20_000, levels.log(), torch.Generator().manual_seed(0))
    assert drawn.min() < 0.02 and drawn.max() > 140
    for share in (0.25, 0.5, 0.75):
        assert float(drawn.quantile(share)) == pytest.approx(float(levels[int(999 * share)]), rel=0.05)


def test_it_starts_from_the_shipped_network_turned_round():
    net, shipped = starting_network(), load_demo_model().network.net
    x, labels = torch.randn(2, 1, 32, 32), torch.tensor([1, 7])
    torch.testing.assert_close(net(x, x.new_zeros(2), labels), -shipped(x, x.new_zeros(2), labels))
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_an_interrupted_run_goes_on_and_its_weights_load(tmp_path, monkeypatch):
    images = torch.rand(40, 1, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1

    def run(folder, interrupted=lambda: False):
        return train(tmp_path / folder, Amount(iterations=5), (images, torch.arange(40) % 10), small_net(), batch=8, peak_rate=1e-3,
                     ema_decay=0.99, save_minutes=9, device="cpu", seed=3, interrupted=interrupted)  # fmt: skip

    whole, record = load_tensors(run("whole"))
    assert record["iterations"] == 5 and math.isfinite(record["loss"])
    answers = iter([False, False, True])
    run("parts", lambda: next(answers))
    path = run("parts")
    parts, _ = load_tensors(path)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-4)
    monkeypatch.setenv(FILE_VARIABLE, str(path))
    model = load_linear_beta_model()
    assert teacher_images(model, Trial.of(model, 10, 1.0), steps=8).isfinite().all()


def test_weights_that_are_not_there_are_explained(tmp_path, monkeypatch):
    monkeypatch.delenv(FILE_VARIABLE, raising=False)
    with pytest.raises(FileNotFoundError, match=r"FEWSTEP_FASHION_157 names no file.*demo\.train_linear_beta"):
        load_linear_beta_model()
    with pytest.raises(FileNotFoundError, match=r"There is no .*gone\.safetensors"):
        load_linear_beta_model(tmp_path / "gone.safetensors")
    save_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, {})
    with pytest.raises((KeyError, RuntimeError)):
        load_linear_beta_model(tmp_path / "other.safetensors")
