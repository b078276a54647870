"""Programs of `in_host` do not notice that they are forked from one process."""

from __future__ import annotations

import os
import subprocess

import pytest


def run(warm_host, program: str, limit: float = 60, **environment: str):
    return warm_host.run(program, {**os.environ, **environment}, limit)


def test_a_program_has_its_own_variables_modules_and_output(warm_host):
    imports = "import os, sys, comfy.samplers as host\n"
    result = run(warm_host, imports + "host.own = 1\nprint(os.environ['FEWSTEP_OWN'])\nprint('b', file=sys.stderr)", FEWSTEP_OWN="a")
    assert (result.returncode, result.stdout, result.stderr) == (0, "a\n", "b\n")
    again = run(warm_host, imports + "print(hasattr(host, 'own'), 'FEWSTEP_OWN' in os.environ, __name__)")
    assert again.stdout == "False False __main__\n"


def test_a_program_that_fails_says_why(warm_host):
    failed = run(warm_host, "def f():\n    raise KeyError('gone')\nf()")
    assert failed.returncode == 1 and failed.stderr.endswith("KeyError: 'gone'\n") and "Traceback" in failed.stderr
    assert run(warm_host, "import sys; sys.exit(7)").returncode == 7
    ended = run(warm_host, "import sys; sys.exit('no')")
    assert (ended.returncode, ended.stderr) == (1, "no\n")
    assert run(warm_host, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)").returncode != 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_program_that_does_not_end_is_ended(warm_host):
    parent = int(run(warm_host, "import os; print(os.getppid())").stdout)
    with pytest.raises(subprocess.TimeoutExpired):
        run(warm_host, "import time; time.sleep(60)", limit=0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(parent, 0)
    assert warm_host.process is None, "the next program starts anew"
