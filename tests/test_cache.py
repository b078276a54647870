"""The cache on disk: exact, distrustful, indifferent to a bad disk, and safe with many users at once."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fewstep.schedules import cache as cache_module
from fewstep.schedules.cache import ENVIRONMENT_VARIABLE, ScheduleCache, content_key, default_cache

PARAMETERS = {"solver": "unipc", "steps": 5, "p": 2.0, "trunc": None, "ends": [-2.5, 3.7]}
VALUES = np.array([14.6, 4.7, 0.1 + 0.2, 1e-300, 0.0])
DAY = 24 * 3600

finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture(autouse=True)
def nothing_reported_yet(monkeypatch):
    monkeypatch.setattr(cache_module, "_report_once", threading.Lock())


@pytest.fixture
def cache(tmp_path):
    return ScheduleCache(tmp_path)


def on_disk(folder, parameters):
    """What another process would get."""
    return ScheduleCache(folder).get(parameters)


def file_of(folder, parameters):
    return Path(folder) / f"{content_key(parameters)}.json"


def names_in(folder):
    return sorted(item.name for item in Path(folder).iterdir())


def with_step(steps):
    return {**PARAMETERS, "steps": steps}


def set_age(path, seconds):
    moment = time.time() - seconds
    os.utime(path, (moment, moment))


# ---- keys -----------------------------------------------------------------------------------------------------------


def test_keys_are_the_same_on_every_machine():
    assert content_key(PARAMETERS) == "5a92e18f11da4352d969feb20bed873e36cba7797b8dd6c74609a41ed6f29f61"


@pytest.mark.parametrize(
    "same",
    [
        dict(reversed(PARAMETERS.items())),
        {**PARAMETERS, "ends": (-2.5, 3.7)},
        {**PARAMETERS, "steps": np.int32(5)},
        {**PARAMETERS, "p": np.float32(2.0)},
        {**PARAMETERS, "ends": [np.float64(-2.5), 3.7]},
    ],
)
def test_equal_parameters_have_one_key(same):
    assert content_key(same) == content_key(PARAMETERS)


def test_different_parameters_have_different_keys():
    values = [None, True, False, 0, 1, 0.0, -0.0, 1.0, np.nextafter(1.0, 2.0), 0.1, np.float32(0.1), 10**30, 1e30]
    values += [float("nan"), float("inf"), -float("inf"), "NaN", "Infinity", "", "1", "é", "e\u0301", "\ud800"]
    values += [[], [1], [[1]], [1, 2], {}, {"a": 1}, {"a": [1]}, {"b": 1}]
    keys = [content_key({"p": value}) for value in values] + [content_key({"q": 1}), content_key({"p": 1, "q": 1})]
    assert len(set(keys)) == len(keys)


@settings(deadline=None, max_examples=50)
@given(st.lists(finite, min_size=1, max_size=20), st.data())
def test_the_last_digit_of_any_float_counts(floats, data):
    index = data.draw(st.integers(0, len(floats) - 1))
    changed = list(floats)
    changed[index] = float(np.nextafter(floats[index], -floats[index] or 1.0))
    assert content_key({"floats": floats}) != content_key({"floats": changed})


@pytest.mark.parametrize("value", [object(), b"5", {1, 2}, 1j, np.zeros(2), np.longdouble(1), np.timedelta64(1, "s")])
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [1, {"inner": value}]])
def test_parameters_without_an_exact_text_are_refused(cache, value, wrap):
    parameters = {"solver": wrap(value)}
    for use in (content_key, cache.get, lambda refused: cache.put(refused, VALUES)):
        with pytest.raises(TypeError, match=rf"has type {type(value).__name__}; it must be"):
            use(parameters)


def test_names_must_be_strings():
    with pytest.raises(TypeError, match=r"has the name 1; names must be strings\.$"):
        content_key({"table": {1: "one"}})


# ---- what is stored is what comes back ------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(st.lists(finite, min_size=1, max_size=60))
@example([5e-324, -0.0, 1.7976931348623157e308, 0.1, 1 / 3])
def test_any_float64_list_comes_back_exactly(values):
    with tempfile.TemporaryDirectory() as folder:
        cache = ScheduleCache(folder)
        cache.put(PARAMETERS, values)
        for found in (cache.get(PARAMETERS), on_disk(folder, PARAMETERS)):
            assert found.dtype == np.float64
            assert found.tobytes() == np.array(values).tobytes()


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(), st.floats() | st.integers() | st.text() | st.none() | st.lists(st.floats())))
def test_an_entry_with_any_parameters_is_found(parameters):
    with tempfile.TemporaryDirectory() as folder:
        ScheduleCache(folder).put(parameters, VALUES)
        assert np.array_equal(on_disk(folder, parameters), VALUES)


def test_absent_entries_are_none_and_reading_creates_nothing(tmp_path):
    assert on_disk(tmp_path / "new", PARAMETERS) is None
    assert not (tmp_path / "new").exists()


def test_arrays_of_callers_are_not_shared_with_the_cache(cache, tmp_path):
    given_values = VALUES.copy()
    cache.put(PARAMETERS, given_values)
    given_values[:] = 1
    for user in (cache, ScheduleCache(tmp_path)):
        for _ in range(3):
            found = user.get(PARAMETERS)
            assert np.array_equal(found, VALUES)
            found[:] = 2


def test_put_replaces(cache, tmp_path):
    cache.put(PARAMETERS, [1.0])
    cache.put(PARAMETERS, [2.0, 3.0])
    assert cache.get(PARAMETERS).tolist() == on_disk(tmp_path, PARAMETERS).tolist() == [2.0, 3.0]
    assert len(names_in(tmp_path)) == 1


def test_entries_can_be_read_by_people(cache, tmp_path):
    cache.put(PARAMETERS, VALUES)
    content = json.loads(file_of(tmp_path, PARAMETERS).read_text(encoding="ascii"))
    assert content["parameters"] == PARAMETERS
    assert content["values"] == VALUES.tolist()
    assert set(content) == {"format", "parameters", "values", "sha256"}


@pytest.mark.parametrize("values", [[], [[1.0, 2.0]], 1.0, [1.0, float("nan")], [float("inf")]])
def test_values_that_are_no_list_of_finite_numbers_are_refused(cache, tmp_path, values):
    with pytest.raises(ValueError, match=r"they must be a list of at least one number, all finite\.$"):
        cache.put(PARAMETERS, values)
    assert cache.get(PARAMETERS) is None
    assert not names_in(tmp_path)


def test_a_cache_of_no_entries_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"max_entries was 0; the cache must be allowed to hold at least 1 entry\.$"):
        ScheduleCache(tmp_path, max_entries=0)


def test_very_long_entries_stay_in_memory(cache, tmp_path):
    values = np.linspace(0, 1, 50_000)
    cache.put(PARAMETERS, values)
    assert np.array_equal(cache.get(PARAMETERS), values)
    assert not names_in(tmp_path)


def test_memory_is_bounded_and_keeps_what_is_used(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_REMEMBERED", 5)
    for steps in range(1, 21):
        cache.put(with_step(steps), [float(steps)])
        file_of(tmp_path, with_step(steps)).unlink()
        cache.get(with_step(1))
    remembered = [steps for steps in range(1, 21) if cache.get(with_step(steps)) is not None]
    assert remembered == [1, 17, 18, 19, 20]


# ---- damaged and foreign entries ------------------------------------------------------------------------------------


@pytest.fixture
def entry(cache, tmp_path):
    """An entry's file; afterwards a new value must have replaced whatever the test has put there."""
    cache.put(PARAMETERS, VALUES)
    path = file_of(tmp_path, PARAMETERS)
    yield path
    ScheduleCache(tmp_path).put(PARAMETERS, [5.0])
    assert on_disk(tmp_path, PARAMETERS).tolist() == [5.0]


def test_truncated_entries_are_ignored(entry):
    whole = entry.read_bytes()
    for length in range(len(whole)):
        entry.write_bytes(whole[:length])
        assert on_disk(entry.parent, PARAMETERS) is None, f"{length} of {len(whole)} bytes"
    entry.write_bytes(whole)
    assert np.array_equal(on_disk(entry.parent, PARAMETERS), VALUES)


def test_entries_with_one_wrong_byte_are_ignored(entry):
    whole = entry.read_bytes()
    generator = random.Random(5)
    for position, byte in enumerate(whole):
        for other in {ord("0"), ord(" "), byte ^ 1, generator.randrange(256)} - {byte}:
            entry.write_bytes(whole[:position] + bytes([other]) + whole[position + 1 :])
            assert on_disk(entry.parent, PARAMETERS) is None, f"byte {position}: {byte} -> {other}"


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=300))
@example(b"[" * 50_000)
@example(b'{"values":' * 5_000)
@example(b"1" * 10_000)
@example(b"null")
@example(b'{"values": {}}')
@example(b'{"values": [1' + b"0" * 400 + b"]}")
@example(b" " * 10_000_000)
def test_other_content_is_ignored(content):
    with tempfile.TemporaryDirectory() as folder:
        file_of(folder, PARAMETERS).write_bytes(content)
        assert on_disk(folder, PARAMETERS) is None


IMPOSSIBLE = [[], [float("nan")], [1], [True], ["1.5"], [None], [[1.0]], [[1.0], 2.0], [10**400], {}, "1.5", 1.5, None]


@pytest.mark.parametrize("values", IMPOSSIBLE)
def test_impossible_values_with_a_right_checksum_are_ignored(entry, values):
    content = cache_module._file_content(PARAMETERS, VALUES.tolist())
    assert content == entry.read_bytes()
    entry.write_bytes(cache_module._file_content(PARAMETERS, values))
    assert on_disk(entry.parent, PARAMETERS) is None


def test_an_entry_under_another_entrys_name_is_ignored(entry, cache):
    other = {**PARAMETERS, "p": 1.0}
    cache.put(other, [7.0])
    entry.write_bytes(file_of(entry.parent, other).read_bytes())
    assert on_disk(entry.parent, PARAMETERS) is None
    assert on_disk(entry.parent, other).tolist() == [7.0]


def test_entries_of_another_format_are_ignored_and_have_other_names(entry, monkeypatch):
    content = json.loads(entry.read_text())
    entry.write_text(json.dumps({**content, "format": "fewstep cache 2"}, indent=1) + "\n")
    assert on_disk(entry.parent, PARAMETERS) is None
    name = entry.name
    with monkeypatch.context() as newer:
        newer.setattr(cache_module, "_FORMAT", "fewstep cache 2")
        assert file_of(entry.parent, PARAMETERS).name != name


def test_entries_formatted_anew_are_ignored(entry):
    entry.write_text(json.dumps(json.loads(entry.read_text())))
    assert on_disk(entry.parent, PARAMETERS) is None


@pytest.mark.skipif(os.name == "nt", reason="makes a named pipe and a link")
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink(path, path)])
def test_what_is_no_file_is_ignored_without_waiting_for_it(entry, make):
    entry.unlink()
    make(entry)
    found = []
    # In a thread, so that a read that waits for ever is a failure.
    reader = threading.Thread(target=lambda: found.append(on_disk(entry.parent, PARAMETERS)), daemon=True)
    reader.start()
    reader.join(timeout=60)
    assert found == [None]


def test_a_folder_in_the_place_of_an_entry(cache, tmp_path, caplog):
    file_of(tmp_path, PARAMETERS).mkdir()
    assert cache.get(PARAMETERS) is None
    cache.put(PARAMETERS, VALUES)
    assert np.array_equal(cache.get(PARAMETERS), VALUES)
    assert len(caplog.messages) == 1
    assert names_in(tmp_path) == [file_of(tmp_path, PARAMETERS).name]


# ---- bounded size ---------------------------------------------------------------------------------------------------


def test_the_number_of_entries_is_bounded(tmp_path):
    cache = ScheduleCache(tmp_path, max_entries=20)
    for steps in range(1, 101):
        cache.put(with_step(steps), [float(steps)])
        assert len(names_in(tmp_path)) <= 20
        assert on_disk(tmp_path, with_step(steps)) is not None
    assert len(names_in(tmp_path)) >= 18


def test_one_entry_is_a_bound_too(tmp_path):
    cache = ScheduleCache(tmp_path, max_entries=1)
    for steps in range(1, 4):
        cache.put(with_step(steps), [float(steps)])
        set_age(file_of(tmp_path, with_step(steps)), 10)
    assert names_in(tmp_path) == [file_of(tmp_path, with_step(3)).name]


def test_entries_not_used_for_longest_go_first(tmp_path):
    cache = ScheduleCache(tmp_path, max_entries=10)
    for steps in range(1, 11):
        cache.put(with_step(steps), [float(steps)])
        set_age(file_of(tmp_path, with_step(steps)), (100 - steps) * DAY)
    assert on_disk(tmp_path, with_step(1)) is not None
    assert on_disk(tmp_path, with_step(3)) is not None
    for steps in range(11, 15):
        cache.put(with_step(steps), [float(steps)])
    left = [steps for steps in range(1, 15) if on_disk(tmp_path, with_step(steps)) is not None]
    assert {1, 3, 11, 12, 13, 14} <= set(left)
    assert 2 not in left


def test_a_hit_writes_at_most_once_a_day(cache, tmp_path):
    cache.put(PARAMETERS, VALUES)
    path = file_of(tmp_path, PARAMETERS)
    set_age(path, 3600)
    before = path.stat().st_mtime_ns
    on_disk(tmp_path, PARAMETERS)
    assert path.stat().st_mtime_ns == before
    for age in (2 * DAY, -2 * DAY):
        set_age(path, age)
        on_disk(tmp_path, PARAMETERS)
        assert abs(path.stat().st_mtime - time.time()) < DAY


def test_files_of_others_are_left_alone(tmp_path):
    foreign = ["notes.txt", "a.json", "0" * 63 + ".json", "0" * 64 + ".json.bak", "x.tmp", "fewstep-1.tmp"]
    for name in foreign:
        (tmp_path / name).write_text("mine")
        set_age(tmp_path / name, 1000 * DAY)
    cache = ScheduleCache(tmp_path, max_entries=2)
    for steps in range(1, 6):
        cache.put(with_step(steps), VALUES)
    assert set(foreign) <= set(names_in(tmp_path))
    assert len(names_in(tmp_path)) <= len(foreign) + 2


def test_temporary_files_are_deleted_when_their_process_must_be_gone(cache, tmp_path):
    abandoned, in_use, of_the_future = (f"fewstep-000000000000000{digit}.tmp" for digit in "1af")
    for name, age in ((abandoned, 2 * DAY), (in_use, 5), (of_the_future, -DAY)):
        (tmp_path / name).write_text("{")
        set_age(tmp_path / name, age)
    cache.put(PARAMETERS, VALUES)
    assert names_in(tmp_path) == sorted([file_of(tmp_path, PARAMETERS).name, in_use])


# ---- disks that do not cooperate ------------------------------------------------------------------------------------


def check_that_memory_serves(cache, caplog, folder, reason):
    """`cache` cannot write to `folder`: nothing is raised, results come from memory, and one sentence says so."""
    caplog.set_level(logging.DEBUG)
    for steps in (5, 6, 7):
        assert cache.get(with_step(steps)) is None
        cache.put(with_step(steps), VALUES)
        assert np.array_equal(cache.get(with_step(steps)), VALUES)
    ScheduleCache(cache.folder).put(PARAMETERS, VALUES)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("fewstep", logging.WARNING)
    assert record.message.startswith(f"FewStep cannot write to its cache folder {folder} ({reason}")
    assert record.message.endswith(f"Set another folder with {ENVIRONMENT_VARIABLE}.")


def test_a_folder_below_a_file(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "cache"
    check_that_memory_serves(ScheduleCache(folder), caplog, folder, "")


def test_a_folder_that_is_a_file(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    check_that_memory_serves(ScheduleCache(tmp_path / "file"), caplog, tmp_path / "file", "")
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no /proc")
def test_a_folder_that_cannot_be_made(caplog):
    folder = Path("/proc/fewstep/cache")
    check_that_memory_serves(ScheduleCache(folder), caplog, folder, "")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_errors_when_the_file_is_renamed(cache, tmp_path, caplog, monkeypatch, code):
    def replace(source, target):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", replace)
    check_that_memory_serves(cache, caplog, tmp_path, os.strerror(code))
    assert not names_in(tmp_path)


def test_an_entry_that_another_process_keeps_open_is_not_reported(cache, tmp_path, caplog, monkeypatch):
    cache.put(PARAMETERS, VALUES)

    def replace(source, target):  # as Windows does it
        raise PermissionError(errno.EACCES, "Access is denied")

    monkeypatch.setattr(os, "replace", replace)
    ScheduleCache(tmp_path).put(PARAMETERS, VALUES)
    assert not caplog.records
    assert len(names_in(tmp_path)) == 1


@pytest.fixture
def small_disk(tmp_path):
    """An empty file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"a really full disk needs `mount`, which does not run here: {error}")
    if mounted.returncode:
        pytest.skip(f"a really full disk needs the right to mount one: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(small_disk, caplog):
    cache = ScheduleCache(small_disk / "cache")
    for steps in range(1, 61):
        cache.put(with_step(steps), VALUES + steps)
    for steps in range(1, 61):
        assert np.array_equal(cache.get(with_step(steps)), VALUES + steps)
    (message,) = caplog.messages
    assert f"{small_disk / 'cache'} ({os.strerror(errno.ENOSPC)})" in message
    kept = {file_of(cache.folder, with_step(steps)).name: steps for steps in range(1, 61)}
    assert 1 < len(names_in(cache.folder)) < 60
    for name in names_in(cache.folder):
        assert np.array_equal(on_disk(cache.folder, with_step(kept[name])), VALUES + kept[name])


def test_a_read_only_disk_still_gives_what_it_has(small_disk, caplog):
    ScheduleCache(small_disk).put(PARAMETERS, VALUES)
    set_age(file_of(small_disk, PARAMETERS), 5 * DAY)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    cache = ScheduleCache(small_disk)
    assert np.array_equal(cache.get(PARAMETERS), VALUES)
    assert not caplog.records
    for steps in (50, 51):
        assert cache.get(with_step(steps)) is None
        cache.put(with_step(steps), VALUES)
        assert np.array_equal(cache.get(with_step(steps)), VALUES)
    (message,) = caplog.messages
    assert f"{small_disk} ({os.strerror(errno.EROFS)})" in message


def test_a_process_says_it_once(tmp_path, run_python):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "cache"
    script = (
        CHILD
        + """
for folder in (sys.argv[2], None, sys.argv[2]):
    for steps in range(5):
        cache = ScheduleCache(folder)
        cache.put({"steps": steps}, [1.0])
        assert cache.get({"steps": steps}) is not None
"""
    )
    done = run_python("-c", script, cache_module.__file__, folder, env={ENVIRONMENT_VARIABLE: str(folder)})
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert str(folder) in line


# ---- the usual place ------------------------------------------------------------------------------------------------


def test_the_environment_variable_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "one"))
    first = default_cache()
    assert default_cache() is first
    assert first.folder == ScheduleCache().folder == tmp_path / "one" / "schedules"
    first.put(PARAMETERS, VALUES)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "two"))
    assert default_cache() is not first
    assert default_cache().get(PARAMETERS) is None
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "one"))
    assert default_cache() is first
    assert names_in(tmp_path) == ["one"]


def test_relative_and_home_folders_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "relative")
    cache = default_cache()
    assert cache.folder == tmp_path / "relative" / "schedules"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, os.path.join("~", "mine"))
    assert ScheduleCache().folder == Path.home() / "mine" / "schedules"


@pytest.mark.parametrize("setting", [None, ""])
def test_otherwise_it_is_the_platforms_cache_folder(monkeypatch, setting):
    if setting is None:
        monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    else:
        monkeypatch.setenv(ENVIRONMENT_VARIABLE, setting)
    assert ScheduleCache().folder == Path(platformdirs.user_cache_dir("fewstep", appauthor=False)) / "schedules"


@pytest.mark.parametrize("missing", ["platformdirs", "home", "variable"])
def test_without_a_folder_memory_serves(monkeypatch, caplog, missing):
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, "~no-such-user-of-fewstep/x" if missing == "variable" else "")
    if missing == "platformdirs":
        monkeypatch.setitem(sys.modules, "platformdirs", None)
    elif missing == "home":
        monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *arguments, **options: "~/.cache/fewstep")
    cache = ScheduleCache()
    assert cache.folder is None
    assert cache.get(PARAMETERS) is None
    for _ in range(3):
        cache.put(PARAMETERS, VALUES)
    assert np.array_equal(cache.get(PARAMETERS), VALUES)
    (message,) = caplog.messages
    assert message.startswith("FewStep found no folder for its cache")


# ---- several at once ------------------------------------------------------------------------------------------------

# Child processes load the module from its file: without torch they start in a tenth of the time.
CHILD = """
import importlib.util, os, signal, sys, time
spec = importlib.util.spec_from_file_location("cache_of_child", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
ScheduleCache = module.ScheduleCache

def values_for(number):
    return [number + 1 / (index + 3) for index in range(5 + number % 90)]

def check(found, number):
    assert found is None or found.tolist() == values_for(number), (number, found)
    return found is not None
"""


@contextlib.contextmanager
def children(script, count, *arguments):
    """Processes that run `script` after all have started; whoever is left at the end is killed."""
    command = [sys.executable, "-c", CHILD + 'print("ready", flush=True); input()\n' + script, cache_module.__file__]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([*command, *map(str, arguments), str(index)], **pipes) for index in range(count)]
    try:
        for child in started:
            assert child.stdout.readline() == "ready\n", child.communicate()[1]
        for child in started:
            child.stdin.write("\n")
            child.stdin.flush()
        yield started
    finally:
        for child in started:
            child.kill()
            child.communicate()


def wait_for(started):
    for child in started:
        _, errors = child.communicate(timeout=300)
        assert child.returncode == 0 and not errors, errors


@pytest.mark.skipif(os.name == "nt", reason="Windows refuses to open a file at the moment of its replacement")
def test_readers_never_see_a_part_while_writers_replace_the_same_entries(tmp_path):
    script = """
writer = int(sys.argv[3]) % 2 == 0
for round in range(30):
    for number in range(10):
        cache = ScheduleCache(sys.argv[2])
        if writer:
            cache.put({"number": number}, values_for(number))
        assert check(cache.get({"number": number}), number), "An entry was absent or torn."
        assert check(ScheduleCache(sys.argv[2]).get({"number": number}), number), "An entry was absent or torn."
"""
    fill = "for number in range(10): ScheduleCache(sys.argv[2]).put({'number': number}, values_for(number))"
    with children(fill, 1, tmp_path) as started:
        wait_for(started)
    with children(script, 4, tmp_path) as started:
        wait_for(started)
    assert names_in(tmp_path) == sorted(file_of(tmp_path, {"number": number}).name for number in range(10))


def test_many_processes_with_many_entries_and_a_bound(tmp_path):
    script = """
import random
generator = random.Random(int(sys.argv[3]))
hits = 0
for round in range(250):
    number = generator.randrange(120)
    cache = ScheduleCache(sys.argv[2], max_entries=40)
    if check(cache.get({"number": number}), number):
        hits += 1
    else:
        cache.put({"number": number}, values_for(number))
assert hits > 20, hits
"""
    with children(script, 4, tmp_path / "new" / "folder") as started:
        wait_for(started)
    left = names_in(tmp_path / "new" / "folder")
    expected = {file_of(tmp_path, {"number": number}).name for number in range(120)}
    assert set(left) <= expected
    assert 20 <= len(left) <= 40


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_interrupts_leave_nothing_behind(tmp_path):
    script = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background inherits "ignored"
interrupts = number = 0
while interrupts < 60:
    try:
        print("go", flush=True)
        while True:
            number += 1
            ScheduleCache(sys.argv[2], max_entries=10).put({"number": number % 20}, values_for(number % 20))
    except KeyboardInterrupt:
        interrupts += 1
        left = [name for name in os.listdir(sys.argv[2]) if name.endswith(".tmp")]
        assert not left, left
signal.signal(signal.SIGINT, signal.SIG_IGN)
"""
    generator = random.Random(1)
    with children(script, 1, tmp_path) as (child,):
        # Only when the child has dealt with the last one: a second interrupt during the clean-up may leave a file.
        while child.stdout.readline() == "go\n":
            time.sleep(generator.uniform(0.0005, 0.01))
            child.send_signal(signal.SIGINT)
        wait_for([child])
    for number in range(20):
        path = file_of(tmp_path, {"number": number})
        assert path.exists() == (on_disk(tmp_path, {"number": number}) is not None)


def test_an_interrupt_during_a_write_reaches_the_caller_and_keeps_the_old_entry(cache, tmp_path, monkeypatch):
    cache.put(PARAMETERS, VALUES)

    def interrupted(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.put(PARAMETERS, [1.0])
    assert names_in(tmp_path) == [file_of(tmp_path, PARAMETERS).name]
    assert np.array_equal(on_disk(tmp_path, PARAMETERS), VALUES)


def test_killed_writers_leave_whole_entries_and_temporary_files_that_go(tmp_path):
    script = """
print("go", flush=True)
while True:
    for number in range(30):
        ScheduleCache(sys.argv[2]).put({"number": number}, values_for(number))
"""
    generator = random.Random(2)
    for _ in range(3):
        with children(script, 2, tmp_path) as started:
            for child in started:
                assert child.stdout.readline() == "go\n"
            time.sleep(generator.uniform(0.02, 0.1))
    for number in range(30):
        path = file_of(tmp_path, {"number": number})
        assert path.exists() == (on_disk(tmp_path, {"number": number}) is not None)
    for path in tmp_path.glob("*.tmp"):
        set_age(path, DAY)
    ScheduleCache(tmp_path).put(PARAMETERS, VALUES)
    assert not list(tmp_path.glob("*.tmp"))


def test_threads_share_one_cache(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_REMEMBERED", 5)
    problems = []

    def work(seed):
        try:
            generator = random.Random(seed)
            for _ in range(300):
                steps = generator.randrange(1, 15)
                found = cache.get(with_step(steps))
                if found is None:
                    cache.put(with_step(steps), np.full(steps, float(steps)))
                elif found.tolist() != [float(steps)] * steps:
                    problems.append(found)
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert set(names_in(tmp_path)) == {file_of(tmp_path, with_step(steps)).name for steps in range(1, 15)}


def test_importing_it_is_light(run_python):
    script = CHILD + 'heavy = {"platformdirs", "scipy", "torch"} & set(sys.modules)\nassert not heavy, heavy'
    done = run_python("-c", script, cache_module.__file__)
    assert done.returncode == 0, done.stderr
