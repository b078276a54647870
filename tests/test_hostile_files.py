"""Files from strangers: whatever is in them, they load or are refused in a sentence, at once; recipes ask only for ordinary sampling.

Counts and the full run: hardening.py.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

import fewstep.recipes.text as text_form
import fewstep.schedules.cache as cache_module
import fewstep.schedules.presets as presets
from fewstep.amed import AmedConfig, AmedPredictor, AmedTable, load_amed, save_amed
from fewstep.fitting import Teacher
from fewstep.fitting.calibrate import MOST_CALLS
from fewstep.fitting.tuning import load_lora
from fewstep.recipes import Book, Recipe
from fewstep.recipes.limits import HIGHEST_LEVEL, LARGEST_WEIGHT, LOWEST_LEVEL, MOST_FITTED_CALLS
from fewstep.schedules import NoiseSchedule, optimal_sigmas
from fewstep.schedules.text import parse_sigmas
from fewstep.solvers import build_table, sample
from fewstep.tensor_files import load_tensors, save_tensors
from fewstep.training import OtherState
from fewstep.training.state import StateFile

from .hardening import as_text, count, damaged, damaged_safetensors, opened_files, outside, refused, spoil, tell
from .test_recipes import calibrated, corrupted_rows, levels_for
from .toy_denoiser import toy_setting
from .tuning.test_lora_file import Network, written

# --- recipes -----------------------------------------------------------------------------------------------------------------------------


def recipes():
    """Of every kind of row that the format has."""
    jump = build_table("unipc", [14.6, 5.0, 1.0, 0.0], jump=True)
    return [
        calibrated(3), calibrated(2, "heun"), calibrated(2, "dpmpp_3s"),
        Recipe.from_table(build_table("unipc", levels_for("flow", 4), "flow")),
        Recipe.from_table(build_table("dpmpp_2m_sde", levels_for("vp", 3), eta=0.5)), Recipe.from_table(jump),
        Recipe.from_table(corrupted_rows(build_table("dpmpp_2m_sde", levels_for("edm", 3), "edm"), 1, full=False)),
        Recipe.from_table(corrupted_rows(build_table("deis", levels_for("flow", 3, 0.1), "flow", afs=True), 2)),
        Recipe.from_table(build_table("unipc", levels_for("vp", 3), disable_corrector=[0], variant="bh1")),
    ]  # fmt: skip


def check_bounded(recipe):
    """It comes back, can be shown, and asks for no more than ordinary sampling."""
    table = recipe.table()
    assert Recipe.from_text(recipe.to_text()) == recipe == Recipe.from_json(recipe.to_json())
    assert recipe.describe().isprintable() or "\n" in recipe.describe()
    recipe.infotext(), recipe.plain_sigmas(), str(table)
    assert 1 <= table.nfe <= (MOST_FITTED_CALLS if recipe.calibrated else 3 * 1000)
    assert all(level == 0 or LOWEST_LEVEL <= level <= HIGHEST_LEVEL for level in table.sigmas)
    if table.nfe > 40:
        return
    calls = []

    def model(x, sigma, **extra):
        calls.append(float(sigma[0]))
        return 0.1 * x

    result = sample(model, torch.ones(1, 2), table, disable=True, noise_sampler=lambda sigma, sigma_next: torch.ones(1, 2))
    assert result.shape == (1, 2) and len(calls) == table.nfe
    if recipe.calibrated:
        assert all(LOWEST_LEVEL / 2 <= level <= HIGHEST_LEVEL for level in calls)
        assert all(abs(weight) <= LARGEST_WEIGHT for row in table.rows for weight in (row.a, *row.b))


@pytest.mark.parametrize("form", ["document", "bytes of a file", "signed payload", "characters"])
def test_recipes(form):
    random, accepted, known = Random(form), 0, recipes()
    documents, texts = [recipe.to_json() for recipe in known], [recipe.to_text() for recipe in known]
    cases = count(350, 15_000)
    for _ in range(cases):
        which = random.randrange(len(known))
        if form == "document":
            document = json.loads(documents[which])
            spoil(document, random)
            content = as_text(document, random)
            found = refused(lambda content=content: Recipe.from_json(content))
        elif form == "bytes of a file":
            content = damaged(documents[which].encode(), random).decode("utf-8", "replace")
            found = refused(lambda content=content: Recipe.from_json(content))
        elif form == "signed payload":  # whoever can compute the checksum can write anything
            payload = damaged(text_form._bytes(texts[which].split(":")[2]), random)
            front = f"fewstep1:{texts[which].split(':')[1]}:{text_form._base62(payload)}"
            found = refused(lambda front=front: Recipe.from_text(f"{front}:{text_form._checksum(front)}"))
        else:
            content = damaged(texts[which].encode(), random).decode("latin-1")
            found = refused(lambda content=content: Recipe.from_text(content))
        if isinstance(found, Recipe):
            accepted += 1
            check_bounded(found)
    tell(f"recipes, {form}", cases=cases, accepted=accepted)
    assert accepted or form == "characters"


def test_books():
    random, accepted, cases = Random("book"), 0, count(200, 8000)
    whole = Book((calibrated(3), calibrated(4), calibrated(5, "unipc", cfg=3.0))).to_json()
    for _ in range(cases):
        document = json.loads(whole)
        spoil(document, random)
        content = as_text(document, random) if random.random() < 0.6 else damaged(whole.encode(), random).decode("utf-8", "replace")
        book = refused(lambda content=content: Book.from_json(content))
        if isinstance(book, Book):
            accepted += 1
            assert Book.from_json(book.to_json()) == book
            for recipe in book.recipes:
                check_bounded(recipe)
    tell("books", cases=cases, accepted=accepted)
    assert accepted


def document_of(rows, sigmas=(14.6, 0.0), family="vp", **more):
    return {
        "format": "fewstep recipe", "version": 1, "solver": "euler", "family": family, "algorithm_version": 1,
        "orders": [1] * (len(sigmas) - 1), "sigmas": list(sigmas), **({"rows": rows} if rows else {}), **more,
    }  # fmt: skip


def row(**changes):
    return {"step": 0, "sigma": 14.6, "a": 0.0, "b": [1.0]} | changes


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (document_of([row(afs=0.1)]), "never calls the model"),
        (document_of([row(stage=True)] * 20 + [row()]), "at most 20"),
        (document_of(None, (1.1e5, 1.0, 0.0)), "between 1e-07 and 100000"),
        (document_of(None, (14.6, 1.0, 1e-8)), "between 1e-07 and 100000"),
        (document_of([row(sigma=3e38)]), "sigma of row 0"),
        (document_of([row(sigma=1e-30)]), "sigma of row 0"),
        (document_of([row(sigma=2.5)], (0.9, 0.0), "flow"), "sigma of row 0"),
        (document_of([row(a=1.1e9)]), "a of row 0"),
        (document_of([row(b=[-1e20])]), "b of row 0"),
        (document_of([row(q_x=3e38)]), "q_x of row 0"),
        (document_of([row(q_d=3e38)]), "q_d of row 0"),
        (document_of([row(), row(step=1, sigma=1.0, corrector={"a": 1.0, "b": [1e10]})], (14.6, 1.0, 0.0)), "corrector.b of row 1"),
        (document_of([row(), row(step=1, sigma=1.0, corrector={"a": 1e10, "b": [1.0]})], (14.6, 1.0, 0.0)), "corrector.a of row 1"),
        (document_of([row(), row(step=1, sigma=1.0, afs=1e10)], (14.6, 1.0, 0.0)), "afs of row 1"),
        (document_of([row(noise=-1.0)], (14.6, 1.0)), "noise of row 0"),
        (document_of([row(noise=1e6)], (14.6, 1.0)), "noise of row 0"),
        (document_of([row(noise=0.1)]), "be 0 in a step to sigma 0"),
        (document_of(None, (14.6, 1.0, 0.0), solver="gradient_estimation", options={"gamma": 1e7}), "option gamma"),
    ],
)  # fmt: skip
def test_what_no_sampling_needs_is_refused(document, says):
    error = refused(lambda: Recipe.from_json(json.dumps(document)))
    assert isinstance(error, ValueError) and says in str(error) and str(error).endswith(".")


def test_twenty_calls_are_what_calibration_makes():
    assert MOST_FITTED_CALLS == MOST_CALLS
    most = corrupted_rows(build_table("euler", levels_for("vp", 20)), 0, full=False)
    assert Recipe.from_text(Recipe.from_table(most).to_text()).nfe == 20
    with pytest.raises(ValueError, match="at most 20"):
        Recipe.from_table(corrupted_rows(build_table("euler", levels_for("vp", 21)), 0, full=False))
    assert Recipe.from_table(build_table("heun", levels_for("vp", 500))).nfe == 999  # without rows as many as ever


@pytest.mark.parametrize("preset", ["sd15", "zsnr", "edm", "sd3"])
def test_what_models_do_is_far_from_the_limits(preset):
    ns = NoiseSchedule.preset(preset)
    for steps in (1, 5, 20):
        table = build_table("deis", optimal_sigmas(ns, steps), ns.family)
        fitted = Recipe.from_table(corrupted_rows(table, steps, full=False))
        assert fitted.calibrated
        numbers = [abs(w) for r in build_table("unipc", optimal_sigmas(ns, steps), ns.family).rows for w in (r.a, *r.b, r.q_x, r.q_d)]
        assert max(numbers) < LARGEST_WEIGHT / 1000 and max(table.sigmas) < HIGHEST_LEVEL / 10


# --- lists -------------------------------------------------------------------------------------------------------------------------------


def test_cache_entries(tmp_path):
    random, cache = Random("cache"), cache_module.ScheduleCache(tmp_path)
    parameters, values = {"family": "vp", "steps": 6, "p": 3.0}, np.linspace(-3.0, 3.5, 7)
    cache.put(parameters, values)
    (file,) = tmp_path.iterdir()
    whole, cases = file.read_bytes(), count(400, 15_000)
    for _ in range(cases):
        content = damaged(whole, random)
        if random.random() < 0.5:
            document = json.loads(whole)
            spoil(document, random)
            content = as_text(document, random).encode("utf-8", "surrogatepass")
        file.write_bytes(content)
        found = refused(lambda: cache_module.ScheduleCache(tmp_path).get(parameters))
        assert found is None or (content == whole and np.array_equal(found, values))
    tell("cache entries", cases=cases)


def test_presets(tmp_path, monkeypatch):
    """Of a damaged installation."""
    document = json.loads(presets.PRESET_FILE.read_text(encoding="utf-8"))
    document["groups"] = document["groups"][:2]
    parameters = {**document["groups"][0]["parameters"], "steps": 5}
    right = presets.preset_nodes(parameters)
    whole, random, file = json.dumps(document), Random("presets"), tmp_path / "nodes.json"
    monkeypatch.setattr(presets, "PRESET_FILE", file)
    cases, used = count(100, 5000), 0
    for _ in range(cases):
        changed = json.loads(whole)
        spoil(changed, random)
        spoilt = as_text(changed, random).encode("utf-8", "surrogatepass")
        file.write_bytes(spoilt if random.random() < 0.5 else damaged(whole.encode(), random))
        presets._groups.cache_clear()
        found = refused(lambda: presets.preset_nodes(parameters))
        if found is not None:
            used += 1
            assert found.shape == right.shape and np.isfinite(found).all() and (np.diff(found) > 0).all()
    presets._groups.cache_clear()
    tell("presets", cases=cases, used=used)


TEXT = [
    "14.6", ",", " ", "0", "\n", "[", "]", "(", ")", "tensor(", "np.array(", "sigmas:", "=", ";", "e", "-", "+", "1e5", "1e-400",
    "1e400", "nan", "inf", "…", "..", "'", '"', "１", "٫", "·", "*", "/", "\ud800", "\u202e", "\0", "{", "}", "device='cuda:0'",
    ", dtype=torch.float32", ").cuda()", "9" * 500, "_", "0x1f", "1_000", "True", "None", "5, 2.5, 0", "7 ", "3.25,",
    "__import__('os')", "\x1b[2J",
]  # fmt: skip


def test_noise_levels_as_text():
    random, cases, read = Random("text"), count(1500, 20_000), 0
    for _ in range(cases):
        text = "".join(random.choice(TEXT) for _ in range(random.randint(1, random.choice([3, 10, 60]))))
        levels = refused(lambda text=text: parse_sigmas(text))
        if not isinstance(levels, ValueError):
            read += 1
            assert all(math.isfinite(level) for level in levels) and len(levels) >= 2
    for part in TEXT:  # many times over
        refused(lambda part=part: parse_sigmas("1" + part * 20_000))
    tell("noise levels as text", cases=cases, read=read)
    assert read


# --- tensors -----------------------------------------------------------------------------------------------------------------------------


def attacks(file: Path, name: str, cases: int):
    """The file with other content each time."""
    whole, random = file.read_bytes(), Random(name)
    for _ in range(cases):
        file.write_bytes(damaged_safetensors(whole, random))
        yield random
    file.write_bytes(whole)


@pytest.mark.parametrize("kind", [AmedTable, AmedPredictor])
def test_amed(kind, tmp_path):
    file = tmp_path / "a.safetensors"
    save_amed(file, kind(AmedConfig("dpmpp2", (14.6, 3.3, 0.7, 0.0), "vp")), model="m", losses=[1.0, 0.5], cfg=7)
    cases, loaded = count(250, 10_000), 0
    with opened_files() as opened:
        for _ in attacks(file, kind.__name__, cases):
            net = refused(lambda: load_amed(file))
            if isinstance(net, kind):
                loaded += 1
                assert all(bool(value.isfinite().all()) for value in net.state_dict().values()) and net.config.nfe < 3000
                assert all(level == 0 or LOWEST_LEVEL <= level <= HIGHEST_LEVEL for level in net.config.stamps)
    assert outside(opened, tmp_path) == []
    tell(f"AMED, {kind.__name__}", cases=cases, loaded=loaded)


def test_lora(tmp_path):
    file = tmp_path / "a.safetensors"
    network, _ = written(file, recipe="text")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    cases, loaded = count(250, 12_000), 0
    for _ in attacks(file, "lora", cases):
        adapters = refused(lambda: load_lora(network, file))
        if not isinstance(adapters, ValueError):
            loaded += 1
            assert all(bool(value.isfinite().all()) for value in (*adapters.down, *adapters.up)) and adapters.rank <= 3
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items()) and type(network) is Network
    tell("LoRA", cases=cases, loaded=loaded)


@pytest.mark.parametrize("states", [False, True])
def test_teacher(states, tmp_path):
    """A batch is what was stored, bit for bit, or is made again."""
    setting = toy_setting(3, 3)
    teacher = Teacher(setting, 4, states=states, folder=tmp_path).run()
    right = [{name: value.clone() for name, value in batch.items()} for batch in teacher.batches()]  # not a view of the file
    (file,) = tmp_path.rglob("*.safetensors")
    cases, kept = count(200, 8000), 0
    for _ in attacks(file, f"teacher {states}", cases):
        again = Teacher(setting, 4, states=states, folder=tmp_path)
        if refused(lambda again=again: again.finished):
            kept += 1
            for batch, wanted in zip(again.batches(), right, strict=True):
                assert all(torch.equal(batch[name], wanted[name]) for name in (("end", "x", "d") if states else ("end",)))
    file.write_bytes(file.read_bytes()[:-9])
    again = Teacher(setting, 4, states=states, folder=tmp_path)
    assert not again.finished and torch.equal(again.end_points, right[0]["end"])
    tell(f"teacher, states {states}", cases=cases, kept=kept)


def test_a_teacher_of_a_former_version_is_used(tmp_path):
    """Format 1 has no checksums."""
    setting = toy_setting(3, 3)
    Teacher(setting, 4, folder=tmp_path).run()
    (file,) = tmp_path.rglob("*.safetensors")
    tensors, record = load_tensors(file)
    del record["checksums"]
    save_tensors(file, tensors, record)
    assert not Teacher(setting, 4, folder=tmp_path).finished
    record["format"] = 1
    save_tensors(file, tensors, record)
    assert Teacher(setting, 4, folder=tmp_path).finished
    for wrong in ({"end": tensors["end"][:2]}, {"end": tensors["end"].double()}, {"end": tensors["end"][..., :4]}):
        save_tensors(file, {**tensors, **wrong}, record)
        assert not Teacher(setting, 4, folder=tmp_path).finished


COUNTERS = {"done": int, "seconds": float}


def saved_state(file: Path):
    """A state, what it was loaded into, and how to load it."""
    parameter = torch.nn.Parameter(torch.zeros(3))
    adam = torch.optim.Adam([parameter])
    parameter.grad = torch.ones(3)
    adam.step()
    state = StateFile(file, {"a": 1}, 1.0, {"c": torch.ones(2)})
    state.save({"now": [parameter]}, adam, {"done": 1, "seconds": 2.5, "history": [[0, math.nan, 2.0]]})
    return parameter, lambda: state.load({"now": [parameter]}, adam, COUNTERS)


def test_training_states(tmp_path):
    file = tmp_path / "state.safetensors"
    parameter, load = saved_state(file)
    cases, loaded = count(250, 10_000), 0
    for _ in attacks(file, "state", cases):
        before = parameter.detach().clone()
        record = refused(load)
        if isinstance(record, ValueError):
            assert type(record) is OtherState and torch.equal(parameter, before)
        else:
            loaded += 1
            assert bool(parameter.isfinite().all()) and type(record["done"]) is int and record["done"] >= 0
    tell("training states", cases=cases, loaded=loaded)


F8 = getattr(torch, "float8_e4m3fn", torch.uint8)  # torch has it since 2.1


@pytest.mark.parametrize(
    "change",
    [
        {"start.c": torch.tensor([True, False])}, {"start.c": torch.ones(2, dtype=F8)},
        {"now.0": torch.zeros(3, dtype=F8)}, {"now.0": torch.zeros(3, dtype=torch.complex64)},
        {"adam.step.0": torch.tensor(-1.0)}, {"adam.exp_avg_sq.0": -torch.ones(3)}, {"done": math.nan}, {"done": -5}, {"done": 0.5},
        {"done": 10**400}, {"done": True}, {"seconds": 2**70}, {"history": [[0, None, 2.0]]},
    ],
    ids=str,
)  # fmt: skip
def test_a_state_that_a_training_would_stumble_over_is_refused(change, tmp_path):
    file = tmp_path / "state.safetensors"
    _, load = saved_state(file)
    tensors, facts = load_tensors(file)
    assert load()["done"] == 1
    (name,) = change
    if name in tensors:
        try:
            save_tensors(file, {**tensors, **change}, facts)
        except KeyError as dtype:
            pytest.skip(f"this safetensors has no {dtype}")
    else:
        save_tensors(file, tensors, {**facts, "record": facts["record"] | change})
    with pytest.raises(OtherState):
        load()
