"""What a job cannot do is said before the model is called: nobody waits for a many-step run to read that a number was wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fewstep.amed import AmedConfig
from fewstep.fitting import Candidate
from fewstep.fitting.tuning import LoraAdapters
from fewstep.jobs import calibrate, compare, train_amed, tune
from fewstep.schedules import optimal_sigmas
from fewstep.solvers import build_table

from .job_cases import CASES, CONFIG, toy_setting
from .tuning.networks import tunable_setting

PLANS = {case.name: case for case in CASES}
FLOW = Candidate("a flow recipe", build_table("euler", [1.0, 0.5, 0.0], "flow"))
NOISY = Candidate("a noisy recipe", build_table("dpmpp_2m_sde", [20.0, 1.0, 0.0], "edm"))


def refused(setting: Any, sentence: str, work: Any) -> None:
    with pytest.raises(ValueError, match=sentence) as refusal:
        work(setting)
    assert str(refusal.value).endswith(".") and setting.model.calls == 0


@pytest.mark.parametrize(
    ("candidates", "sentence"),
    [([FLOW], "a flow recipe is made for flow models, but the model's family is edm"), ([NOISY], "a noisy recipe adds fresh noise")],
)
def test_compare(candidates, sentence):
    plan = PLANS["compare"].plan(None)
    pool = [*plan.candidates, *candidates]
    refused(toy_setting(12, 4), sentence, lambda setting: compare.run(setting, replace(plan, candidates=pool)))


@pytest.mark.parametrize(("changes", "sentence"), [({"groups": ["colours"]}, "groups were"), ({"groups": ()}, "groups were")])
def test_calibrate(changes, sentence):
    plan = PLANS["calibrate"].plan(None)
    refused(toy_setting(12, 4), sentence, lambda setting: calibrate.run(setting, replace(plan, **changes)))


AMED_WRONG = [
    ({"options": {"lr": 1.5}}, "lr was 1.5"),
    ({"options": {"lr": 0.0}}, "lr was 0"),
    ({"options": {"seed": -1}}, "seed was -1"),
    ({"options": {"patience": 0}}, "patience was 0"),
    ({"options": {"autocast": torch.float64}}, "autocast was torch.float64"),
    ({"passes": 0}, "passes was 0"),
    ({"method": "all"}, "method was 'all'"),
    ({"method": "forward", "mode": "predictor"}, "method was 'forward' with mode 'predictor'"),
    ({"config": AmedConfig("dpmpp2", (1.0, 0.5, 0.1), "flow")}, "The config is for flow models"),
    ({"mode": "predictor", "config": CONFIG}, "no middle block"),
]


@pytest.mark.parametrize("fit_first", [True, False])
@pytest.mark.parametrize(("changes", "sentence"), AMED_WRONG)
def test_train_amed(changes, sentence, fit_first):
    """Also where a predictor begins with a table: its own training comes last."""
    plan = replace(PLANS["amed end"].plan(None), fit_first=fit_first, mode="predictor" if "mode" in changes else "table")
    setting = toy_setting(12, 4)
    if changes.get("mode") == "predictor":
        setting = replace(setting, model=Featureless(setting.model))
    refused(setting, sentence, lambda setting: train_amed.run(setting, replace(plan, **changes)))


class Featureless:
    """The model without the network behind it."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def calls(self) -> int:
        return self._model.calls

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._model(*arguments, **named)


TUNE_WRONG = [
    ({"options": {"lr": 2.0}}, "lr was 2"),
    ({"options": {"matching": 0.0}}, "matching and denoising were both 0"),
    ({"method": "all"}, "method was 'all'"),
    ({"rounds": 0}, "rounds"),
    ({"table": FLOW.table}, "The table is for flow models"),
    ({"table": NOISY.table}, "adds fresh noise"),
    ({"table": build_table("unipc", optimal_sigmas(tunable_setting(4, 4).noise_schedule, 4), "edm"), "method": "steps",
      "options": {"own_states": False}}, "whose corrector moves the state"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), TUNE_WRONG)
def test_tune(changes, sentence):
    plan = replace(PLANS["tune end"].plan(None), **changes)
    setting = PLANS["tune end"].setting()
    refused(setting, sentence, lambda setting: tune.run(setting, plan, lambda: LoraAdapters(setting.model.inner_model, 2)))


def test_gradients_that_cannot_pass_are_told_before_the_teacher():
    with torch.inference_mode():
        amed, tuned = PLANS["amed end"].setting(), PLANS["tune end"].setting()
        for model in (amed.model, tuned.model):
            for module in model.modules():
                for name, parameter in list(module._parameters.items()):
                    module._parameters[name] = torch.nn.Parameter(parameter.clone(), requires_grad=False)
    sentence = "made in torch.inference_mode"
    refused(amed, sentence, lambda setting: train_amed.run(setting, replace(PLANS["amed end"].plan(None), mode="table")))
    plan = PLANS["tune end"].plan(None)
    refused(tuned, sentence, lambda setting: tune.run(setting, plan, lambda: LoraAdapters(setting.model.inner_model, 2)))
