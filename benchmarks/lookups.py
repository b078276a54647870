"""How long an optimized list takes where nothing is optimised: `python benchmarks/lookups.py`.

"first preset" is the first call in a new process, reading the shipped file included (best of several processes); "cache hit" reads
the entry from disk, "in memory" finds it in the process. Wanted: preset at most 5 ms, hit at most 2 ms. "computed" is the same list
with cache=False.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

FIRST = """
import time
from fewstep.schedules import NoiseSchedule, optimal_sigmas
import fewstep.solvers
ns = NoiseSchedule.preset("sd15")
began = time.perf_counter()
optimal_sigmas(ns, 8)
print(time.perf_counter() - began)
"""


def _median(call: Callable[[], object], repeats: int = 200, before: Callable[[], object] = lambda: None) -> float:
    seconds = []
    for _ in range(repeats):
        before()
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FEWSTEP_CACHE_DIR"] = folder
        from fewstep.schedules import NoiseSchedule, optimal_sigmas
        from fewstep.schedules.cache import default_cache

        ns = NoiseSchedule.preset("sd15")
        first = min(float(subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, check=True).stdout) for _
        in range(5))
        optimal_sigmas(ns, 8, p=1.234)
        rows = {
            "first preset": first,
            "preset": _median(lambda: optimal_sigmas(ns, 8)),
            "cache hit, from disk": _median(lambda: optimal_sigmas(ns, 8, p=1.234), before=default_cache()._memory.clear),
            "cache hit, in memory": _median(lambda: optimal_sigmas(ns, 8, p=1.234)),
            "computed": _median(lambda: optimal_sigmas(ns, 8, cache=False), repeats=20),
        }
    for name, seconds in rows.items():
        print(f"{name:<22} {1e3 * seconds:8.3f} ms")


if __name__ == "__main__":
    main()
