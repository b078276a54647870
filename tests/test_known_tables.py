"""Recipes of other models in the race of a budget."""

from __future__ import annotations

from dataclasses import replace

import torch

from fewstep.demo.shipped import RECIPES_FOLDER, shipped_recipes
from fewstep.fitting import Budget, Limit, Within
from fewstep.fitting.levenberg import minimise
from fewstep.fitting.parameters import Parameters
from fewstep.fitting.residual import Residual
from fewstep.jobs.known_tables import known_tables
from fewstep.recipes import Recipe
from fewstep.schedules import NoiseSchedule, baseline_sigmas
from fewstep.solvers import build_table

from .fitting_problems import MIXTURES, SCHEDULES, exact_targets, setting_of, table_of


def test_only_those_for_the_family_the_levels_and_so_many_calls():
    recipes = [Recipe.load(path) for path in sorted(RECIPES_FOLDER.glob("*-5.json"))]
    names = [c.name for c in known_tables(recipes, NoiseSchedule.edm(0.02, 20.0))(5)]
    assert names == ["recipe 1, for FewStep demo"]  # edm-5
    assert not known_tables(recipes, NoiseSchedule.edm(0.02, 20.0))(6)
    assert not known_tables(recipes, NoiseSchedule.edm(0.02, 10.0))(5)  # it begins at 20
    assert not known_tables(recipes, NoiseSchedule.edm(0.5, 80.0))(5)  # it goes down to 0.25
    assert len(known_tables(recipes, NoiseSchedule.edm(0.002, 80.0))(5)) == 1


def test_shipped_recipes_are_those_for_the_family_and_about_the_guidance():
    found = shipped_recipes("flow", 2.5)
    assert {recipe.nfe for recipe in found} == {3, 4, 5, 6, 8, 10} and all(recipe.family == "flow" for recipe in found)
    assert not shipped_recipes("flow", 7.0) and not shipped_recipes("vp", 1.0)
    emoji = Recipe.load(RECIPES_FOLDER / "emoji-5.json").facts.model_identity
    others = shipped_recipes("flow", 2.0, but_of=emoji)
    assert 0 < len(others) < len(found) and all(recipe.facts.model_identity != emoji for recipe in others)


def test_a_table_that_was_fitted_before_is_raced_and_fitted_further():
    """At 7 calls a fit moves nodes, too, which those of a fitted table cannot."""
    setting = replace(setting_of(MIXTURES["vp"], 50, batch=4), dtype=torch.float32)
    few = setting.subset(range(30, 46))
    parameters = Parameters(table_of("unipc", "vp", 7), ("evaluation", "coefficients"))
    fitted = minimise(Residual(few, exact_targets(MIXTURES["vp"], few)), parameters, Limit(300)).evaluation.table
    known = known_tables([Recipe.from_table(fitted, model="a model")], SCHEDULES["vp"])
    (result,) = Within(setting, [7], Budget(8000), more=known).run()
    assert result.start.name == "recipe 1, for a model" and result.fit is not None and result.comparison is not None
    assert result.fit_won == (result.comparison.winner.candidate.name == "fitted, 7 calls")


def test_recipes_for_several_numbers_of_calls_enter_each_race_once():
    setting = replace(setting_of(MIXTURES["vp"], 40, batch=4), dtype=torch.float32)
    ns = SCHEDULES["vp"]
    tables = [build_table("ipndm", baseline_sigmas("karras", ns, nfe), ns.family, 3) for nfe in (4, 5)]
    course = Within(setting, [4, 5], Budget(4000), more=known_tables([Recipe.from_table(table, model="a model") for table in tables], ns))
    assert len(list(course.run())) == 2
    for run in course.races.values():
        names = [*(score.candidate.name for score in run.finalists), *run.screened_out]
        assert names.count("recipe 1, for a model") == 1 and len(names) == len(set(names))
        assert len({len(score.squares) for score in run.finalists}) == 1
