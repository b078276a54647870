"""Recipes: that they come back as they were, that nothing damaged is believed, and that warnings say what was expected."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import re
import struct
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fewstep.recipes.document as document_form
import fewstep.recipes.text as text_form
from fewstep.recipes import Facts, Recipe, model_identity, rounded
from fewstep.recipes.limits import MOST_FITTED_CALLS
from fewstep.schedules import NoiseSchedule, baseline_sigmas, optimal_sigmas
from fewstep.solvers import SOLVERS, Corrector, Row, SolverTable, build_table, sample

from .hardening import count
from .problems import GAUSSIANS, MIXTURES, walk

FACTS = {
    "prediction": "eps",
    "cfg": 7.5,
    "resolution": (4, 64, 64),
    "model": "v1-5-pruned.safetensors",
    "model_identity": "0123456789abcdef",
    "metric": "RMSE to a 60-step teacher",
    "error": 0.0331,
    "stock": "gradient_estimation on uniform_lambda",
    "stock_error": 0.061,
    "seeds": 24,
    "date": "2025-01-31",
}
LEVELS = [14.6146411895752, 5.3002, 1.94595, 0.73719, 0.2341439, 0.0]


def over(*arguments, examples=40):
    """hypothesis.given, always with the same examples; all of them where all attacks run (hardening.py)."""
    number = count(min(examples, max(40, examples // 3)), examples)
    fixed = settings(
        max_examples=number, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
    )
    return lambda test: fixed(given(*arguments)(test))


def levels_for(family, steps, last=0.0, seed=0):
    widths = np.random.default_rng(seed).uniform(0.4, 1.6, steps) * 6 / steps
    sigmas = 14.6 * np.exp(-np.cumsum([0.0, *widths]))
    sigmas[-1] = last if last == 0 else sigmas[-1]
    return sigmas / (1 + sigmas) if family == "flow" else sigmas


def float32(value):
    return float(np.float32(value))


def corrupted_rows(table, seed, full=True):
    """Every number of the rows replaced, with history as long as it can be."""
    rng = np.random.default_rng(seed)
    rows, previous_was_stage = [], False
    for index, row in enumerate(table.rows):
        length = index + 1 if full else min(index + 1, 3)
        corrector = None
        if index and not previous_was_stage and (full or row.corrector):
            corrector = Corrector(float(rng.normal()), tuple(rng.normal(size=length).tolist()))
        changed = dataclasses.replace(
            row,
            sigma=row.sigma * float(np.exp(0.1 * rng.normal())) if index else row.sigma,
            a=float(rng.normal()),
            b=tuple(rng.normal(size=length).tolist()),
            corrector=corrector,
        )
        if row.basis != "data" or full:
            basis = ("data", "noise", "velocity")[seed % 3]
            changed = dataclasses.replace(changed, basis=basis, q_x=float(rng.normal()), q_d=float(rng.normal()))
        rows.append(changed)
        previous_was_stage = row.stage
    return dataclasses.replace(table, rows=tuple(rows))


def calibrated(steps=5, solver="unipc", **facts):
    return Recipe.from_table(corrupted_rows(build_table(solver, levels_for("vp", steps)), 0, full=False), **{**FACTS, **facts})


@st.composite
def tables(draw):
    """A table of any solver, family and 1 to 20 steps, as built or with other numbers in its rows."""
    solver = draw(st.sampled_from(sorted(SOLVERS)))
    family = draw(st.sampled_from(["vp", "edm", "flow"]))
    sigmas = levels_for(family, draw(st.integers(1, 20)), draw(st.sampled_from([0.0, 0.1])), draw(st.integers(0, 10**6)))
    if draw(st.booleans()):
        sigmas = sigmas.astype(np.float32)
    entry = SOLVERS[solver]
    options = {}
    if len(entry.orders) > 1:
        options["order"] = draw(st.sampled_from(entry.orders))
    if entry.variants:
        allowed = [v for v in entry.variants if solver != "deis" or v == "logrho" or (v == "rhoab" and family != "flow")]
        options["variant"] = draw(st.sampled_from(allowed))
        if solver == "dpmpp_multistep" and options["order"] == 4:
            options["variant"] = "lagrange"
    if solver == "unipc":
        options["disable_corrector"] = draw(st.sampled_from([(), [0], {1, 0}, range(2)]))
    if solver == "dpmpp_2m_sde":
        options["eta"] = draw(st.sampled_from([0.0, 0.3, 1.0]))
    table = build_table(solver, sigmas, family, **options)
    if table.nfe > 1 and draw(st.booleans()):
        table = build_table(solver, sigmas, family, afs=True, **options)
    if table.nfe > MOST_FITTED_CALLS or draw(st.booleans()):
        return table
    return corrupted_rows(table, draw(st.integers(0, 10**6)), draw(st.booleans()))


texts = st.text(st.characters(exclude_categories=("C", "Z")), max_size=15)
facts_of_any_kind = st.fixed_dictionaries(
    {},
    optional={
        "prediction": st.sampled_from(["eps", "v", "edm", "flow", "x0", "unknown"]),
        "cfg": st.floats(-2, 30),
        "resolution": st.lists(st.integers(1, 4096), min_size=1, max_size=5),
        "model": texts,
        "model_identity": st.from_regex(r"\A[0-9a-f]{16}\Z"),
        "metric": texts,
        "error": st.floats(0, 1e6),
        "stock": texts,
        "stock_error": st.floats(0, 1e6),
        "seeds": st.integers(1, 10**6),
        "date": st.dates().map(str),
        "note": texts,
        "extra": st.dictionaries(
            st.from_regex(r"\Ax_[a-z]{1,8}\Z"),
            st.one_of(st.booleans(), texts, st.floats(-1e9, 1e9), st.integers(-(10**9), 10**9)),
            max_size=4,
        ),
    },
)


# --- There and back ---------------------------------------------------------------------------------------------------


@over(tables(), facts_of_any_kind, examples=150)
def test_every_table_comes_back_from_text_and_file(table, facts):
    recipe = Recipe.from_table(table, **facts)
    text, content = recipe.to_text(), recipe.to_json()
    for again in (Recipe.from_text(text), Recipe.from_json(content), copy.copy(recipe), copy.deepcopy(recipe)):
        assert again == recipe and hash(again) == hash(recipe)
        assert again.table() == recipe.table()
        assert (again.to_text(), again.to_json(), again.describe()) == (text, content, recipe.describe())
    assert re.fullmatch(r"fewstep1:[a-z0-9-]+:[0-9A-Za-z]+:[0-9A-Za-z]{7}", text)
    assert recipe.nfe == table.nfe and recipe.steps == table.steps
    json.loads(content)


@over(tables(), examples=100)
def test_a_table_is_rebuilt_or_kept_number_by_number(table):
    recipe = Recipe.from_table(table)
    if recipe.calibrated:
        assert recipe.table() == rounded(table)
        assert {float32(w) for row in recipe.table().rows for w in row.b} == {w for row in recipe.table().rows for w in row.b}
    else:
        order = None if len(SOLVERS[table.solver].orders) == 1 else list(table.orders)
        assert recipe.table() == build_table(table.solver, [float32(s) for s in table.sigmas], table.family, order, **recipe.options)
        for row, same in zip(recipe.table().rows, table.rows, strict=True):
            assert row.b == pytest.approx(same.b, rel=2e-4, abs=2e-4 * max(map(abs, same.b)))
    assert Recipe.from_table(recipe.table()) == recipe


@pytest.mark.parametrize("solver", sorted(SOLVERS))
@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_what_build_table_makes_needs_no_rows(solver, family, steps):
    table = build_table(solver, levels_for(family, steps), family)
    recipe = Recipe.from_table(table)
    assert not recipe.calibrated and recipe.table().orders == table.orders
    assert len(recipe.to_text()) < 280


def test_a_function_as_option_is_replaced_by_its_numbers():
    table = build_table("deis", levels_for("vp", 5)[:-1], variant="tab", t_of=NoiseSchedule.preset("sd15").t_of)
    recipe = Recipe.from_table(table)
    assert recipe.calibrated and recipe.table() == rounded(table)


@pytest.mark.parametrize("preset", ["sd15", "sdxl", "zsnr", "flux", "sd3", "edm"])
def test_levels_of_a_host_stay_exactly_what_they_are(preset):
    ns = NoiseSchedule.preset(preset)
    host = baseline_sigmas("karras", ns, 6).to(torch.float32)
    recipe = Recipe.from_text(Recipe.from_table(build_table("unipc", host, ns.family)).to_text())
    assert recipe.sigmas.dtype == torch.float64 and recipe.sigmas.device.type == "cpu"
    assert torch.equal(recipe.sigmas, host.double()) and recipe.table().sigmas == tuple(host.tolist())
    ours = optimal_sigmas(ns, 5)
    assert torch.equal(Recipe.from_table(build_table("unipc", ours, ns.family)).sigmas, ours.float().double())


def test_the_tensor_of_levels_is_the_callers_own():
    recipe = calibrated()
    recipe.sigmas.zero_()
    assert recipe.sigmas[0] > 14


@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
@pytest.mark.parametrize("solver", ["unipc", "heun", "ipndm", "dpmpp_3s"])
def test_a_recipe_samples_like_the_table_it_was_made_from(family, solver):
    problem = MIXTURES[family]
    built = build_table(solver, problem.grid(4), family)
    fitted = dataclasses.replace(built, rows=tuple(dataclasses.replace(row, b=tuple(1.01 * w for w in row.b)) for row in built.rows))
    x = torch.from_numpy(problem.start())
    for table in (built, fitted):
        recipe = Recipe.from_text(Recipe.from_table(table).to_text())
        result = sample(problem.model, x, recipe.table(), disable=True)
        if recipe.calibrated:
            assert torch.equal(result, sample(problem.model, x, rounded(table), disable=True))
        torch.testing.assert_close(result, sample(problem.model, x, table, disable=True), rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(walk(recipe.table(), problem.denoised, problem.start()), result, rtol=1e-9, atol=1e-9)
    assert not Recipe.from_table(built).calibrated and Recipe.from_table(fitted).calibrated


def test_files_round_trip_and_are_replaced_whole(tmp_path):
    first, second = calibrated(), calibrated(8)
    path = tmp_path / "new folder" / "my recipe.json"
    first.save(path)
    second.save(str(path))
    assert Recipe.load(path) == second and Recipe.load(str(path)) == second
    assert [p.name for p in path.parent.iterdir()] == ["my recipe.json"]
    assert json.loads(path.read_text(encoding="utf-8"))["nfe"] == 8


def test_a_failed_save_leaves_the_former_file(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    calibrated().save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"):
        calibrated(8).save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_file_may_hold_the_text_or_begin_with_a_byte_order_mark(tmp_path):
    recipe = calibrated()
    (tmp_path / "a.txt").write_text(f"> {recipe.to_text()}\n", encoding="utf-8")
    (tmp_path / "b.json").write_text(recipe.to_json(), encoding="utf-8-sig")
    (tmp_path / "c.json").write_bytes(recipe.to_json().replace("\n", "\r\n").encode())
    for name in ("a.txt", "b.json", "c.json"):
        assert Recipe.load(tmp_path / name) == recipe


def test_stored_texts_stay_readable():
    """The format is a promise: this text was made with its first version."""
    recipe = Recipe.from_text(GOLDEN)
    assert recipe.to_text() == GOLDEN
    assert recipe == Recipe.from_table(GOLDEN_TABLE, cfg=3.0, resolution=(1, 28, 28), prediction="edm", fewstep_version="0.1.0")


GOLDEN_TABLE = SolverTable(
    "heun",
    "edm",
    (80.0, 4.0, 0.0),
    (2, 1),
    (
        Row(0, 80.0, 1.0, (-76.0,), stage=True, basis="velocity", q_x=0.0125, q_d=-0.0125),
        Row(0, 4.5, 1.0, (-38.0, -38.5), from_step_start=True, basis="velocity", q_x=0.25, q_d=-0.25),
        Row(1, 4.0, 0.0, (1.0,), corrector=Corrector(1.0, (0.5, 0.25, -1e-3))),
    ),
)
GOLDEN = (
    "fewstep1:heun-3nfe-edm:AZRQfnPoAo1A54qmMVOh8k2x5Xnxr96j82wBrDbg28h04OO9BetO21l8cZ8yrLZrNy4OQnKZVPeUE"
    "7pPckF1qnxQ7zxB6xMHzqi3xsWsyXEyMU05K1iT730gS5UfZOVHE7RR00009hEgHiyGiw4DV5KmpYG9u5zAg495c5PLXu1XbTp4G"
    "eelP7gvhs85K1WVXEZgnJ0Fy4Z3P15ZA5PLY1qi39tY5PLY1qhPJ2J30:HA9HZkQ"
)


# --- Size and alphabet ------------------------------------------------------------------------------------------------


LONGEST_FACTS = FACTS | {
    "model": "m" * 80, "model_identity": "0" * 64, "metric": "r" * 60, "stock": "s" * 80, "note": "n" * 200, "error": 1.234e-10,
    "stock_error": 1.234e-10, "seeds": 10**6, "resolution": (16, 128, 128), "prediction": "unknown", "cfg": 1.23456,
}  # fmt: skip


def test_texts_are_short():
    assert len(Recipe.from_table(build_table("unipc", LEVELS)).to_text()) < 150
    assert len(calibrated(5).to_text()) < 700
    full = {n: corrupted_rows(build_table("unipc", levels_for("vp", n)), 1) for n in (5, 10, 20)}
    assert len(Recipe.from_table(full[5], **FACTS).to_text()) < 900
    assert len(Recipe.from_table(full[10], **FACTS).to_text()) < 1600
    assert len(Recipe.from_table(full[10], **LONGEST_FACTS).to_text()) <= 2100
    assert len(Recipe.from_table(full[20], **FACTS).to_text()) < 3900


@pytest.mark.parametrize(
    "mangle",
    [
        lambda t: f"  {t}\n",
        lambda t: f"`{t}`",
        lambda t: f"```\n{t}\n```",
        lambda t: f'"{t}".',
        lambda t: f"“{t}”,",
        lambda t: f"**{t}**",
        lambda t: f"({t})!",
        lambda t: f"\ufeff{t}\u200b",
        lambda t: "\r\n".join(t[i : i + 76] for i in range(0, len(t), 76)),
        lambda t: "\n> ".join(["", *(t[i : i + 60] for i in range(0, len(t), 60))]),
        lambda t: "\u200b".join(t),
        lambda t: t.replace(":", " : "),
    ],
)
def test_what_chats_and_mail_do_to_text_does_not_matter(mangle):
    recipe = calibrated()
    assert Recipe.from_text(mangle(recipe.to_text())) == recipe


# --- Damage -----------------------------------------------------------------------------------------------------------


def refusal(read, given):
    with pytest.raises(ValueError) as caught:
        read(given)
    message = str(caught.value)
    assert re.search(r"[.:]$", message) and " " in message and len(message) < 1500, message
    return message


ALPHABET = "".join(chr(c) for c in range(32, 127)) + "äß\n€😀 "


def test_any_single_wrong_character_is_noticed():
    for text in (calibrated(3).to_text(), Recipe.from_table(build_table("euler", LEVELS)).to_text()):
        for position, right in enumerate(text):
            for wrong in ALPHABET if position % 21 == 0 else "0aZ:-. ":
                if wrong != right:
                    refusal(Recipe.from_text, text[:position] + wrong + text[position + 1 :])


def test_any_cut_swap_or_repetition_is_noticed():
    text = calibrated(3).to_text()
    for position in range(len(text)):
        refusal(Recipe.from_text, text[:position])
        if position:
            refusal(Recipe.from_text, text[position:])
        refusal(Recipe.from_text, text[:position] + text[position + 1 :])
        refusal(Recipe.from_text, text[:position] + "a" + text[position:])
        if text[position] != text[position - 1] and position:
            refusal(Recipe.from_text, text[: position - 1] + text[position] + text[position - 1] + text[position + 1 :])
    assert "cut off" in refusal(Recipe.from_text, text[:-3])
    assert "cut off" in refusal(Recipe.from_text, text[:100])
    assert "checksum" in refusal(Recipe.from_text, text[:100] + text[101:])
    refusal(Recipe.from_text, text + " " + text)
    refusal(Recipe.from_text, text.upper())


def signed(payload, hint="euler-5nfe-vp"):
    front = f"fewstep1:{hint}:{text_form._base62(payload)}"
    return f"{front}:{text_form._checksum(front)}"


@over(st.one_of(st.text(max_size=300), st.text("fewstp1:-azAZ09{}[]\",. ", max_size=100)), examples=200)
def test_garbage_is_refused_in_a_sentence(text):
    refusal(Recipe.from_text, text)
    refusal(Recipe.from_text, "fewstep1:" + text)
    refusal(Recipe.from_json, text)


@over(st.binary(max_size=120), st.integers(0, 10**6), examples=200)
def test_garbage_with_a_right_checksum_is_refused(payload, position):
    refusal(Recipe.from_text, signed(payload))
    header = b'{"s":"euler","f":"vp","n":5}\0' + bytes([1] * 5)
    refusal(Recipe.from_text, signed(header + payload[:23]))


@over(st.data(), examples=300)
def test_changed_bytes_with_a_right_checksum_give_a_recipe_or_a_sentence(data):
    """Whoever can compute the checksum can write anything; nothing but ValueError may come of it."""
    recipe = calibrated(data.draw(st.integers(1, 4)), data.draw(st.sampled_from(["unipc", "heun", "dpmpp_3s", "deis"])))
    text = recipe.to_text()
    payload = bytearray(text_form._bytes(text.split(":")[2]))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        again = Recipe.from_text(signed(bytes(payload), text.split(":")[1]))
    except ValueError:
        return
    assert Recipe.from_text(again.to_text()) == again
    assert np.isfinite([w for row in again.table().rows for w in (row.a, row.sigma, *row.b)]).all()


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)


@over(st.data(), examples=400)
def test_any_value_replaced_in_a_file_gives_a_recipe_or_a_sentence(data):
    document = json.loads(calibrated(3).to_json())
    place = document
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], (dict, list)) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    try:
        again = Recipe.from_json(json.dumps(document))
    except ValueError as error:
        assert re.search(r"[.:]$", str(error)), str(error)
        return
    assert Recipe.from_json(again.to_json()) == again
    assert Recipe.from_text(again.to_text()) == again


def edited(**changes):
    document = json.loads(calibrated(3).to_json())
    for name, value in changes.items():
        if value is ...:
            del document[name]
        else:
            document[name] = value
    return json.dumps(document)


def edited_row(index, **changes):
    document = json.loads(calibrated(3).to_json())
    document["rows"][index] |= changes
    return json.dumps(document)


NESTED = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "JSON"),
        ("[]", "not a recipe"),
        ("{}", "not a recipe"),
        ('{"format": "fewstep recipe"}', "version"),
        (edited(version=2), "Update FewStep"),
        (edited(version=True), "version"),
        (edited(version="1"), "version"),
        (edited(version=10**30), "version"),
        (edited(solver="magic"), "must be one of"),
        (edited(solver=["unipc"]), "solver"),
        (edited(family="vq"), "'vp', 'edm', 'flow'"),
        (edited(family=None), "family"),
        (edited(sigmas=...), "lacks sigmas"),
        (edited(sigmas=[14.6, 5.0, 6.0, 0.0]), "strictly decreasing"),
        (edited(sigmas=[14.6, 5.0, 5.0, 0.0]), "strictly decreasing"),
        (edited(sigmas=[14.6, 5.0, 0.0, 0.0]), "strictly decreasing"),
        (edited(sigmas=[14.6, 5.0, 1.0, -1.0]), "0 or above"),
        (edited(sigmas=[1e39, 5.0, 1.0, 0.0]), "float32"),
        (edited(sigmas=[14.6, 5.0, 1.0, 1e-60]), "is 0 as float32"),
        (edited(sigmas=[14.6, 5.0000000001, 5.0, 0.0]), "equal as float32"),
        (edited(sigmas=["14.6", 5.0, 1.0, 0.0]), "number"),
        (edited(sigmas=[14.6, None, 1.0, 0.0]), "number"),
        (edited(sigmas="14.6, 5, 1, 0"), "list"),
        (edited(sigmas=[14.6]), "from 2 to 1001"),
        (edited(sigmas=list(range(1500, -1, -1))), "list of at most 1001"),
        (edited(orders=[1, 2]), "one order per step"),
        (edited(orders=[1, 2, 1000]), "order"),
        (edited(orders=[1, 2.0, 1]), "order"),
        (edited(rows=..., orders=[1, 3, 1]), "order"),
        (edited(rows=[]), "from 1 to 100"),
        (edited(rows={}), "list"),
        (edited(rows=[1, 2, 3]), "Row 0"),
        (edited(nfe=4), "nfe was 4; this recipe makes 3"),
        (edited(algorithm_version=0), "algorithm_version"),
        (edited(options={"variant": ["a"]}), "option"),
        (edited(options={"variant": None}), "option variant"),
        (edited(options={"variant": {"a": 1}}), "option"),
        (edited(options={"x" * 50: 1}), "option"),
        (edited(extra_key=1), "unknown name 'extra_key'"),
        (edited(facts=[]), "object"),
        (edited(facts={"cfg": "7"}), "cfg"),
        (edited(facts={"cfg": True}), "cfg"),
        (edited(facts={"error": -1}), "at least 0"),
        (edited(facts={"note": "a\nb"}), "one line"),
        (edited(facts={"note": "x" * 201}), "200 bytes"),
        (edited(facts={"note": "\ud800"}), "printable"),
        (edited(facts={"note": "\u202egnp"}), "printable"),
        (edited(facts={"date": "2025-02-30"}), "that day does not exist"),
        (edited(facts={"resolution": [4, 0, 64]}), "resolution"),
        (edited(facts={"resolution": 64}), "resolution"),
        (edited(facts={"seeds": 1.5}), "seeds"),
        (edited(facts={"seeds": 10**25}), "seeds"),
        (edited(facts={"New": 1}), "additional fact"),
        (edited(facts={"new": [1]}), "number"),
        (edited(facts={f"x{i}": 1 for i in range(17)}), "at most 16"),
        (edited(facts={"prediction": "noise"}), "eps, v"),
        (edited(facts={"model_identity": "../../x"}), "letters and digits"),
        (edited_row(0, b=[]), "no weights"),
        (edited_row(0, b=[1.0, 2.0]), "only 1 are known"),
        (edited_row(1, b=[1.0, 2.0, 3.0]), "only 2 are known"),
        (edited_row(1, b=[1.0, "2"]), "number"),
        (edited_row(1, corrector={"a": 1.0, "b": [1.0, 2.0, 3.0]}), "only 2 are known"),
        (edited_row(0, corrector={"a": 1.0, "b": [1.0]}), "corrector"),
        (edited_row(1, corrector={"a": 1.0, "b": []}), "corrector"),
        (edited_row(1, corrector=[1.0]), "corrector"),
        (edited_row(1, corrector={"a": 1.0, "b": [1.0], "c": 1}), "unknown name 'c'"),
        (edited_row(1, step=2), "rows that end a step"),
        (edited_row(1, step=True), "step"),
        (edited_row(1, sigma=0.0), "above 0"),
        (edited_row(1, sigma=1e-60), "above 0"),
        (edited_row(1, sigma=-1), "above 0"),
        (edited_row(1, a=1e39), "float32"),
        (edited_row(1, stage=True), "step"),
        (edited_row(1, stage=1), "true or false"),
        (edited_row(1, basis="x"), "basis"),
        (edited_row(1, basis=["data"]), "basis"),
        (edited_row(1, q_y=1.0), "unknown name 'q_y'"),
        (edited().replace('"version": 1', '"version": 1, "version": 1'), "'version' twice"),
        (edited().replace('"a":', '"a": 1, "a":', 1), "'a' twice"),
        (edited_row(1, a=math.nan), "NaN"),
        (edited_row(1, a=math.inf), "Infinity"),
        (edited_row(1, a=12345.5).replace("12345.5", "1e999"), "number"),
        (edited_row(1, a=12345.5).replace("12345.5", "9" * 5000), "integer of 5000 digits"),
        (edited_row(1, a=12345.5).replace("12345.5", NESTED), "nested"),
        (NESTED, "nested"),
        (" " * (1 << 20) + "{}", "no recipe has more"),
        (edited() + "x", "JSON"),
        (edited()[:-30], "JSON"),
    ],
)
def test_wrong_files_are_refused_in_a_sentence(content, says):
    assert says in refusal(Recipe.from_json, content)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "NoneType"),
        (b"fewstep1:", "bytes"),
        ("", "is empty"),
        ("   \n", "is empty"),
        ("hello", "begins with 'hello'"),
        ("fewstep2:unipc-5nfe-vp:abc:1234567", "Update FewStep"),
        ("fewstep1:", "begins with"),
        ("fewstep1:x", "cut off"),
        ("Fewstep1:x", "begins with"),
        ("fewstep0:x:y:z", "begins with"),
        ("fewstep1:" + "A" * 300_000, "300009 characters"),
        (signed(b"", "x"), "damaged"),
        (signed(b"x"), "JSON"),
        (signed(b"\xff\xff\0"), "UTF-8"),
        (signed(b"[1]\0"), "object"),
        (signed(b'{"s":"euler","f":"vp","n":5,"q":1}\0'), "unknown name 'q'"),
        (signed(b'{"s":"euler","f":"vp","n":5,"n":5}\0'), "twice"),
        (signed(b'{"s":"euler","f":"vp","n":100000000}\0'), "number of steps"),
        (signed(b'{"s":"euler","f":"vp","n":5}\0'), "too early"),
        (signed(b'{"s":"euler","f":"vp","n":1,"r":10000}\0\1' + struct.pack("<2f", 1, 0)), "number of rows"),
        (signed(b'{"s":"euler","f":"vp","n":1,"r":1}\0\1' + struct.pack("<2fHBB2f", 1, 0, 256, 1, 0, 0, 1)), "flags"),
        (signed(b'{"s":"euler","f":"vp","n":1,"r":1}\0\1' + struct.pack("<2fHBB2f", 1, 0, 12, 1, 0, 0, 1)), "flags"),
        (signed(b'{"s":"euler","f":"vp","n":1,"r":2}\0\1' + struct.pack("<2fHBB2fHBB2f", 1, 0, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1)), "1 steps"),
        (signed(b'{"s":"euler","f":"vp","n":1,"r":1}\0\1' + struct.pack("<2fHBB2f", 1, 0, 0, 1, 0, math.nan, 1)), "finite"),
        (signed(b'{"s":"euler","f":"vp","n":1,"r":1}\0\1' + struct.pack("<2fHBB2f", math.inf, 0, 0, 1, 0, 0, 1)), "finite"),
        (signed(b'{"s":"euler","f":"vp","n":1}\0\1' + struct.pack("<2f", 1, 0) + b"x"), "1 bytes too many"),
        (signed(b'{"s":"euler","f":"vp","n":1}\0\2' + struct.pack("<2f", 1, 0), "euler-1nfe-vp"), "orders"),
        (signed(b'{"s":"euler","f":"vp","n":1,"o":{"t_of":1}}\0\1' + struct.pack("<2f", 1, 0)), "t_of"),
        (signed(b'{"s":"euler","f":"vp","n":1,"v":9}\0\1' + struct.pack("<2f", 1, 0)), "version 9 of the solvers"),
        (signed(b'{"s":"euler","f":"vp","n":1,"x":{"cfg":1}}\0\1' + struct.pack("<2f", 1, 0)), "additional facts"),
        (signed(b'{"s":"euler","f":"vp","n":1}\0\1' + struct.pack("<2f", 1, 0)), "'euler-5nfe-vp', but contains 'euler-1nfe-vp'"),
    ],
)
def test_wrong_texts_are_refused_in_a_sentence(text, says):
    assert says in refusal(Recipe.from_text, text)


@pytest.mark.parametrize(
    "text",
    [
        "{" + ",".join(f'"a{i}":1' for i in range(90_000)) + ',"a89999":1}',
        '{"a":' * 190_000,
        '{"format": "fewstep recipe", "version": 1, "facts": {' + ",".join(f'"a{i}":1' for i in range(80_000)) + "}}",
        "fewstep1:a:" + "z" * 180_000 + ":1234567",
        "fewstep1:" * 20_000,
        ":" * 200_000,
        "\u200b" * 200_000,
    ],
    ids=["names", "nesting", "facts", "digits", "prefixes", "colons", "invisible"],
)
def test_the_largest_nonsense_is_refused_at_once(text):
    start = time.process_time()
    refusal(Recipe.from_json, text)
    refusal(Recipe.from_text, text)
    assert time.process_time() - start < 3


def test_reading_does_not_depend_on_the_stack_that_is_left():
    limit = sys.getrecursionlimit()

    def deep(levels):
        return deep(levels - 1) if levels else refusal(Recipe.from_json, NESTED)

    assert "nested" in deep(limit // 3)


def test_paths_that_are_no_recipe_are_refused_in_a_sentence(tmp_path):
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "utf16").write_bytes(calibrated().to_json().encode("utf-16"))
    (tmp_path / "huge").write_bytes(b" " * ((1 << 20) + 1))
    (tmp_path / "empty").touch()
    (tmp_path / "half").write_text(calibrated().to_json()[:300], encoding="utf-8")
    for name, says in {
        "": "is a folder",
        "missing": "There is no file",
        "binary": "UTF-8",
        "utf16": "UTF-8",
        "huge": "no recipe is that large",
        "empty": "JSON",
        "half": "JSON",
    }.items():
        assert says in refusal(Recipe.load, tmp_path / name)
    refusal(Recipe.load, "x" * 5000)
    refusal(Recipe.load, "a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "not an ordinary file" in refusal(Recipe.load, tmp_path / "pipe")


def test_tables_that_no_recipe_can_hold_are_refused():
    table = build_table("euler", LEVELS)
    for wrong, says in [
        (dataclasses.replace(table, solver="mine"), "must be one of"),
        (dataclasses.replace(table, rows=(dataclasses.replace(table.rows[0], a=1e300), *table.rows[1:])), "float32"),
        (build_table("euler", [5.0000000001, 5.0, 0.0]), "equal as float32"),
        (corrupted_rows(build_table("euler", levels_for("vp", 101)), 0, full=False), "from 1 to 100"),
        (build_table("euler", np.linspace(20, 0, 1002)), "from 2 to 1001"),
        (None, "NoneType"),
    ]:
        assert says in refusal(Recipe.from_table, wrong)
    assert "no fact named 'guidance'" in refusal(lambda t: Recipe.from_table(t, guidance=3), table)
    longest = Recipe.from_table(build_table("euler", np.linspace(20, 0, 1001)))
    assert Recipe.from_text(longest.to_text()) == longest


# --- Facts ------------------------------------------------------------------------------------------------------------


def test_facts_of_a_later_version_survive():
    recipe = Recipe.from_json(edited(facts={"cfg": 3, "judged": 0.93, "sampler_name": "x", "kept": True}))
    assert dict(recipe.facts.extra) == {"judged": 0.93, "sampler_name": "x", "kept": True}
    again = Recipe.from_text(recipe.to_text())
    assert again == recipe and "judged" in again.to_json() and "judged" in again.describe()


def test_facts_are_kept_with_the_digits_they_deserve():
    facts = Facts(error=0.033123456, stock_error=1 / 3, cfg=np.float32(7.1), resolution=torch.Size([4, 64, 64]))
    assert (facts.error, facts.stock_error, facts.cfg, facts.resolution) == (0.03312, 0.3333, 7.1, (4, 64, 64))


def test_equality_and_hash():
    one, same = calibrated(), calibrated()
    assert one == same and hash(one) == hash(same) and len({one, same}) == 1
    for other in (calibrated(cfg=3.0), calibrated(6), calibrated(note="x"), Recipe.from_table(build_table("unipc", LEVELS))):
        assert one != other
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.solver = "euler"
    with pytest.raises(TypeError):
        one.options["x"] = 1


def test_description_names_everything():
    text = calibrated(note="try it").describe()
    for part in ("unipc", "5 model calls", "calibrated", "14.6", "v1-5-pruned", "cfg 7.5", "4x64x64", "24 seeds", "0.0331", "0.061",
                 "0.54 of it", "gradient_estimation", "RMSE to a 60-step teacher", "2025-01-31", "try it", "eps"):  # fmt: skip
        assert part in text
    assert str(Recipe.from_table(build_table("euler", LEVELS))).count("\n") == 2


# --- Other forms ------------------------------------------------------------------------------------------------------


@over(st.lists(st.floats(2.0**-23, 99_999, width=32), min_size=2, max_size=12, unique=True), examples=60)
def test_plain_sigmas_are_read_exactly_by_stock_nodes(levels):
    """ComfyUI's ManualSigmas finds numbers with this pattern, which knows no exponents."""
    try:
        recipe = Recipe.from_table(build_table("euler", sorted(levels, reverse=True)))
    except ValueError:
        return  # neighbours too close
    found = re.findall(r"[-+]?(?:\d*\.*\d+)", recipe.plain_sigmas())
    assert torch.equal(torch.FloatTensor([float(value) for value in found]), recipe.sigmas.float())
    assert torch.equal(torch.FloatTensor([float(value) for value in recipe.plain_sigmas().split(",")]), recipe.sigmas.float())


def test_infotext_is_one_line_that_brings_the_recipe_back():
    recipe = calibrated()
    info = recipe.infotext()
    assert list(info) == ["FewStep", "FewStep recipe"]
    assert all("\n" not in value and "," not in value and '"' not in value for value in info.values())
    assert Recipe.from_text(info["FewStep recipe"]) == recipe


# --- Use --------------------------------------------------------------------------------------------------------------


def test_what_fits_warns_of_nothing():
    recipe = calibrated()
    assert recipe.check_use() == []
    assert recipe.check_use(
        family="vp", cfg=7.5, solver="unipc", prediction="eps", resolution=(4, 64, 64), model_identity="0123456789abcdef", steps=5
    ) == []
    assert Recipe.from_table(build_table("euler", LEVELS)).check_use(
        family="vp", cfg=99, solver="ddim", prediction="v", resolution=(4, 8, 8), model_identity="ff"
    ) == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"family": "flow"}, ("vp", "flow")),
        ({"cfg": 3.0}, ("7.5", "3", "5 to 11.2")),
        ({"cfg": 12}, ("7.5", "12")),
        ({"cfg": 0}, ("7.5", "0")),
        ({"cfg": -7.5}, ("7.5",)),
        ({"solver": "euler"}, ("unipc", "euler", "coefficients")),
        ({"prediction": "v"}, ("eps", "v")),
        ({"resolution": (4, 128, 128)}, ("4x64x64", "4x128x128", "4 times")),
        ({"resolution": (16, 64, 64)}, ("4x64x64", "16x64x64", "another kind")),
        ({"resolution": (4, 16, 64, 64)}, ("another kind",)),
        ({"model_identity": "ff"}, ("0123456789abcdef", "v1-5-pruned", "ff")),
        ({"steps": 8}, ("5 steps", "8")),
    ],
)
def test_what_does_not_fit_says_what_was_expected(given, says):
    (warning,) = calibrated().check_use(**given)
    assert all(part in warning for part in says) and warning.endswith(".")


@pytest.mark.parametrize("given", [{"cfg": 5.0}, {"cfg": 11.25}, {"resolution": (4, 72, 56)}, {"prediction": "unknown"}])
def test_small_differences_pass(given):
    assert calibrated().check_use(**given) == []


@pytest.mark.parametrize(
    "given",
    [{"family": "x"}, {"cfg": math.nan}, {"cfg": "7"}, {"solver": "magic"}, {"prediction": "noise"}, {"resolution": (0, 4)}, {"steps": 0},
     {"resolution": 64}, {"model_identity": 5}],
)  # fmt: skip
def test_nonsense_to_compare_with_is_refused(given):
    refusal(lambda arguments: calibrated().check_use(**arguments), given)


# --- Identity of models -----------------------------------------------------------------------------------------------


def network(seed=0, width=64):
    torch.manual_seed(seed)
    return torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(width, width), torch.nn.LayerNorm(width)) for _ in range(80)))


def test_identity_does_not_depend_on_storage_wrapping_or_order():
    model = network()
    identity = model_identity(model)
    assert re.fullmatch("[0-9a-f]{16}", identity) and identity == model_identity(network())
    state = model.state_dict()
    assert model_identity(state) == identity
    assert model_identity(dict(reversed(list(state.items())))) == identity
    assert model_identity({f"model.diffusion_model.{name}": value for name, value in state.items()}) == identity
    assert model_identity({name: torch.nn.Parameter(value.clone()) for name, value in state.items()}) == identity
    assert model_identity(state | {"position_ids": torch.arange(9), "scale": torch.ones(3), "note": "x"}) == identity
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        assert model_identity(network().to(dtype)) == identity
    if hasattr(torch, "float8_e4m3fn"):  # since 2.1
        assert model_identity({name: value.to(torch.float8_e4m3fn) for name, value in state.items()}) == identity
    assert model_identity({name: value.t().contiguous().t() if value.ndim == 2 else value for name, value in state.items()}) == identity


def test_identity_tells_models_apart():
    state = network().state_dict()
    slightly = {name: value + 1e-3 * torch.randn(value.shape) if value.ndim == 2 else value for name, value in state.items()}
    renamed = {name.replace("7.0", "7.x"): value for name, value in state.items()}
    identities = [model_identity(one) for one in (state, network(1), network(0, 32), slightly, renamed)]
    assert len(set(identities)) == len(identities)


def test_identity_changes_nothing():
    model = network().half()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model_identity(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("wrong", [None, {}, 5, {"a": torch.arange(3)}, torch.nn.Identity(), {"a": torch.ones(3, 3, device="meta")}])
def test_identity_of_nothing_is_refused(wrong):
    refusal(model_identity, wrong)


def test_the_specification_lists_every_field():
    for name in (f.name for f in dataclasses.fields(Facts)):
        assert name in text_form.__doc__ or name == "extra"
    for name in (f.name for f in dataclasses.fields(Row)):
        assert name in document_form.__doc__


def test_a_gaussian_is_still_solved():
    problem = GAUSSIANS["flow"]
    recipe = Recipe.from_text(Recipe.from_table(build_table("unipc", problem.grid(12), "flow")).to_text())
    assert problem.error(sample(problem.model, torch.from_numpy(problem.start()), recipe.table(), disable=True)) < 1e-3
