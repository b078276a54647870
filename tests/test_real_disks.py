"""Disks that are really full or read-only, with whatever room is left: saved files are the former or the new ones, jobs go on afterwards.

The disks are file systems in memory (mounts.py). Errors come from the system, in the middle of a write, as with any disk; disks.py imitates
them where nothing can be mounted. A quota is the same error by another name (EDQUOT) from the same calls; file systems in memory have none
here, so it is imitated.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch

from fewstep.amed import AmedTable, load_amed, save_amed
from fewstep.recipes import Recipe
from fewstep.recipes.book import Book
from fewstep.schedules import NoiseSchedule, optimal_sigmas
from fewstep.schedules.cache import ScheduleCache
from fewstep.tensor_files import load_tensors, save_tensors

from .hardening import FULL, count, tell
from .job_cases import CASES, CONFIG, undisturbed
from .mounts import mount, own_mounts, remount, why_no_mounts
from .test_jobs_failures import check, check_resumed, check_said_of_files, run
from .test_killed import ended, forked
from .test_recipe_book import made
from .test_recipes import calibrated

pytestmark = pytest.mark.skipif(bool(why_no_mounts()), reason=f"no small disks: {why_no_mounts()}")
every_job = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
MUCH = 4096  # pages


def on_own_disks(work: Callable[[], None]) -> None:
    """In a child that may mount; fails where the work does."""

    def child() -> None:
        own_mounts()
        work()

    assert ended(forked(child), 900.0, 300.0) == 0


# --- files -------------------------------------------------------------------------------------------------------------------------------

BOOKS = [Book((made(4),)), Book(tuple(made(calls) for calls in range(2, 40)))]
RECIPES = [calibrated(2), calibrated(20)]
TENSORS = [torch.zeros(300), torch.ones(9000)]
AMED = [AmedTable(CONFIG), AmedTable(CONFIG)]
FILES: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], int]]] = {
    "recipe.json": (lambda path, number: RECIPES[number].save(path), lambda path: RECIPES.index(Recipe.load(path))),
    "book.json": (lambda path, number: BOOKS[number].save(path), lambda path: BOOKS.index(Book.load(path))),
    "state.safetensors": (
        lambda path, number: save_tensors(path, {"x": TENSORS[number]}, {}),
        lambda path: next(number for number, x in enumerate(TENSORS) if torch.equal(load_tensors(path)[0]["x"], x)),
    ),
    "amed.safetensors": (lambda path, number: save_amed(path, AMED[number]), lambda path: 0 if load_amed(path) else 1),
}  # fmt: skip
"""By name: save version 0 or 1, and tell which of them a file holds."""


def saved(path: Path, save: Callable[[Path, int], None], number: int, allowed: set[int]) -> bool:
    """Whether it could be saved; no other error than the disk's."""
    try:
        save(path, number)
    except OSError as error:
        numbers = {name: getattr(errno, name) for name in ("ENOSPC", "EROFS")}
        # safetensors raises an error of its own, which has no number but the system's text
        said = {code for name, code in numbers.items() if error.errno == code or f"os error {code}" in str(error)}
        assert said and said <= allowed, error
        return False
    return True


@pytest.mark.parametrize("name", FILES)
def test_with_any_room_left_a_file_is_the_former_or_the_new_one(name, tmp_path):
    save, version = FILES[name]
    full = {errno.ENOSPC}

    def work() -> None:
        failed = done = 0
        for pages in range(count(14, 40)):
            folder = tmp_path / f"{pages}"
            mount(folder, MUCH, files=64)
            path = folder / name
            save(path, 0)
            room = os.statvfs(folder)
            remount(folder, room.f_blocks - room.f_bfree + pages)  # so many pages are free
            if saved(path, save, 1, full):
                done, holds = done + 1, {1} if name != "amed.safetensors" else {0}
            else:
                failed, holds = failed + 1, {0}
            assert version(path) in holds and [each.name for each in folder.iterdir()] == [name], pages
        assert failed and done
        tell(f"full disks for {name}", sizes=failed + done, errors=failed)

    on_own_disks(work)


@pytest.mark.parametrize("name", FILES)
def test_no_more_files_or_a_read_only_disk(name, tmp_path):
    save, version = FILES[name]

    def work() -> None:
        for files in range(1, 7):  # the disk's own folder is one
            folder = tmp_path / f"{files}"
            mount(folder, MUCH, files=files)
            there = saved(folder / name, save, 0, {errno.ENOSPC})
            assert [each.name for each in folder.iterdir()] == [name] * there and (files > 1 or not there)
        assert there
        remount(folder, MUCH, read_only=True)
        assert not saved(folder / name, save, 1, {errno.EROFS}) and version(folder / name) == 0
        assert not saved(folder / "new" / name, save, 1, {errno.EROFS})

    on_own_disks(work)


# --- the cache ---------------------------------------------------------------------------------------------------------------------------


def test_the_cache_on_disks_that_are_full_or_read_only(tmp_path, monkeypatch):
    """Levels are right, whatever happens to the disk; what is read back later is what was put."""
    ns = [NoiseSchedule.edm(0.002 + 0.001 * number, 80.0) for number in range(4)]
    right = [optimal_sigmas(each, 4, cache=False) for each in ns]

    def work() -> None:
        monkeypatch.setenv("FEWSTEP_CACHE_DIR", str(tmp_path / "cache"))
        for pages in (1, 2, 3, MUCH):
            mount(tmp_path / "cache", pages, files=64)
            for _ in range(2):
                assert all(torch.equal(optimal_sigmas(each, 4), levels) for each, levels in zip(ns, right, strict=True))
            for number in range(50):
                ScheduleCache(tmp_path / "cache/schedules").put({"number": number}, np.arange(1 + 40 * number) / 7)
            left = list((tmp_path / "cache").rglob("*.*"))
            assert all(path.suffix == ".json" for path in left) and (pages < MUCH or len(left) >= 50)
            for number in range(50):
                found = ScheduleCache(tmp_path / "cache/schedules").get({"number": number})
                assert found is None or np.array_equal(found, np.arange(1 + 40 * number) / 7)
                assert pages < MUCH or found is not None
        remount(tmp_path / "cache", MUCH, read_only=True)
        cache = ScheduleCache(tmp_path / "cache/schedules")
        assert np.array_equal(cache.get({"number": 7}), np.arange(281) / 7)
        cache.put({"number": 99}, [1.0])
        assert cache.get({"number": 99}) is not None and ScheduleCache(cache.folder).get({"number": 99}) is None

    on_own_disks(work)


# --- jobs --------------------------------------------------------------------------------------------------------------------------------


def pages_used(case, folder: Path) -> int:
    """By a job that is not disturbed, so that most smaller disks disturb it."""
    mount(folder, MUCH)
    run(case, case.stored_plan(folder))
    room = os.statvfs(folder)
    return room.f_blocks - room.f_bfree


@every_job
def test_a_job_on_a_disk_that_fills_and_is_made_larger(case, tmp_path):
    """With random sizes; resumed on a larger disk it ends with the numbers of a run that was never disturbed."""
    undisturbed(case)  # once for all children
    choice = Random(f"disk {case.name}")

    def work() -> None:
        failed, sizes = 0, [0] if FULL or case == CASES[0] else []
        sizes += [choice.randint(1, pages_used(case, tmp_path / "whole") if FULL else 30) for _ in range(count(1, 8))]
        for number, pages in enumerate(sizes):
            folder = tmp_path / f"{number}"
            mount(folder, pages or 1)
            if not pages:
                remount(folder, MUCH, read_only=True)
            outcome, stages = run(case, case.stored_plan(folder))
            check(case, outcome, stages)
            check_said_of_files(outcome)
            assert pages or outcome.error is not None
            failed += outcome.error is not None
            remount(folder, MUCH)
            check_resumed(case, folder)
        tell(f"full and read-only disks for {case.name}", disks=len(sizes), errors=failed)

    on_own_disks(work)


@pytest.mark.parametrize("name", FILES)
def test_a_quota_is_a_full_disk(name, tmp_path, monkeypatch):
    """Imitated: the system refuses the last step, with the error that quotas have."""
    save, version = FILES[name]
    save(tmp_path / name, 0)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="quota"):
        save(tmp_path / name, 1)
    assert version(tmp_path / name) == 0 and [path.name for path in tmp_path.iterdir()] == [name]
