"""Processes killed at any moment (kill -9), many at once, without a home folder: what they leave loads or is ignored, and work goes on.

Children are forked, so that they need not import torch again; they compute in one thread. Counts and the full run: hardening.py.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch

from fewstep.amed import AmedConfig, load_amed, save_amed, train_amed
from fewstep.fitting import Teacher
from fewstep.recipes import Book, Recipe
from fewstep.schedules import NoiseSchedule, baseline_sigmas, optimal_sigmas
from fewstep.schedules.cache import ScheduleCache
from fewstep.tensor_files import load_tensors, save_tensors
from fewstep.training.distributed import join, leave

from .hardening import count, tell
from .job_cases import CASES, undisturbed
from .test_recipe_book import made as uncalibrated
from .test_recipes import calibrated
from .toy_denoiser import SCHEDULES, toy_setting

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
every_job = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def forked(work) -> int:
    """A child that does the work and ends with 0, or with 1 after a traceback."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int, after: float, seconds: float = 300.0) -> int | None:
    """The exit code of a child that is killed after so many seconds, unless it ends before: None if it was killed."""
    finish = time.monotonic() + min(after, seconds)
    while time.monotonic() < finish:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert after < seconds, "It hangs."
    return None


def ready(path: Path) -> None:
    while not path.exists():
        time.sleep(0.001)


# --- files -------------------------------------------------------------------------------------------------------------------------------


def test_recipes_books_and_tensors(tmp_path):
    """A file is the former or the new one, whole; the rest are temporary files that nothing reads, and that go in time."""
    choice, kills = random.Random("files"), count(6, 120)
    versions = [calibrated(2), calibrated(9, "heun"), calibrated(20)]
    books = [Book((uncalibrated(4),)), Book(tuple(map(uncalibrated, range(2, 40)))), Book((uncalibrated(4, 7.0), uncalibrated(5)))]
    recipe, book, tensors = tmp_path / "r.json", tmp_path / "b.json", tmp_path / "t.safetensors"
    versions[0].save(recipe)
    books[0].save(book)
    save_tensors(tensors, {"x": torch.zeros(20_000)}, {"n": 0})

    def work():
        for index in range(10**9):
            versions[index % 3].save(recipe)
            books[index % 3].save(book)
            save_tensors(tensors, {"x": torch.full((20_000,), float(index % 3))}, {"n": index % 3})

    for _ in range(kills):
        assert ended(forked(work), choice.uniform(0.0, 0.06)) is None
        assert Recipe.load(recipe) in versions and Book.load(book) in books
        values, record = load_tensors(tensors)
        assert bool((values["x"] == record["n"]).all()) and values["x"].shape == (20_000,)
    left = [path for path in tmp_path.iterdir() if path not in (recipe, book, tensors)]
    assert all(path.suffix in (".tmp", ".part") for path in left)
    for path in left:
        for old in (*path.glob("*"), path):
            os.utime(old, (0, 0))
    save_tensors(tensors, {"x": torch.zeros(1)}, {})
    versions[0].save(recipe)
    assert sorted(tmp_path.iterdir()) == [book, recipe, tensors]
    tell("kills of processes that save recipes, books and tensors", kills=kills, left_over=len(left))


def test_a_file_that_is_being_written_is_left_alone(tmp_path):
    """As another process does at the moment; and one that only looks like it."""
    writing, other = tmp_path / "t.safetensorsabcdefgh.part", tmp_path / "t.safetensors.part"
    writing.mkdir()
    (writing / "tensors.part").write_bytes(b"half")
    os.utime(writing, (0, 0))
    other.write_bytes(b"a download")
    os.utime(other, (0, 0))
    save_tensors(tmp_path / "t.safetensors", {"x": torch.zeros(1)}, {})
    assert writing.exists() and other.exists()


# --- the cache ---------------------------------------------------------------------------------------------------------------------------


def values_for(number: int) -> np.ndarray:
    return number + 1 / (np.arange(5 + number % 90) + 3.0)


def test_eight_processes_on_one_cache_some_of_which_are_killed(tmp_path):
    choice, kills, each = random.Random("cache"), count(4, 60), count(150, 2500)
    operations = 8 * each

    def work(seed: int, operations: int):
        mine = random.Random(seed)
        for _ in range(operations):
            number = mine.randrange(120)
            cache = ScheduleCache(tmp_path, max_entries=60)
            found = cache.get({"number": number})
            assert found is None or np.array_equal(found, values_for(number)), number
            if found is None or mine.random() < 0.3:
                cache.put({"number": number}, values_for(number))

    steady = [forked(lambda seed=seed: work(seed, each)) for seed in range(8)]
    for index in range(kills):
        assert ended(forked(lambda index=index: work(100 + index, 10**9)), choice.uniform(0.0, 0.1)) is None
    assert [ended(child, 900.0, 600.0) for child in steady] == [0] * 8
    for number in range(120):
        found = ScheduleCache(tmp_path).get({"number": number})
        assert found is None or np.array_equal(found, values_for(number))
    for path in tmp_path.glob("*.tmp"):
        os.utime(path, (0, 0))
    ScheduleCache(tmp_path, max_entries=60).put({"number": 1}, values_for(1))
    left = list(tmp_path.iterdir())
    assert 1 <= len(left) <= 60 and all(path.suffix == ".json" for path in left)
    tell("the cache", processes=8, operations=operations, kills=kills)


@pytest.mark.parametrize("place", ["", "/no/such/home", "below a file"])
def test_without_a_home_folder_or_one_that_can_be_written(place, tmp_path):
    """In containers: no variable names a home, or it names one that does not exist and cannot be made."""
    (tmp_path / "file").touch()
    here = str(tmp_path / "file" / "home") if place == "below a file" else place
    right = optimal_sigmas(NoiseSchedule.edm(0.0123, 77.0), 4, cache=False)

    def work() -> None:
        os.chdir(tmp_path)
        os.environ.update({name: here for name in ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "LOCALAPPDATA")})
        os.environ["FEWSTEP_CACHE_DIR"] = here and f"{here}/cache" if place != "/no/such/home" else "~/cache"
        if place == "/no/such/home":
            os.setuid(65534)
        for _ in range(2):
            assert torch.equal(optimal_sigmas(NoiseSchedule.edm(0.0123, 77.0), 4), right)

    assert ended(forked(work), 900.0, 60.0) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# --- jobs --------------------------------------------------------------------------------------------------------------------------------


@every_job
def test_jobs(case, tmp_path):
    """Teacher passes, fits, trainings and tunings that are killed again and again end with the same numbers as if they had not been."""
    choice, kills, killed, runs = random.Random(case.name), count(1, 8), 0, 0
    wanted = undisturbed(case).numbers
    start = time.monotonic()
    case.run(case.setting(), case.plan(None))
    longest = time.monotonic() - start
    while killed < kills:
        folder, before = tmp_path / str(runs), killed
        plan, runs = case.stored_plan(folder), runs + 1
        folder.mkdir()

        def work(folder: Path = folder, plan: object = plan) -> None:
            (folder / f"began {os.getpid()}").touch()
            case.run(case.setting(), plan)

        while killed < min(kills, before + 4):
            child = forked(work)
            ready(folder / f"began {child}")
            code = ended(child, choice.uniform(0.0, 0.9 * longest / (1 + killed - before)))
            assert code in (None, 0)
            if code == 0:
                break
            killed += 1
        for path in folder.rglob("*"):
            assert path.is_dir() or path.suffix == ".safetensors" or path.parent.suffix == ".part" or path.name.startswith("began "), path
            if path.suffix == ".safetensors":
                load_tensors(path)
        outcome = case.run(case.setting(), plan)
        assert outcome.finished and outcome.error is None
        assert all(torch.equal(now, right) for now, right in zip(case.numbers(outcome), wanted, strict=True))
    tell(f"kills of {case.name}", kills=killed, runs=runs)


# --- several processes that train together -----------------------------------------------------------------------------------------------


def train_together(folder: Path, rank: int, port: int) -> None:
    """One of two processes, as torchrun starts them; both write what they hold at the end."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    join()
    (folder / f"joined {os.getpid()}").touch()
    setting = toy_setting(18, batch=4)
    config = AmedConfig("ipndm3", tuple(baseline_sigmas("uniform_lambda", SCHEDULES["edm"], 3).tolist()), "edm", scale_dir=0.1)
    teacher = Teacher(setting, 12, folder=folder / "teacher")
    result = train_amed(setting, config, method="end", held_out=4, teacher=teacher, passes=4, checks=2, resume=folder / "state.safetensors")
    save_amed(folder / f"net-{rank}.safetensors", result.net)
    leave()


def run_together(folder: Path, kill: tuple[int, ...] = (), after: float = 0.0) -> tuple[list[int | None], float]:
    """The exit codes of both, and the seconds from when they met; those to kill are killed so many seconds after that."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = [forked(lambda rank=rank: train_together(folder, rank, port)) for rank in range(2)]
    for child in children:
        ready(folder / f"joined {child}")
    start = time.monotonic()
    codes = {rank: ended(children[rank], max(0.0, start + after - time.monotonic())) for rank in kill}
    codes |= {rank: ended(children[rank], 900.0, 120.0) for rank in range(2) if rank not in kill}
    return [codes[rank] for rank in range(2)], time.monotonic() - start


def test_one_or_both_of_two_processes_that_train_together(tmp_path, capfd):
    """The one that is left ends, too, and started again both reach the numbers of a run that was not disturbed."""
    choice, kills, killed = random.Random("together"), count(1, 12), 0
    whole = tmp_path / "whole"
    whole.mkdir()
    codes, seconds = run_together(whole)
    assert codes == [0, 0]
    wanted = [load_amed(whole / f"net-{rank}.safetensors").state_dict() for rank in range(2)]
    for number in range(kills):
        folder, victims = tmp_path / str(number), choice.choice([(0,), (1,), (0, 1)])
        folder.mkdir()
        codes, _ = run_together(folder, victims, choice.uniform(0.0, 0.8 * seconds))
        killed += codes.count(None)
        assert all(codes[rank] in (None, 0) for rank in victims) and all(code in (None, 0, 1) for code in codes)
        for path in folder.rglob("*.safetensors"):
            load_tensors(path)
        assert run_together(folder)[0] == [0, 0]
        for rank, right in enumerate(wanted):
            found = load_amed(folder / f"net-{rank}.safetensors").state_dict()
            assert all(torch.equal(found[name], value) for name, value in right.items()), victims
    capfd.readouterr()  # tracebacks of those that were left alone
    tell("kills of processes that train together", kills=killed, runs=kills)
