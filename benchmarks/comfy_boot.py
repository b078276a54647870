"""What FewStep adds to ComfyUI's start.

    python benchmarks/comfy_boot.py [--runs 7] [--boots 3] [--json]

First in one process each: the host's own imports, then the time that it takes to load the pack (wall clock and processor; the clock is
the host's own way of counting, the processor's is the one that a busy machine does not change). Then whole boots until the server
answers, with and without the pack in turn. Exit code 1 when the median share is above the bar. `install.py --test` sets the host up;
FEWSTEP_COMFYUI_DIR names another one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/host"))

from comfyui import HOST, Comfy, make_base, variables  # noqa: E402

BAR = 0.300  # seconds

LOAD = """
import asyncio, json, sys, time
sys.path.insert(0, {comfyui!r})
import comfy.options
comfy.options.enable_args_parsing(False)
from comfy.cli_args import args
args.cpu, args.base_directory = True, {base!r}
import utils.extra_config, nodes, server, execution
asyncio.run(nodes.init_builtin_extra_nodes())  # what the pack shares with the host's own nodes is paid for by then
wall, processor = time.perf_counter(), time.process_time()
loaded = asyncio.run(nodes.load_custom_node({pack!r}))
wall, processor = time.perf_counter() - wall, time.process_time() - processor
ours = [name for name in nodes.NODE_CLASS_MAPPINGS if name.startswith("FewStep")]
print("TOLD:" + json.dumps([loaded, len(ours), wall, processor]))
"""


def load_time() -> tuple[float, float]:
    """Return wall clock and processor seconds of loading the pack in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        make_base(base, [ROOT])
        code = LOAD.format(comfyui=str(HOST.comfyui), base=folder, pack=str(base / "custom_nodes/fewstep"))
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=HOST.comfyui, env=variables(), capture_output=True, text=True, check=False
        )
    lines = [line.removeprefix("TOLD:") for line in result.stdout.splitlines() if line.startswith("TOLD:")]
    if result.returncode or not lines:
        raise SystemExit(f"The host did not load the pack:\n{result.stdout}{result.stderr}")
    loaded, count, wall, processor = json.loads(lines[-1])
    if not loaded or not count:
        raise SystemExit(f"The host loaded no node of the pack:\n{result.stderr}")
    return wall, processor


def boot_time(packs: list[Path]) -> float:
    with tempfile.TemporaryDirectory() as folder, Comfy(Path(folder), packs) as server:
        return server.boot_seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="processes that load the pack")
    parser.add_argument("--boots", type=int, default=3, help="whole boots with and without it; 0 leaves them out")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if HOST.problem:
        raise SystemExit(HOST.problem)
    load_time()  # the first may have to compile
    walls, processors = zip(*(load_time() for _ in range(options.runs)), strict=True)
    boots = [(boot_time([]), boot_time([ROOT])) for _ in range(options.boots)]
    found = {
        "comfyui": HOST.version,
        "load_wall_s": statistics.median(walls),
        "load_processor_s": statistics.median(processors),
        "boot_without_s": statistics.median(b[0] for b in boots) if boots else None,
        "boot_with_s": statistics.median(b[1] for b in boots) if boots else None,
        "bar_s": BAR,
    }
    if options.json:
        print(json.dumps(found))
    else:
        print(f"ComfyUI {HOST.version}")
        print(f"loading the pack   {1000 * found['load_wall_s']:4.0f} ms (processor {1000 * found['load_processor_s']:.0f} ms), "
              f"median of {options.runs}, {1000 * min(walls):.0f} to {1000 * max(walls):.0f} ms; bar {1000 * BAR:.0f} ms")  # fmt: skip
        if boots:
            print(f"boot without it    {found['boot_without_s']:.2f} s\nboot with it       {found['boot_with_s']:.2f} s, "
                  f"medians of {options.boots}")  # fmt: skip
    return int(found["load_wall_s"] > BAR)


if __name__ == "__main__":
    raise SystemExit(main())
