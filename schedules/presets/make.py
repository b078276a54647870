"""Write `optimal_nodes.json`: `python -m fewstep.schedules.presets.make`.

All model families in `model_families.PRESETS`, 1 to 20 steps: the default bound, and the paper's with orders 1 to 3 (every solver's
own order is one of these); and the lists for FewStep's own samplers (`few_step_sigmas`) for latents of a megapixel.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from ..first_level import few_step_problem, structure_scale
from ..model_families import PRESETS
from ..noise import NoiseSchedule
from ..optimal import Problem, make_problem
from . import FILE_FORMAT, PRESET_FILE, group_key, preset_nodes

MOST_STEPS = 20
ORDERS = (1, 2, 3)
STRUCTURE = structure_scale((4, 128, 128), 1.0)


def preset_problems() -> Iterator[Problem]:
    """Every problem of the file, once: families with the same range share the nodes."""
    seen = set()
    for name in PRESETS:
        ns = NoiseSchedule.preset(name)
        counts = range(1, MOST_STEPS + 1)
        problems = [make_problem(ns, steps, bound_order=bound_order) for bound_order in (None, *ORDERS) for steps in counts]
        for problem in (*problems, *(few_step_problem(ns, steps, STRUCTURE) for steps in counts)):
            if problem not in seen:
                seen.add(problem)
                yield problem


def write(target: Path, progress: Callable[[str], None] = print) -> int:
    """Compute the nodes that do not ship yet, write the file atomically, and return its number of lists."""
    groups: dict[str, dict] = {}
    count = 0
    for problem in preset_problems():
        parameters = problem.parameters()
        steps = parameters.pop("steps")
        group = groups.setdefault(group_key(parameters), {"parameters": parameters, "nodes": {}})
        shipped = preset_nodes(problem.parameters())  # which other pictures were made with
        group["nodes"][str(steps)] = (problem.solve() if shipped is None else shipped).tolist()
        count += 1
        if steps == MOST_STEPS:
            progress(f"{count} lists: {problem.bound} {problem.lambda_start}..{problem.lambda_end} order {problem.order}")
    lines = ",\n".join(json.dumps(group, separators=(",", ":")) for group in groups.values())
    temporary = target.with_suffix(".part")
    temporary.write_text(f'{{"format":"{FILE_FORMAT}","groups":[\n{lines}\n]}}\n', encoding="utf-8")
    os.replace(temporary, target)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PRESET_FILE)
    args = parser.parse_args()
    count = write(args.out)
    print(f"{count} lists written to {args.out}, {args.out.stat().st_size / 1024:.0f} KiB.")


if __name__ == "__main__":
    main()
