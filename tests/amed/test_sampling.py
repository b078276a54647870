"""`sample_amed`: calls, callbacks, batches, kinds of tensors, devices, refusals."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fewstep.amed import FORMS, AmedConfig, AmedPredictor, AmedTable, sample_amed
from fewstep.amed.predictor import FEATURES
from fewstep.demo import load_demo_model
from fewstep.schedules import baseline_sigmas
from fewstep.solvers import sample

from ..problems import MIXTURES
from .reference import FAMILIES, Walker, stamps_of
from .test_forms import per_image
from .test_predictor import shaken

FORM = pytest.mark.parametrize("form", FORMS)
FAMILY = pytest.mark.parametrize("family", FAMILIES)


class CallTap:
    """Features made from what the model was last called with."""

    source = "a test"

    def __init__(self, model):
        self.model, self.inside, self.reads, self.calls = model, False, 0, 0
        self.last = None

    def __enter__(self):
        self.inside = True
        return self

    def __exit__(self, *error):
        self.inside = False

    def __call__(self, x, sigma, **extra):
        denoised = self.model(x, sigma, **extra)
        self.calls += 1
        self.last = torch.outer(denoised.flatten(1).mean(1).float(), torch.linspace(-1, 1, FEATURES, device=x.device))
        return denoised

    def read(self, batch):
        assert self.inside and len(self.last) == batch
        self.reads += 1
        return self.last


def predictor_for(form="amed", family="vp", last=0.0, afs=False, count=4):
    return shaken(AmedConfig(form, stamps_of(family, count, last), family, afs, scale_dir=0.1, scale_time=0.1), 0.3)


@FORM
@FAMILY
def test_a_predictor_samples_what_the_formulas_say(form, family):
    """Its choices, image by image, in the reference."""
    problem = MIXTURES[family]
    for last, afs in itertools.product((0.0, 0.05), (False, True)):
        predictor = predictor_for(form, family, last, afs)
        config, choices = predictor.config, []
        choose = predictor.choose
        predictor.choose = lambda *args, choose=choose, choices=choices: choices.append(choose(*args)) or choices[-1]
        x = torch.from_numpy(problem.start())[:3] * 5
        tap = CallTap(per_image(problem))
        result = sample_amed(tap, x, list(config.stamps), predictor, disable=True, tap=tap)
        assert tap.calls == config.nfe and tap.reads == config.pairs - afs and not tap.inside
        assert result.dtype == x.dtype and len(choices) == config.pairs
        for image in range(3):
            r, c, a = ([float(choice[k][image]) for choice in choices] for k in range(3))
            expected = Walker(form, family, config.stamps, afs, r, c, a, problem.denoised).run(x[image].numpy())[-1]
            torch.testing.assert_close(result[image], torch.from_numpy(expected), rtol=1e-10, atol=1e-10)


@FORM
@pytest.mark.parametrize("kind", ["predictor", "table"])
def test_images_do_not_depend_on_their_batch(form, kind):
    problem = MIXTURES["vp"]
    net = predictor_for(form) if kind == "predictor" else AmedTable.constant(form, stamps_of("vp", 4), 0.3, 1.05, 0.9)
    x = torch.from_numpy(problem.start()).float()
    tap = CallTap(per_image(problem))
    together = sample_amed(tap, x, None, net, disable=True, tap=tap)
    for image in range(len(x)):
        alone = sample_amed(tap, x[image : image + 1], None, net, disable=True, tap=tap)
        torch.testing.assert_close(alone[0], together[image], rtol=2e-5, atol=2e-5)
    order = torch.tensor([5, 2, 7])
    torch.testing.assert_close(sample_amed(tap, x[order], None, net, disable=True, tap=tap), together[order], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("form", ["amed", "ipndm2", "dpmpp2", "unipc3"])
@pytest.mark.parametrize("kind", ["predictor", "table"])
def test_callbacks_are_k_diffusions(form, kind):
    """Once a call; "i" and "sigma" tell the stamp, "sigma_hat" the level."""
    for last, afs in itertools.product((0.0, 0.05), (False, True)):
        net = predictor_for(form, last=last, afs=afs)
        if kind == "table":
            net = AmedTable(net.config)
        stamps, reports, calls = net.config.stamps, [], []

        def model(x, sigma, *, prompt, calls=calls):
            assert prompt == "cat" and sigma.shape == (2,) and sigma.dtype == x.dtype
            calls.append((x, sigma, 0.3 * x))
            return calls[-1][2]

        tap = CallTap(model)
        sample_amed(tap, torch.ones(2, 3, 2), None, net, {"prompt": "cat"}, reports.append, True, tap=tap)
        assert len(reports) == len(calls) == net.config.nfe
        for report, (x, sigma, denoised) in zip(reports, calls, strict=True):
            assert set(report) == {"x", "i", "sigma", "sigma_hat", "denoised"}
            assert report["x"] is x and report["denoised"] is denoised
            assert float(report["sigma"]) == pytest.approx(stamps[report["i"]])
            assert torch.allclose(report["sigma_hat"].expand(2), sigma)
        steps = [n for n in range(net.config.pairs) for _ in range(2)] + [net.config.pairs] * (last == 0)
        assert [report["i"] for report in reports] == steps[afs:]


@FORM
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_precisions(form, dtype):
    """The model sees x's dtype; states are kept in float32, so only the model's own rounding shows."""
    problem = MIXTURES["flow"]
    predictor = predictor_for(form, "flow")
    exact = per_image(problem)
    seen = set()

    def model(x, sigma):
        seen.add((x.dtype, sigma.dtype))
        return exact(x.double(), sigma.double()).to(x.dtype)

    x = torch.from_numpy(problem.start())
    tap, reference = CallTap(model), CallTap(exact)
    result = sample_amed(tap, x.to(dtype), None, predictor, disable=True, tap=tap)
    assert result.dtype == dtype and seen == {(dtype, dtype)}
    expected = sample_amed(reference, x, None, predictor, disable=True, tap=reference)
    tolerance = {torch.float16: 1e-2, torch.bfloat16: 8e-2, torch.float32: 2e-5}[dtype]
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("form", ["amed", "ipndm2", "unipc2"])
def test_inputs_are_not_changed(form):
    for net in (predictor_for(form), AmedTable.constant(form, stamps_of("vp", 4))):
        x, sigmas = torch.ones(2, 3), torch.tensor(net.config.stamps)
        copies = x.clone(), sigmas.clone()
        weights = {name: value.clone() for name, value in net.state_dict().items()}

        def model(x, sigma):
            answer = 0.5 * x
            return answer

        def callback(report):
            report["x"].zero_()

        tap = CallTap(model)
        sample_amed(tap, x, sigmas, net, None, callback, True, tap=tap)
        assert torch.equal(x, copies[0]) and torch.equal(sigmas, copies[1])
        assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
        assert all(parameter.grad is None for parameter in net.parameters())


class _Watch(TorchDispatchMode):
    """Records dtypes made on a device, values read from it, and copies to it."""

    def __init__(self):
        super().__init__()
        self.dtypes, self.reads, self.uploads = set(), [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        reads = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default, torch.ops.aten.nonzero.default)
        if func in reads and args[0].device.type != "cpu":
            self.reads.append(func)
        for tensor in out if isinstance(out, (list, tuple)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "cpu":
                self.dtypes.add(tensor.dtype)
                self.uploads += func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu"
        return out


@FORM
@pytest.mark.parametrize("kind", ["predictor", "table"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_device_sees_no_float64_and_is_never_waited_for(form, kind, dtype):
    """On "meta", a device without values: reading one raises. Everything is there before the first call."""
    net = predictor_for(form, "flow", afs=form == "ipndm2")
    if kind == "table":
        net = AmedTable(net.config)
    x = torch.ones(2, 3, dtype=dtype, device="meta")
    uploads = []
    with _Watch() as watch:

        def model(x, sigma):
            assert sigma.device.type == "meta"
            uploads.append(watch.uploads)
            return x * 0.5

        tap = CallTap(model)
        result = sample_amed(tap, x, None, net, None, lambda report: None, True, tap=tap)
        assert result.device.type == "meta" and result.dtype == dtype
        assert torch.float64 not in watch.dtypes and watch.dtypes and not watch.reads
        assert uploads[0] == watch.uploads
    assert next(net.parameters()).device.type == "cpu", "the caller's stays where it was"


def test_numbers_kept_in_inference_mode_serve_training():
    """Hosts sample in inference mode; what is kept for the next sample must not be of that kind."""
    config = AmedConfig("unipc3", (9.0, 4.0, 1.7, 0.6, 0.23), "vp")
    predictor = AmedPredictor(config)
    tap = CallTap(lambda x, sigma: 0.5 * x)
    with torch.inference_mode():
        sample_amed(tap, torch.ones(2, 3), None, predictor, disable=True, tap=tap)
    from fewstep.amed import AmedWalk

    walk = AmedWalk(config, tap, torch.ones(2, 3))
    state = walk.begin()
    state = walk.advance(state, 0, walk.evaluate(state, 0), predictor.choose(0, tap.last))
    state.x.sum().backward()
    assert predictor.heads.weight.grad is not None


@FAMILY
def test_the_demo_model_has_a_tap(family):
    """A trained network, its own middle block, both halves of guidance."""
    model = load_demo_model(family)
    stamps = baseline_sigmas("uniform_lambda", model.noise_schedule, 3)
    predictor = shaken(AmedConfig("amed", stamps, family), 0.3)
    x = model.initial_state(model.initial_noise(2, 0), float(stamps[0]))
    extra = {"labels": torch.tensor([0, 7]), "cfg": 3.0}
    result = sample_amed(model, x, stamps, predictor, extra, disable=True)
    assert torch.isfinite(result).all()
    plain = AmedPredictor(predictor.config)
    expected = sample(model, x, plain.config.plain_table(), extra, disable=True)
    torch.testing.assert_close(sample_amed(model, x, stamps, plain, extra, disable=True), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(result, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"net": "predictor.safetensors"}, "predictor_or_table was str; .* load_amed"),
        ({"model": None}, "model was NoneType"),
        ({"x": torch.ones(2, 3, dtype=torch.int64)}, "floating-point tensor"),
        ({"sigmas": [12.0, 3.0, 0.0]}, "sigmas were .* works only on the 4 stamps"),
        ({"sigmas": [12.1, *stamps_of("vp", 4)[1:]]}, "works only on"),
        ({"sigmas": "abc"}, "a list of noise levels"),
        ({"callback": 1}, "callback was 1"),
        ({"extra_args": [1]}, "extra_args was"),
        ({"tap": None}, "no middle block .* AmedTable"),
        ({"model": lambda x, sigma: x[:, :1]}, "The model returned shape"),
    ],
)
def test_what_is_refused(changes, sentence):
    tap = CallTap(lambda x, sigma: 0.5 * x)
    given = {"model": tap, "x": torch.ones(2, 3), "sigmas": None, "net": predictor_for(), "extra_args": None, "callback": None, "tap": tap}
    given |= changes
    with pytest.raises(ValueError, match=sentence):
        sample_amed(
            given["model"], given["x"], given["sigmas"], given["net"], given["extra_args"], given["callback"], True, tap=given["tap"]
        )
    assert not tap.inside


def test_stamps_through_float32_are_the_same():
    predictor = predictor_for()
    tap = CallTap(lambda x, sigma: 0.5 * x)
    x = torch.ones(1, 2)
    expected = sample_amed(tap, x, None, predictor, disable=True, tap=tap)
    result = sample_amed(tap, x, torch.tensor(predictor.config.stamps, dtype=torch.float32), predictor, disable=True, tap=tap)
    assert torch.equal(result, expected)
