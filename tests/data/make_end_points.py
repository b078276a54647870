"""Writes end_points.json: where every solver, shipped file and short fit ends today, for test_end_points.py to compare with.

    python tests/data/make_end_points.py

Run it where results are meant to change, and say in the commit which of them did; it names them itself. It takes half a minute.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

FILE = Path(__file__).with_name("end_points.json")
ROOT = FILE.parents[2]
sys.path.insert(0, str(ROOT))  # for the modules of the tests


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["FEWSTEP_CACHE_DIR"] = cache  # read when the package is imported
        import torch

        from tests.end_points import GROUPS
        from tests.records import THREADS, changed, dumped, environment, loaded, recorded

        torch.set_num_threads(THREADS)
        before = loaded(FILE)[1] if FILE.exists() else {}
        here = environment()
        groups = {}
        for name, group in GROUPS.items():
            groups[name] = recorded(group.arrays())
            print(f"{name}: {len(groups[name])} end points", flush=True)
        FILE.write_text(dumped(here, groups), encoding="utf-8")
    for name in groups:
        for line in changed(before.get(name, {}), groups[name], tolerance=0.0, bits=True):
            print(f"{name}: {line}")
    print(f"{sum(map(len, groups.values()))} end points of {len(groups)} groups; {json.dumps(here)}")


if __name__ == "__main__":
    main()
