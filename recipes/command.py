"""The commands `fewstep recipe show|check|export`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from .document import LARGEST_FILE
from .recipe import Recipe
from .text import looks_like_text


def run(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Result for --json and text for people; the result has {"fits": False} if `check` found a problem."""
    recipe = recipe_named(args.recipe)
    return {"show": _show, "check": _check, "export": _export}[args.action](recipe, args)


def recipe_named(given: str) -> Recipe:
    """The recipe in a text or a file; "-" reads it from standard input."""
    if given == "-":
        given = sys.stdin.read(LARGEST_FILE + 1)
        return Recipe.from_json(given) if given.lstrip("\ufeff \r\n\t").startswith("{") else Recipe.from_text(given)
    return Recipe.from_text(given) if looks_like_text(given) else Recipe.load(given)


def _show(recipe: Recipe, args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    result = json.loads(recipe.to_json()) | {"text": recipe.to_text(), "calibrated": recipe.calibrated}
    return result, f"{recipe.describe()}\n\n{recipe.table()}"


def _check(recipe: Recipe, args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    names = ("family", "cfg", "solver", "prediction", "resolution", "model_identity", "steps")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    warnings = recipe.check_use(**given)
    result = {"fits": not warnings, "warnings": warnings, "compared": list(given)}
    if warnings:
        return result, "\n".join(warnings)
    fits = f"and fits the given settings ({', '.join(given)})" if given else "(nothing was given to compare it with)"
    return result, f"The recipe is undamaged {fits}: {recipe.solver}, {recipe.nfe} model calls, {recipe.family}."


def _export(recipe: Recipe, args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    content = {"text": recipe.to_text, "json": recipe.to_json, "sigmas": recipe.plain_sigmas}[args.form]().rstrip("\n")
    result: dict[str, Any] = {"as": args.form, "content": content}
    lost = args.form == "sigmas" and recipe.calibrated
    if lost:
        result["warning"] = "These are only the recipe's noise levels, without its fitted coefficients."
        print(result["warning"], file=sys.stderr)
    if args.out is None:
        return result, content
    if args.form == "json":
        recipe.save(args.out)
    else:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(content + "\n", encoding="utf-8")
    result["file"] = str(args.out.resolve())
    return result, f"Recipe: {args.out.resolve()}"
