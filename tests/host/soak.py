"""An impatient user for hours: many small prompts in random order on one ComfyUI, some of them wrong, interrupted or withdrawn.

    python tests/host/soak.py [--prompts 500] [--seed 0] [--record FILE]

Meanwhile somebody asks for previews and the pack's other addresses without a break, and reloads the page where there is a browser. What
is looked for: prompts that end otherwise than they should, exceptions of ours in the log other than the ValueErrors of wrong inputs,
files in the wrong place, memory that grows, and a host that is not what it was. test_soak.py runs a sample.

Every prompt adds a line to the record, and those that are there are not run again, so a run that was stopped goes on: with another
server, whose memory is judged by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import statistics
import sys
import tempfile
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

if __package__:
    from . import graphs
    from .browser import open_page, why_no_browser
    from .comfyui import HOST, PROBE, ROOT, Comfy, Graph, PromptRefused, Result
    from .make_api_prompts import prompts as prompts_of_nodes
    from .test_run_workflows import made_small, with_checkpoints
    from .workflows import to_prompt
else:  # as a program: the folder above is no package that could be named
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.host import graphs
    from tests.host.browser import open_page, why_no_browser
    from tests.host.comfyui import HOST, PROBE, ROOT, Comfy, Graph, PromptRefused, Result
    from tests.host.make_api_prompts import prompts as prompts_of_nodes
    from tests.host.test_run_workflows import made_small, with_checkpoints
    from tests.host.workflows import to_prompt

LONG_WORK = {"FewStepCalibrate", "FewStepCompareRecipes", "FewStepCompareSchedules", "FewStepTrainAmed", "FewStepTuneLora"}
PATIENCE = 60.0  # seconds; afterwards the user interrupts, and that must help
LONGEST_INTERRUPT = 60.0
LONGEST_RELOAD = 300_000  # milliseconds, for a busy machine
MEASURED_EVERY = 20  # prompts
WARM_UP = 160  # prompts until memory may not grow any more: by then every kind has run
GROWTH = 1.05
WAYS = {"plain": 0.6, "wrong": 0.2, "interrupted": 0.12, "withdrawn": 0.08}
KINDS = ("ValueError", "TypeError")  # of exceptions that are raised for people
WRONG: list[Any] = [
    None, "", " ", "x", "../../outside", "/tmp/outside", "..\\outside", "C:\\outside", "CON", "a\0b", "\u202egnp", "x" * 5000, True, -1, 0,
    1.5, 10**9, -(10**9), 2**64, 1e308, float("nan"), float("inf"), [], {}, [[]], ["999", 0], ["1", 99], ["1", -1], "[" * 5000,
    '{"version": 1}',
]  # fmt: skip


# --- prompts -----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """A kind of prompt; `make` gives one, with the random numbers of its turn."""

    name: str
    make: Callable[[Random], dict]
    long: bool = False


def is_long(prompt: dict) -> bool:
    return any(node["class_type"] in LONG_WORK for node in prompt.values())


def items(comfy: Comfy) -> list[Item]:
    """Every node of the pack, every template, and graphs of stock nodes with the pack's dropdown entries."""
    of_nodes, info = prompts_of_nodes(), comfy.object_info
    comfy.run(of_nodes["FewStepSaveBook"])  # others read that book
    found = [Item(f"node {name}", varied(graph.prompt), is_long(graph.prompt)) for name, graph in of_nodes.items()]
    for path in sorted((ROOT / "example_workflows").glob("*.json")):
        prompt = made_small(to_prompt(json.loads(path.read_text(encoding="utf-8")), info))
        found.append(Item(f"template {path.stem}", varied(with_checkpoints(comfy, prompt)), is_long(prompt)))
    sampler = info["KSampler"]["input"]["required"]
    inputs = sampler["sampler_name"], sampler["scheduler"]
    samplers, schedulers = (entry[1]["options"] if entry[0] == "COMBO" else entry[0] for entry in inputs)
    ours = [[name for name in names if name.startswith("fewstep")] for names in (samplers, schedulers)]
    assert all(ours)
    for family in ("vp", "edm", "flow"):
        found.append(Item(f"dropdown {family}", partial(dropdown, family, *ours)))
        found.append(Item(f"custom {family}", partial(custom, family)))
        found.append(Item(f"mask {family}", partial(masked, family)))
    found += [Item(f"guider {kind}", partial(guided, kind)) for kind in ("CFGGuider", "BasicGuider", "FewStepTwoExpertGuider")]
    found.append(Item("AMED times", predicted))
    found.append(Item("stock", partial(dropdown, "vp", ["euler", "dpmpp_2m", "uni_pc", "heun"], ["karras", "simple", "beta", *ours[1]])))
    return found


def varied(prompt: dict) -> Callable[[Random], dict]:
    """The prompt with other seeds, so that the host runs it again."""

    def make(random: Random) -> dict:
        changed = deepcopy(prompt)
        for node in changed.values():
            for name in {"seed", "noise_seed"} & node["inputs"].keys():
                node["inputs"][name] = random.randrange(2**32)
        return changed

    return make


def finished(source: graphs.Source, latent: list) -> dict:
    picture = source.graph.node("VAEDecode", samples=latent, vae=source.vae)
    source.graph.node("PreviewImage", images=picture[0])
    return source.graph.prompt


def dropdown(family: str, samplers: list[str], schedulers: list[str], random: Random) -> dict:
    source = graphs.demo(family, batch_size=1)
    wanted = {"sampler_name": random.choice(samplers), "scheduler": random.choice(schedulers)}
    if random.random() < 0.3:
        first = random.randint(0, 2)
        node = graphs.ksampler_advanced(source, steps=5, start_at_step=first, noise_seed=random.randrange(2**32), **wanted)
    else:
        chosen = {"steps": random.randint(1, 5), "denoise": random.choice([1.0, 1.0, 0.6]), "cfg": random.choice([1.0, 2.5])}
        node = graphs.ksampler(source, seed=random.randrange(2**32), **chosen, **wanted)
    return finished(source, node[0])


def custom(family: str, random: Random) -> dict:
    source = graphs.demo(family, batch_size=1)
    solver = random.choice(["unipc", "dpmpp_multistep", "deis", "ipndm", "dpmpp_2m_sde"])
    first_call = random.choice(["highest level", "lower"]) if random.random() < 0.5 else "highest level"
    lists = {"steps": random.randint(1, 5), "denoise": random.choice([1.0, 0.7]), "solver": solver, "first_call": first_call}
    sigmas = source.graph.node("FewStepScheduler", model=source.model, **lists)
    sampler = source.graph.node("FewStepSampler", solver=solver)
    sampled = graphs.sampler_custom(source, sampler[0], sigmas[0], noise_seed=random.randrange(2**32))
    return finished(source, sampled[0])


def masked(family: str, random: Random) -> dict:
    """Half of the picture is kept."""
    source = graphs.demo(family, batch_size=1)
    mask = source.graph.node("SolidMask", value=0.5, width=256, height=256)
    latent = source.graph.node("SetLatentNoiseMask", samples=source.latent, mask=mask[0])
    sampler = random.choice(["fewstep_unipc", "fewstep_dpmpp_2m_sde", "fewstep_ipndm"])
    node = graphs.ksampler(source, latent=latent[0], steps=4, seed=random.randrange(2**32), sampler_name=sampler)
    return finished(source, node[0])


def guided(kind: str, random: Random) -> dict:
    source = graphs.demo("flow", batch_size=1)
    prompts = {"positive": source.positive, "negative": source.negative}
    links: dict[str, Any] = {"model": source.model, **prompts, "cfg": random.choice([1.0, 3.0])}
    chosen: dict[str, Any] = {"steps": random.randint(2, 5)}
    if kind == "BasicGuider":
        links = {"model": source.model, "conditioning": source.positive}
    elif kind == "FewStepTwoExpertGuider":
        other = source.graph.node("FewStepLoadDemoModel", family="flow", class_name="bag", batch_size=1)
        links = {"high_model": source.model, "low_model": other[0], **prompts, "boundary": "0.9 (Wan 2.2 image to video)"}
        chosen["boundary"] = links["boundary"]
    guider, noise = source.graph.node(kind, **links), source.graph.node("RandomNoise", noise_seed=random.randrange(2**32))
    sigmas = source.graph.node("FewStepScheduler", model=source.model, **chosen)
    wires = {"noise": noise[0], "guider": guider[0], "sampler": source.graph.node("FewStepSampler")[0], "sigmas": sigmas[0]}
    return finished(source, source.graph.node("SamplerCustomAdvanced", **wires, latent_image=source.latent)[0])


def predicted(random: Random) -> dict:
    source = graphs.demo("edm", batch_size=1)
    predictor = source.graph.node("FewStepLoadAmed", name="demo model: ipndm3-5-table")
    sampler = source.graph.node("FewStepAmedSampler", predictor=predictor[0], cfg_to_check=2.0)
    sigmas = source.graph.node("FewStepAmedScheduler", predictor=predictor[0])
    sampled = graphs.sampler_custom(source, sampler[0], sigmas[0], noise_seed=random.randrange(2**32))
    shown = source.graph.node("FewStepAmedTimes", sampler=sampler[0], samples=sampled[0])
    return finished(source, shown[0])


def spoilt(prompt: dict, random: Random) -> dict:
    """One or two inputs of the pack's nodes wrong, left out, or connected with what does not fit."""
    changed = deepcopy(prompt)
    ours = [node for node in changed.values() if node["class_type"].startswith("FewStep")]
    for _ in range(random.randint(1, 2)):
        inputs = random.choice(ours)["inputs"] if ours else {}
        if inputs:
            name = random.choice(sorted(inputs))
            if random.random() < 0.1:
                del inputs[name]
            else:
                inputs[name] = deepcopy(random.choice(WRONG))
    return changed


# --- one turn ----------------------------------------------------------------------------------------------------------------------------


@dataclass
class Turn:
    """How a prompt ended: "done", "red" (a node failed), "refused", "interrupted" or "withdrawn"; and what was wrong with that."""

    number: int
    item: str
    way: str
    ended: str = ""
    seconds: float = 0.0
    complaints: list[str] = field(default_factory=list)
    memory: float = 0.0  # MiB of the server, where it was measured after this turn


def play(comfy: Comfy, number: int, item: Item, way: str, random: Random) -> Turn:
    """One prompt, run as `way` says, with everything that is looked at afterwards."""
    turn = Turn(number, item.name, way)
    prompt = item.make(random)
    log, start = comfy.log_file.stat().st_size, time.monotonic()
    try:
        with_defaults = comfy.with_defaults(prompt)
        prompt_id = comfy.post_prompt(spoilt(with_defaults, random) if way == "wrong" else with_defaults, as_it_is=True)
    except PromptRefused as refusal:
        turn.ended = "refused"
        if way != "wrong":
            turn.complaints.append(f"refused: {refusal.sentences()}")
        if refusal.answer.get("prompt_id"):  # outputs without the wrong node run all the same
            judged(turn, ending(comfy, refusal.answer["prompt_id"]))
    else:
        if way == "interrupted":
            time.sleep(random.expovariate(1 / 0.15))
            comfy.interrupt()
        elif way == "withdrawn":
            comfy.request("/queue", {"delete": [prompt_id]})
        turn.ended = judged(turn, ending(comfy, prompt_id))
    turn.seconds = round(time.monotonic() - start, 3)
    turn.complaints += wrong_lines(comfy, log, allowed=way == "wrong")
    return turn


def ending(comfy: Comfy, prompt_id: str) -> Result | None:
    """The result of a prompt, None where it never began; interrupted when it takes too long."""
    start, stopped = time.monotonic(), False
    while True:
        history = comfy.get(f"/history/{prompt_id}")
        if prompt_id in history:
            return Result(prompt_id, history[prompt_id])
        waited = time.monotonic() - start
        queue = comfy.get("/queue")
        if prompt_id not in json.dumps(queue) and not comfy.get(f"/history/{prompt_id}"):
            return None
        if waited > PATIENCE and not stopped:
            comfy.interrupt()
            stopped = True
        assert waited < PATIENCE + LONGEST_INTERRUPT, f"{prompt_id} cannot be interrupted:\n{comfy.log[-2000:]}"
        time.sleep(0.02)


def judged(turn: Turn, result: Result | None) -> str:
    """How it ended; complains where it should have ended otherwise."""
    if result is None:
        if turn.way != "withdrawn":
            turn.complaints.append("It never began.")
        return "withdrawn"
    if result.ok:
        return "done"
    if result.interrupted:
        return "interrupted"
    error = result.messages.get("execution_error", {})
    kind, text, node = error.get("exception_type", ""), error.get("exception_message", ""), error.get("node_type", "")
    if turn.way != "wrong":
        turn.complaints.append(f"{node} failed: {kind}: {text}")
    elif node.startswith("FewStep") and not is_ours(kind, text):
        turn.complaints.append(f"{node}: not a sentence, but {kind}: {text[:300]}")
    return "red"


def is_ours(kind: str, text: str) -> bool:
    """Whether an exception was raised for people: of a kind that we raise, with a sentence."""
    return kind.rpartition(".")[2] in KINDS and re.fullmatch(r"(?s)\S+ .*[.)\]]", text.strip()) is not None


def wrong_lines(comfy: Comfy, since: int, allowed: bool) -> list[str]:
    """Tracebacks through our files since then; those of a wrong prompt may end in an error of ours."""
    with open(comfy.log_file, "rb") as file:
        file.seek(since)
        text = file.read().decode("utf-8", "replace")
    found = []
    for trace in re.findall(r"Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*[^\n]+", text):
        kind = trace.splitlines()[-1].partition(": ")[0]
        if "custom_nodes/fewstep/" in trace and not (allowed and kind.rpartition(".")[2] in KINDS):
            found.append(f"log: {trace[-600:]}")
    unexpected = re.compile(r"(?i)^(error|critical).*fewstep|never retrieved|unhandled")
    return found + [f"log: {line[:300]}" for line in text.splitlines() if unexpected.search(line)]


# --- meanwhile ---------------------------------------------------------------------------------------------------------------------------


def random_preview(random: Random) -> str:
    """An address of the pack, right or wrong."""
    names = {
        "preset": ["sd15", "sdxl", "flux", "edm", "demo_vp", "wan", "sd17", "", "x" * 300],
        "solver": ["unipc", "ddim", "heun", "unicorn", ""],
        "schedule": ["optimized", "karras", "beta", "oss", "../x"],
        "order": ["auto", "2", "3", "9"],
        "steps": [1, 2, 6, 30, 31, 0, -1, 1e9, "nan", "many"],
        "denoise": [1, 0.5, 0, 1e-9, -1, "inf"],
        "p": ["auto", "2.0", -1, 1e308, "strong"],
        "shift": [1.5, 0, -1, 1e-300, 1e300],
        "mu": [0.5, 50, -50, 51],
        "sigma_min": [0.01, 0, -1, 1e-320],
        "sigma_max": [80, 1e300, 0.001, "nan"],
        "key": ["0" * 16, "../..", ""],
        "first_call": ["lower", "highest level", "none"],
        "unknown": [1],
    }  # fmt: skip
    if random.random() < 0.15:
        return random.choice([
            "/fewstep/catalog", "/extensions/fewstep/docs/FewStepSampler/en.md", "/extensions/fewstep/docs/FewStepSampler/..%2f..%2fx.md",
            "/extensions/fewstep/..%2f..%2finstall.py", "/api/workflow_templates/fewstep/..%2fREADME.md", "/extensions/fewstep/fewstep.js",
            "/api/workflow_templates/fewstep/img2img.json", "/fewstep/preview/..", "/fewstep/preview?" + "steps=3&" * 300,
        ])  # fmt: skip
    chosen = random.sample(sorted(names), random.randint(0, 4))
    return "/fewstep/preview?" + urllib.parse.urlencode({name: random.choice(names[name]) for name in chosen})


def no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON.")


class Asker(threading.Thread):
    """Asks without a break; `slowest` is the longest that a page waited for the server's plain answer, which takes no computing."""

    def __init__(self, comfy: Comfy, seed: int):
        super().__init__(daemon=True)
        self.comfy, self.random = comfy, Random(f"previews {seed}")
        self.asked, self.slowest, self.statuses = 0, 0.0, Counter[int]()
        self.complaints: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.02):
            address = random_preview(self.random)
            try:
                status, body = self.comfy.request(address)
                start = time.monotonic()
                self.comfy.request("/queue")
                self.slowest = max(self.slowest, time.monotonic() - start)
                self.look_at(address, status, body)
            except (OSError, ValueError) as error:
                if not self.over.is_set():
                    self.complaints.append(f"{address[:200]}: {error}")
            self.asked += 1

    def look_at(self, address: str, status: int, body: bytes) -> None:
        self.statuses[status] += 1
        if status not in (200, 400, 403, 404, 503):
            self.complaints.append(f"{address[:200]}: HTTP {status} {body[:200]!r}")
        if b"def install_into_host" in body or b"# FewStep" in body[:20]:
            self.complaints.append(f"{address}: a file that is not the page's")
        if address.startswith("/fewstep/preview?") and status in (200, 400):
            answer = json.loads(body, parse_constant=no_constant)
            if not ("error" in answer or answer["curves"][0]["sigmas"]) or len(body) > 20_000:
                self.complaints.append(f"{address[:200]}: {body[:200]!r}")


@contextlib.contextmanager
def asking(comfy: Comfy, seed: int) -> Iterator[Asker]:
    asker = Asker(comfy, seed)
    asker.start()
    try:
        yield asker
    finally:
        asker.over.set()
        asker.join(60)


# --- before and after --------------------------------------------------------------------------------------------------------------------


def host_as_it_is(comfy: Comfy) -> dict:
    graph = Graph()
    node = graph.node("ProbeHost")
    return json.loads(comfy.run(graph).ui(node, "text")[0])


def stock_pictures(comfy: Comfy, folder: Path, few: bool) -> dict[str, str]:
    """Digests of what stock samplers and schedulers make, all of them or a few."""
    known = host_as_it_is(comfy)
    samplers = [name for name in known["KSampler.SAMPLERS"] if not name.startswith("fewstep")]
    schedulers = [name for name in known["KSampler.SCHEDULERS"] if not name.startswith("fewstep")]
    if few:
        samplers, schedulers = ["euler", "dpmpp_2m", "uni_pc"], ["karras", "simple"]
    source, outs = graphs.demo("vp", batch_size=1), {}
    for sampler, scheduler in [(name, "karras") for name in samplers] + [("euler", name) for name in schedulers]:
        sampled = graphs.ksampler(source, sampler_name=sampler, scheduler=scheduler, steps=4)
        outs[f"{sampler} {scheduler}"] = source.out(folder, latent=sampled[0])
    result = comfy.run(source.graph)
    return {name: hashlib.sha256(Path(result.ui(node, "latent")[0]).read_bytes()).hexdigest() for name, node in outs.items()}


def memory(comfy: Comfy) -> float:
    """MiB of the server once it has let go of models and results, or 0 where the system does not tell."""
    comfy.request("/free", {"unload_models": True, "free_memory": True})
    time.sleep(1.0)  # it does that within a second
    status = Path(f"/proc/{comfy.process.pid}/status")
    return int(re.search(r"VmRSS:\s+(\d+) kB", status.read_text())[1]) / 1024 if status.exists() else 0.0


def files_outside(comfy: Comfy) -> list[str]:
    """Files beside the server's folder, and in it where no node writes."""
    base = comfy.base
    allowed = ("output", "temp", "input", "user", "models", "custom_nodes", "comfy.log")
    found = [path for path in base.iterdir() if path.name not in allowed]
    return sorted(map(str, found)) + [str(path) for path in (base.parent / "outside", Path("/tmp/outside")) if path.exists()]


def growth(readings: list[float]) -> float:
    """The last three readings after warm-up over the first three; 0 where there are too few."""
    return round(statistics.median(readings[-3:]) / statistics.median(readings[:3]), 4) if len(readings) >= 6 else 0.0


# --- the whole ---------------------------------------------------------------------------------------------------------------------------


def order(found: list[Item], prompts: int, seed: int) -> list[tuple[Item, str, Random]]:
    """All kinds in random order, again and again; long work is interrupted as often as not."""
    random, deck = Random(f"order {seed}"), []
    while len(deck) < prompts:
        deck += random.sample(found, len(found))
    turns = []
    for number, item in enumerate(deck[:prompts]):
        (way,) = random.choices(list(WAYS), list(WAYS.values()))
        if item.long and way == "plain" and random.random() < 0.5:
            way = "interrupted"
        turns.append((item, way, Random(f"turn {seed} {number}")))
    return turns


def soak(
    comfy: Comfy, turns: list[tuple[int, Item, str, Random]], on_turn: Callable[[Turn], None], reload: Callable[[], None] | None = None
) -> None:
    """Play the turns one after another; memory is measured, and the page loaded again, now and then."""
    for done, (number, item, way, random) in enumerate(turns, 1):
        turn = play(comfy, number, item, way, random)
        if done % MEASURED_EVERY == 0:
            turn.memory = round(memory(comfy), 1)
            if reload:
                reload()
        on_turn(turn)


def summary(lines: list[dict]) -> dict[str, Any]:
    """What the record says, all servers together; memory by server."""
    turns = [line for line in lines if "item" in line]
    servers, grown = [line for line in lines if "server" in line], []
    for server in servers:
        readings, count = [], 0
        for turn in turns:
            if turn["server_id"] == server["server"]:
                count += 1
                if turn["memory"] and count > WARM_UP:
                    readings.append(turn["memory"])
        grown.append({"prompts": count, "readings_MiB": readings, "growth": growth(readings)})
    ends = [line for line in lines if "asked" in line]
    return {
        "prompts": len(turns),
        "kinds": len({turn["item"] for turn in turns}),
        "ways": Counter(turn["way"] for turn in turns),
        "ended": Counter(turn["ended"] for turn in turns),
        "complaints": [f"{turn['number']} {turn['item']} ({turn['way']}): {text}" for turn in turns for text in turn["complaints"]]
        + [text for end in ends for text in end["complaints"]],
        "previews": sum(end["asked"] for end in ends),
        "slowest_answer_s": max((end["slowest"] for end in ends), default=0.0),
        "reloads": sum(end["reloads"] for end in ends),
        "host_unchanged": bool(ends) and all(end["host_unchanged"] for end in ends),
        "stock_pictures": max((end["stock_pictures"] for end in ends), default=0),
        "memory": grown,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Run many small prompts in random order on one ComfyUI.")
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, default=ROOT / ".venv/soak.jsonl")
    parser.add_argument("--no-browser", action="store_true", help="without reloads of the page")
    options = parser.parse_args()
    if HOST.problem:
        raise SystemExit(HOST.problem)
    options.record.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in options.record.read_text().splitlines()] if options.record.exists() else []
    known = {line["number"] for line in lines if "item" in line}
    if len(known) < options.prompts:
        with open(options.record, "a", buffering=1) as record, tempfile.TemporaryDirectory(prefix="fewstep-soak-") as folder:
            base = Path(folder) / "below" / "base"
            base.mkdir(parents=True)
            with Comfy(base, [ROOT, PROBE], {"FEWSTEP_CACHE_DIR": f"{folder}/cache"}) as comfy:
                run(comfy, options, known, lambda line: print(json.dumps(line), file=record), Path(folder))
        lines = [json.loads(line) for line in options.record.read_text().splitlines()]
    told = summary(lines)
    print(json.dumps(told, indent=1))
    flat = all(server["growth"] <= GROWTH for server in told["memory"]) and any(server["growth"] for server in told["memory"])
    return int(bool(told["complaints"]) or not told["host_unchanged"] or not flat)


def run(comfy: Comfy, options: argparse.Namespace, known: set[int], write: Callable[[dict], None], folder: Path) -> None:
    """What is missing of the record, on one server."""
    server, started = comfy.client_id, time.monotonic()
    write({"server": server, "host": HOST.version})
    found, before = items(comfy), (host_as_it_is(comfy), stock_pictures(comfy, folder, few=False))
    turns = [(number, *turn) for number, turn in enumerate(order(found, options.prompts, options.seed)) if number not in known]
    reloads, complaints = 0, list[str]()

    def on_turn(turn: Turn) -> None:
        write({**asdict(turn), "server_id": server})
        note = f" {turn.memory:.0f} MiB" if turn.memory else ""
        print(f"{turn.number} {turn.item}: {turn.way}, {turn.ended} {turn.seconds:.2f} s{note} {turn.complaints or ''}", flush=True)

    with contextlib.ExitStack() as stack:
        reload = None
        if not (options.no_browser or why_no_browser()):
            page = stack.enter_context(open_page(comfy.url))

            def reload() -> None:
                nonlocal reloads
                page.page.reload(wait_until="commit", timeout=LONGEST_RELOAD)
                page.until("() => Boolean(window.app?.graph && window.app.extensionManager)", limit=LONGEST_RELOAD)
                page.settle()
                reloads += 1

        with asking(comfy, options.seed) as asker:
            soak(comfy, turns, on_turn, reload)
        if reload:
            complaints += [f"page: {text}" for text in page.complaints()]
    after = (host_as_it_is(comfy), stock_pictures(comfy, folder, few=False))
    changed = [name for name in before[0] if before[0][name] != after[0][name]]
    changed += [name for name in before[1] if before[1][name] != after[1].get(name)]
    complaints += [f"changed: {name}" for name in changed] + [f"outside: {path}" for path in files_outside(comfy)]
    if asker.slowest > 5:
        complaints.append(f"The server did not answer for {asker.slowest:.1f} s.")
    write({
        "asked": asker.asked, "statuses": dict(asker.statuses), "slowest": round(asker.slowest, 3),
        "complaints": asker.complaints + complaints,
        "reloads": reloads, "host_unchanged": not changed, "stock_pictures": len(before[1]), "seconds": round(time.monotonic() - started),
    })  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
