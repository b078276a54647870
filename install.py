"""Set FewStep up.

python install.py                      run by hosts: installs missing packages from requirements.txt
python install.py --demo [ARGUMENTS]   creates a private environment in .venv/ and runs `fewstep demo ARGUMENTS`
python install.py --test [ARGUMENTS]   the same with test tools and a ComfyUI; runs ruff, mypy and `pytest ARGUMENTS`

Standard library only, and nothing happens at import: hosts run this file with their own interpreter. Nothing of the
host is imported either (a `launch` module on the path parses command lines when imported). Only pip of the running
interpreter is used, with the user's own configuration.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
OLDEST_PYTHON = (3, 10)

# Files of pinned requirements per purpose, and how pip installs them. Testing includes the demo.
NEEDS = {
    "demo": (("requirements-demo.txt", ()), ("requirements-demo-nodeps.txt", ("--no-deps",))),
    "test": (("requirements-test.txt", ()), ("requirements-demo-nodeps.txt", ("--no-deps",))),
}
COVERS = {"demo": ("demo",), "test": ("test", "demo")}


class InstallError(Exception):
    """A failure, with sentences for the user: what went wrong and what to do."""


def say(text: str) -> None:
    # Flushed, because pip and pytest write to the same place from their own processes.
    print(f"FewStep: {text}", flush=True)


# --- Commands that may be interrupted ---------------------------------------------------------------------------------

PATIENCE = 20.0  # seconds that an interrupted command has to end by itself


class Stopped(KeyboardInterrupt):
    """One of the signals that ask a process to end; it ends what runs as Ctrl+C does."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def run_command(command: list[str], **options) -> int:
    """Run a command and return its exit code; when interrupted, leave it the time to stop what it started.

    `subprocess.run` would kill it a quarter of a second after Ctrl+C, and pytest's servers and browsers with nobody to
    stop them.
    """
    process = subprocess.Popen(command, **options)
    try:
        return process.wait()
    except KeyboardInterrupt as interruption:
        if isinstance(interruption, Stopped):
            press_ctrl_c(process)
        if process.poll() is None:
            say(f"waiting up to {PATIENCE:.0f} s for the running command to stop; press Ctrl+C again to end it at once.")
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                process.wait(PATIENCE)
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def press_ctrl_c(process: subprocess.Popen) -> None:
    """Do what a terminal does at Ctrl+C: it sends SIGINT to all that runs in it, other senders know this process only.

    The processes of pytest-xdist, say, would hear of it from their controller only after five seconds.
    """
    if not sys.platform.startswith("linux"):
        process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        return
    for number in descendants():
        with contextlib.suppress(OSError):  # it has just ended
            if os.getpgid(number) == os.getpgrp():
                os.kill(number, signal.SIGINT)


@contextlib.contextmanager
def nothing_left_running() -> Iterator[None]:
    """Let SIGTERM and SIGHUP interrupt what runs inside, and end all processes that are left of it afterwards."""

    def stop(number, _):
        raise Stopped(number)

    # Windows has no SIGHUP; nohup has it ignored, and so it stays.
    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    asked = [number for number in known if signal.getsignal(number) is signal.SIG_DFL]
    for number in asked:
        signal.signal(number, stop)
    adopts = adopt_orphans()
    try:
        yield
    finally:
        for number in (signal.SIGINT, *asked):
            signal.signal(number, signal.SIG_IGN)  # all that follows is the end, and it takes no time
        if adopts:
            end_descendants()


def adopt_orphans() -> bool:
    """Become the parent of descendants whose own parent has ended: else they could not be told from strangers."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        import ctypes

        set_child_subreaper = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h
        return ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0) == 0
    except (ImportError, OSError, AttributeError):
        return False


def descendants() -> list[int]:
    """Return the process numbers of children, their children and so on, from Linux's /proc."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            # The program's name, in parentheses, may hold anything; state and parent follow it.
            parent = (folder / "stat").read_bytes().rpartition(b")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(folder.name))
    found = [os.getpid()]
    for number in found:
        found += children.get(number, [])
    return found[1:]


def end_descendants(limit: float = 10.0) -> None:
    """Kill every descendant, and those that they start meanwhile, until there is none or `limit` seconds are over."""
    deadline = time.monotonic() + limit
    while (left := descendants()) and time.monotonic() < deadline:
        for number in left:
            with contextlib.suppress(OSError):  # it has ended, or belongs to another user
                os.kill(number, signal.SIGKILL)
        # Those that have ended count until their parent, this process at last, has taken note of it.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)
    if left:
        say(f"these processes could not be ended: {', '.join(map(str, left))}. `ps` shows what they are.")


# --- The hosts' install hook ------------------------------------------------------------------------------------------

# The host owns these: their builds match its hardware, and pip would replace them by others.
NEVER_INSTALLED = {"torch", "torchvision", "torchaudio"}
REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*?)\s*(?:>=\s*([0-9]+(?:\.[0-9]+)*))?")
PLAIN_VERSION = re.compile(
    r"[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.post[0-9]+)?(\.dev[0-9]+)?(\+[a-z0-9]+(\.[a-z0-9]+)*)?"
)
UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectTimeout|ProxyError|Cannot connect to proxy|Failed to establish a new connection"
    r"|Temporary failure in name resolution|Network is unreachable"
)


def read_requirements(path: Path) -> list[tuple[str, str]]:
    """Return `(name, lowest version or "")` for every line of a file that holds only `name` and `name>=version`."""
    requirements = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if not text:
            continue
        match = REQUIREMENT.fullmatch(text)
        if not match:
            raise InstallError(
                f"{path.name} has the line {text!r}; the install hook only understands lines of the form 'name' or "
                "'name>=1.2'. Restore the file from the repository."
            )
        requirements.append((match[1], match[2] or ""))
    return requirements


def release(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, enough to compare with a plain lower bound; 1.26.0rc1 counts as 1.26."""
    numbers = [int(part) for part in re.match(r"[0-9]*(?:\.[0-9]+)*", version)[0].split(".") if part]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def installed_version(name: str) -> str | None:
    importlib.invalidate_caches()
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def wanted_from_pip(name: str, lowest: str) -> str | None:
    """Return what to ask pip for, or None where the requirement is met.

    A package that is too old is raised within its major version where the bound allows that: a host that brings
    numpy 1 has other plugins compiled against numpy 1.
    """
    version = installed_version(name)
    if version is not None and release(version) >= release(lowest):
        return None
    bound = f"{name}>={lowest}" if lowest else name
    if version is not None and release(version)[:1] == release(lowest)[:1]:
        bound += f",<{release(version)[0] + 1}"
    return bound


def installed_as_constraints(except_for: set[str]) -> list[str]:
    """Return a constraint line for every installed package, so that pip adds packages but changes none.

    Without them a missing scipy could bring the newest scipy and, with it, another numpy than the host's.
    """
    lines = {}
    for distribution in metadata.distributions():
        name, version = distribution.metadata["Name"], distribution.version
        # The first one found is the one that Python imports. Versions that pip cannot read would make it refuse.
        if name and version and name.lower() not in lines and PLAIN_VERSION.fullmatch(version):
            lines[name.lower()] = f"{name}=={version}"
    return sorted(line for name, line in lines.items() if name not in except_for)


def why_pip_failed(output: str) -> str:
    if UNREACHABLE.search(output):
        return "the package registry could not be reached"
    if unknown := re.search(r"requirement (\S+).* \(from versions: none\)", output):
        return f"pip found no version of {unknown[1]} at all, so the package registry may be out of reach"
    if "No module named pip" in output:
        return "this Python has no pip"
    reasons = re.findall(r"^\s*error: *(.+)$", output, re.MULTILINE | re.IGNORECASE)[:1]
    # Here pip names the cause in the lines below its error.
    conflict = re.search(r"The conflict is caused by:\n((?: +.+\n)+)", output)
    if conflict:
        reasons += [line.strip() for line in conflict[1].splitlines()]
    return f"pip said: {'; '.join(reasons).rstrip('.')}" if reasons else "pip gave no reason"


def install_into_host() -> None:
    """Install what requirements.txt asks for and the running interpreter lacks; say what was done."""
    requirements = [r for r in read_requirements(ROOT / "requirements.txt") if r[0].lower() not in NEVER_INSTALLED]
    wanted = {name: text for name, lowest in requirements if (text := wanted_from_pip(name, lowest))}
    if not wanted:
        found = ", ".join(f"{name} {installed_version(name)}" for name, _ in requirements)
        say(f"nothing to install, all requirements are met ({found}).")
        return
    say(f"installing {', '.join(wanted.values())} ...")
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "installed.txt")
        constraints.write_text("\n".join(installed_as_constraints({name.lower() for name in wanted})), encoding="utf-8")
        # A host that ignores packages in the user's home must not find them satisfying its plugins.
        flags = ["-s"] if sys.flags.no_user_site else []
        pip = [sys.executable, *flags, "-m", "pip", "install", "--no-input", "--prefer-binary"]
        command = [*pip, "-c", str(constraints), *wanted.values()]
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if result.returncode:
        why = why_pip_failed(result.stdout + result.stderr)
        raise InstallError(
            f"could not install {', '.join(wanted.values())} into {sys.executable} beside the packages it already has: "
            f"{why}. Install them by hand, or fix the cause and run this again; until then FewStep may not load."
        )
    say(f"installed {', '.join(f'{name} {installed_version(name)}' for name in wanted)}; nothing else was changed.")


# --- The private environment of --demo and --test ---------------------------------------------------------------------


class Environment:
    """An ordinary virtual environment in `.venv/`."""

    kind = "virtual environment"

    @property
    def python(self) -> Path:
        return ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def module(self, name: str, *arguments: str) -> list[str]:
        """Return the command for `python -m name arguments` inside the environment."""
        return [str(self.python), "-m", name, *arguments]

    def variables(self) -> dict[str, str]:
        return dict(os.environ)

    def version(self) -> str:
        """Return the Python version, or "" where the environment does not run or has no pip."""
        try:
            check = [str(self.python), "-c", "import pip, sys; print(sys.version)"]
            result = subprocess.run(check, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
        except OSError:
            return ""
        return result.stdout.strip() if result.returncode == 0 else ""

    def create(self) -> None:
        say(f"creating a virtual environment in {ENVIRONMENT} ...")
        run([sys.executable, "-m", "venv", str(ENVIRONMENT)], "the virtual environment could not be created")

    def pip(self, *arguments: str) -> list[str]:
        return self.module("pip", "install", "--no-warn-conflicts", *arguments)

    def add_this_package(self) -> None:
        say("installing fewstep from this folder ...")
        # setuptools is among the pinned needs: nothing more has to be downloaded to build.
        command = self.pip("--no-deps", "--no-build-isolation", "-e", str(ROOT))
        run(command, "the package itself could not be installed")


class TargetFolder(Environment):
    """A folder of packages for Pythons without `venv`, such as the embedded ones that portable hosts ship.

    Those also ignore PYTHONPATH, so the folder is put on `sys.path` by the command itself; the variable is for the
    processes that tests start.
    """

    kind = "folder of packages"
    site = ENVIRONMENT / "site"
    RUN_MODULE = (
        "import sys, runpy; sys.path[:0] = [sys.argv.pop(1), sys.argv.pop(1)]; name = sys.argv.pop(1); "
        "runpy.run_module(name, run_name='__main__', alter_sys=True)"
    )
    python = Path(sys.executable)

    def module(self, name: str, *arguments: str) -> list[str]:
        return [sys.executable, "-c", self.RUN_MODULE, str(self.site), str(LINKS), name, *arguments]

    def variables(self) -> dict[str, str]:
        paths = [str(self.site), str(LINKS), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def version(self) -> str:
        return super().version() if self.site.is_dir() else ""

    def create(self) -> None:
        say(
            f"this Python ({sys.executable}) has no venv module, so packages go into the folder {self.site} instead of "
            "a virtual environment."
        )
        self.site.mkdir(parents=True)
        if not super().version():
            raise InstallError(
                f"{sys.executable} has neither venv nor pip, so nothing can be installed with it. Add one of them "
                "(Debian and Ubuntu: apt-get install python3-venv) or use another Python 3.10 or newer."
            )

    def pip(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "pip", "install", "--target", str(self.site), *arguments]

    def add_this_package(self) -> None:
        """Leave it to the link in LINKS: pip cannot combine --target with an editable install."""


# Holds one link named `fewstep` to this folder. mypy needs it to know the package under its own name whatever the
# folder is called, and TargetFolder to import it.
LINKS = ENVIRONMENT / "links"
STATE = ENVIRONMENT / "fewstep-install.json"


def has_venv() -> bool:
    """Try rather than look up: Debian ships `venv` without the `ensurepip` that makes it work."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return False
    return True


def run(command: list[str], problem: str, **options) -> None:
    code = run_command(command, **options)
    if code:
        raise InstallError(
            f"{problem}: the command `{' '.join(command[:6])} ...` ended with code {code}; its own message is above. "
            "Check the network connection and the free disk space, then run the same command again; it continues from "
            f"there. (Pinned versions exist for Python 3.10 to 3.14; this is {sys.version.split()[0]}.)"
        )


def requirement_lines(name: str) -> str:
    """Return the text of a requirements file and of the files it includes."""
    text = (ROOT / name).read_text(encoding="utf-8")
    included = re.findall(r"^-r +(\S+)", text, re.MULTILINE)
    return text + "".join(requirement_lines(other) for other in included)


def fingerprint(purpose: str, environment: Environment) -> str:
    """Return a digest of all that decides what the environment must contain.

    The folder's own path is part of it, because the installed package points there.
    """
    parts = [environment.kind, environment.version(), str(ROOT)]
    parts += [requirement_lines(name) for name, _ in NEEDS[purpose]]
    parts += [(ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "setup.py")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_state() -> dict:
    try:
        state = json.loads(STATE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(state: dict) -> None:
    temporary = STATE.with_suffix(".tmp")
    temporary.write_text(json.dumps(state), encoding="utf-8")
    os.replace(temporary, STATE)


def remove_environment(reason: str) -> None:
    if Path(sys.prefix).resolve() == ENVIRONMENT.resolve():
        raise InstallError(
            f"the environment in {ENVIRONMENT} must be recreated ({reason}), which is impossible while its own Python runs "
            "this command. Run the same command with the Python that FewStep was set up with."
        )
    say(f"recreating {ENVIRONMENT}: {reason}.")
    shutil.rmtree(ENVIRONMENT)


def link_this_folder() -> None:
    """Make `.venv/links/fewstep` lead to this folder."""
    link = LINKS / "fewstep"
    LINKS.mkdir(parents=True, exist_ok=True)
    if link.exists() and link.resolve() == ROOT:
        return
    if link.is_symlink():
        link.unlink()
    if os.name == "nt":
        import _winapi  # a junction needs no privilege on Windows, a symbolic link does

        _winapi.CreateJunction(str(ROOT), str(link))
    else:
        link.symlink_to(ROOT, target_is_directory=True)


def prepare(purpose: str) -> Environment:
    """Return an environment with everything that `purpose` ("demo" or "test") needs, making or completing it."""
    started = time.monotonic()
    environment = Environment() if has_venv() or Environment().version() else TargetFolder()
    state = read_state()
    version = environment.version()
    if version and state.get(purpose) == fingerprint(purpose, environment):
        link_this_folder()
        return environment

    if ENVIRONMENT.exists() or ENVIRONMENT.is_symlink():
        if state.get("installing"):
            # Nobody can tell which files pip had written by then. What it had downloaded is in its cache.
            remove_environment("an earlier installation was interrupted")
        elif not version:
            remove_environment("it is incomplete")
        elif isinstance(environment, TargetFolder):
            remove_environment("its packages do not match the current requirements, and pip cannot replace packages in a folder")
    say(f"installing what `{purpose}` needs (about 1.5 GB, a few minutes; the next run takes seconds).")
    if not ENVIRONMENT.exists():
        environment.create()
    write_state({"installing": True})
    try:
        for file, options in NEEDS[purpose]:
            say(f"installing {file} ...")
            run(environment.pip(*options, "-r", str(ROOT / file)), f"{file} could not be installed")
        environment.add_this_package()
        link_this_folder()
    except InstallError:
        write_state({})  # pip ended by itself and left nothing half written: the next run may build on it
        raise
    write_state({"installing": False, **{name: fingerprint(name, environment) for name in COVERS[purpose]}})
    say(f"ready after {time.monotonic() - started:.0f} s.")
    return environment


def prepare_hosts(environment: Environment) -> None:
    """Have the hosts that tests run against fetched; each script is quick where nothing is to do."""
    for script in sorted(ROOT.glob("tests/host/get_*.py")):
        run([str(environment.python), str(script)], "a host for the tests could not be installed")


# --- Debian packages of tests -----------------------------------------------------------------------------------------


def install_debian_packages() -> None:
    """Install what apt-packages.txt lists and the system lacks, where this user may; otherwise say what to do."""
    path = ROOT / "apt-packages.txt"
    if not path.exists():
        return
    names = [name for line in path.read_text(encoding="utf-8").splitlines() if (name := line.split("#")[0].strip())]
    skipped = "the tests that need them are skipped"
    if not shutil.which("dpkg-query") or not shutil.which("apt-get"):
        say(f"this system has no apt-get for the packages {', '.join(names)} (Debian's names); {skipped}.")
        return
    missing = [name for name in names if not debian_package_is_installed(name)]
    if not missing:
        return
    may = ["sudo", "-n"] if os.geteuid() else []
    if may and (not shutil.which("sudo") or subprocess.run([*may, "true"], check=False).returncode):
        say(
            f"missing Debian packages: {', '.join(missing)}, which this user may not install; {skipped}. "
            f"To run them: apt-get install {' '.join(missing)}"
        )
        return
    say(f"installing Debian packages: {', '.join(missing)} ...")
    quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "stdin": subprocess.DEVNULL}
    run([*may, "apt-get", "update", "-q"], "the lists of Debian packages could not be updated", **quiet)
    install = [*may, "apt-get", "install", "-q", "-y", "--no-install-recommends", *missing]
    run(install, "Debian packages could not be installed", **quiet)


def debian_package_is_installed(name: str) -> bool:
    query = ["dpkg-query", "-W", "-f", "${Status}", name]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout == "install ok installed"


# --- Commands ---------------------------------------------------------------------------------------------------------


def demo(arguments: list[str]) -> int:
    environment = prepare("demo")
    command = environment.module("fewstep.cli", "demo", *arguments)
    return run_command(command, env=environment.variables())


def test(arguments: list[str]) -> int:
    """Run the linter, the type check and the tests; all three, so that one run shows every problem."""
    with nothing_left_running():
        return check_everything(arguments)


def check_everything(arguments: list[str]) -> int:
    environment = prepare("test")
    install_debian_packages()
    prepare_hosts(environment)
    variables = environment.variables()
    # Test tensors are small: handing them to a second thread costs more than it brings, and on a busy machine far more.
    variables.setdefault("OMP_NUM_THREADS", "1")
    # Tests start Python some hundred times, and without bytecode each would compile the package anew.
    variables["PYTHONDONTWRITEBYTECODE"] = ""

    def check(name: str, *options: str) -> int:
        say(f"running {name} ...")
        code = run_command(environment.module(name, *options), cwd=ROOT, env=variables)
        if code < 0:
            say(f"{name} was killed by {signal.Signals(-code).name}, so it could not finish.")
        return code if code >= 0 else 128 - code  # as shells say it

    failed = [name for name, options in (("ruff", ("check", ".")), ("mypy", ())) if check(name, *options)]
    if failed:
        say(f"{' and '.join(failed)} found problems (see above), so the exit code will not be 0 even if the tests pass.")
    return check("pytest", *processes(arguments), *arguments) or int(bool(failed))


def processes(arguments: list[str]) -> list[str]:
    """Options for pytest: two processes that share the tests as tests/two_processes.py says, unless the arguments decide or choose."""
    return [] if arguments or (os.cpu_count() or 1) < 2 else ["-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder"]


def main(arguments: list[str]) -> int:
    commands = {"--demo": demo, "--test": test}
    try:
        if sys.version_info < OLDEST_PYTHON:
            raise InstallError(f"Python 3.10 or newer is needed; {sys.executable} is {sys.version.split()[0]}.")
        if not arguments:
            install_into_host()
            return 0
        first, rest = arguments[0], arguments[1:]
        if first in ("-h", "--help"):
            print(__doc__)
            return 0
        if first not in commands:
            raise InstallError(f"unknown argument {first!r}. Use --demo, --test, --help, or no argument (as hosts run it).")
        return commands[first](rest[1:] if rest[:1] == ["--"] else rest)
    except InstallError as problem:
        print(f"FewStep: {problem}", file=sys.stderr)
    except OSError as problem:
        print(f"FewStep: a file could not be read or written: {problem}. The command stopped there.", file=sys.stderr)
    except KeyboardInterrupt as interruption:
        number = interruption.number if isinstance(interruption, Stopped) else signal.SIGINT
        how = f"stopped by {signal.Signals(number).name}" if number != signal.SIGINT else "interrupted"
        print(f"FewStep: {how}. Run the same command again; it cleans up what was left incomplete.", file=sys.stderr)
        return 128 + number
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
