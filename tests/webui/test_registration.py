"""FewStep's entries in the hosts' lists: both forms of the interface, names, repeated starts."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest

from fewstep.solvers import SOLVERS
from fewstep.webui import registry
from fewstep.webui.names import RECIPE_SCHEDULE, SAMPLERS, SCHEDULES, entries_of, sampler_entry, schedule_entry

from . import stand_ins

OF_HOSTS = [
    "automatic", "Automatic", "uniform", "Uniform", "karras", "Karras", "exponential", "polyexponential", "SGM Uniform", "SGMUniform",
    "kl_optimal", "KL Optimal", "align_your_steps", "Align Your Steps", "simple", "Simple", "normal", "Normal", "ddim", "DDIM", "beta",
    "Beta", "turbo", "cosine", "phi", "laplace", "bong_tangent", "linear_quadratic",
]  # fmt: skip


@pytest.mark.parametrize("scheduler", [stand_ins.Scheduler, stand_ins.SchedulerOfAFork])
def test_schedules_with_the_module(scheduler):
    module = stand_ins.schedulers_module(scheduler)
    for _ in range(3):
        registry.register_schedules(module)
    assert [entry.label for entry in module.schedulers] == ["Automatic", "Karras", *(entry.label for entry in SCHEDULES)]
    for entry in SCHEDULES:
        made = module.schedulers_map[entry.label]
        assert made is module.schedulers_map[entry.name] and made in module.schedulers
        assert made.need_inner_model and made.default_rho == -1 and callable(made.function)


def test_a_new_start_replaces_the_functions():
    module = stand_ins.schedulers_module()
    registry.register_schedules(module)
    first = module.schedulers_map["FewStep"].function
    registry.register_schedules(module)
    assert module.schedulers_map["FewStep"].function is not first


def test_schedules_without_the_module():
    kdiffusion = SimpleNamespace(k_diffusion_scheduler={"Automatic": None, "karras": print})
    options = stand_ins.old_options()
    model = SimpleNamespace(alphas_cumprod=stand_ins.alphas_cumprod())
    for _ in range(2):
        registry.register_old_schedules(kdiffusion, options, lambda: model)
    choices = options.data_labels["k_sched_type"].component_args["choices"]
    assert choices == ["Automatic", "karras", *(entry.label for entry in SCHEDULES)]
    sigmas = kdiffusion.k_diffusion_scheduler["FewStep"](n=5, sigma_min=0.029167, sigma_max=14.6146, rho=7.0, device="cpu")
    assert sigmas.shape == (6,) and sigmas[-1] == 0


def test_samplers():
    schedulers = stand_ins.schedulers_module()
    module, common, kdiffusion = stand_ins.samplers_module(schedulers)
    assert module.get_sampler_and_scheduler("FewStep UPC 3", "FewStep") == ("DPM++ 2M", "Automatic"), "the host knows neither yet"
    registry.register_schedules(schedulers)
    for _ in range(3):
        registry.register_samplers(module, common, kdiffusion)
    assert [entry.name for entry in module.all_samplers] == ["DPM++ 2M", "UniPC", *(entry.name for entry in SAMPLERS)]
    assert set(module.all_samplers_map) == {entry.name for entry in module.all_samplers}
    assert module.samplers_map["fewstep_upc_3"] == "FewStep UPC 3" and module.set_calls == 3
    assert module.get_sampler_and_scheduler("FewStep UPC 3", "FewStep") == ("FewStep UPC 3", "FewStep")
    ours = [key for key in kdiffusion.sampler_extra_params if callable(key)]
    assert len(ours) == 1 and kdiffusion.sampler_extra_params[ours[0]] == ["s_noise"], "one function, not one a start"
    sampler = module.all_samplers_map["FewStep SDE 2M"].constructor("a model")
    assert sampler.func is ours[0] and sampler.model == "a model"


def test_options_are_scalars_as_the_api_wants_them():
    schedules = {entry.name for entry in SCHEDULES}
    for entry in SAMPLERS:
        assert all(isinstance(value, (str, bool)) for value in entry.host.values())
        assert entry.host["scheduler"] in schedules


def test_arguments_have_the_names_that_the_host_fills():
    known = {"model", "x", "sigmas", "extra_args", "callback", "disable", "eta", "s_noise", "noise_sampler"}
    for entry in SAMPLERS:
        from fewstep.webui.samplers import sampler_function

        parameters = inspect.signature(sampler_function(entry)).parameters
        assert set(parameters) <= known
        assert ("noise_sampler" in parameters) == bool(entry.host.get("brownian_noise"))


# --- Names ------------------------------------------------------------------------------------------------------------


def test_no_sampler_ends_in_the_name_of_a_schedule():
    tokens = [*OF_HOSTS, *(token for entry in SCHEDULES for token in (entry.name, entry.label))]
    wrong = [(s.name, t) for s in SAMPLERS for t in tokens if s.name.lower().endswith(" " + t.lower())]
    assert not wrong


def test_every_name_is_read_as_itself_by_the_host():
    schedulers = stand_ins.schedulers_module()
    schedulers.schedulers += [stand_ins.Scheduler(name=name, label=name, function=None) for name in OF_HOSTS[2:]]
    module, common, kdiffusion = stand_ins.samplers_module(schedulers)
    registry.register_schedules(schedulers)
    registry.register_samplers(module, common, kdiffusion)
    for entry in SAMPLERS:
        for schedule in SCHEDULES:
            assert module.get_sampler_and_scheduler(entry.name, schedule.label) == (entry.name, schedule.label)


def test_no_schedule_is_called_like_a_bare_solver_and_nothing_is_taken():
    solvers = {name.lower() for name in SOLVERS} | {s.title.lower() for s in SOLVERS.values()} | {"unipc", "upc", "amed", "ddim"}
    labels = [token for entry in SCHEDULES for token in {entry.name.lower(), entry.label.lower()}]
    assert not solvers & set(labels) and len(set(labels)) == len(labels)
    samplers = [token.lower() for entry in SAMPLERS for token in (entry.name, entry.alias)]
    assert len(set(samplers)) == len(samplers) and not {"unipc", "fewstep ddim"} & set(samplers)
    assert not any("unipc" in name for name in samplers)


def test_entries_are_found_by_each_of_their_names():
    for entry in SAMPLERS:
        assert sampler_entry(entry.name) is sampler_entry(entry.alias) is entry
    for schedule in SCHEDULES:
        assert schedule_entry(schedule.name) is schedule_entry(schedule.label) is schedule
    assert sampler_entry("Euler") is sampler_entry(None) is schedule_entry("Karras") is None


def test_functions_are_marked_so_that_a_new_start_finds_the_old_ones():
    module = stand_ins.schedulers_module()
    registry.register_schedules(module)
    assert all(module.schedulers_map[entry.name].function.is_fewstep for entry in SCHEDULES)


def test_entries_behind_the_names_of_a_pass():
    upc, karras = sampler_entry("FewStep UPC 3"), None
    assert entries_of("FewStep UPC 3", "Automatic") == entries_of("FewStep UPC 3", None) == (upc, SCHEDULES[0])
    assert entries_of("FewStep Calibrated", "Automatic")[1] is RECIPE_SCHEDULE
    assert entries_of("FewStep UPC 3", "Karras") == (upc, karras) and entries_of("Euler", "Automatic") == (None, None)
    assert entries_of("Euler", "FewStep") == (None, SCHEDULES[0])
    assert len({*SAMPLERS, *SCHEDULES}) == len(SAMPLERS) + len(SCHEDULES), "they can be in sets"
