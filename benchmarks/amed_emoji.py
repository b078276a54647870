"""Is AMED worth it on the emoji model? `python benchmarks/amed_emoji.py --out docs/bench.json [--keep FOLDER]`

Tables (the transformer has no bottleneck for a predictor) are fitted with forward passes on every second level of FewStep's steps from
s = 1, and compared with their plain solver on the same stamps, with UniPC on all those steps, and with FewStep's default, whose first step
needs no call. Results go to the part "amed" of the file of results of `fewstep bench`, on its seeds.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from fewstep.amed import train_amed
from fewstep.demo.amed_shipped import amed_setting, demo_config
from fewstep.demo.bench_measurement import Measurement
from fewstep.demo.bench_problems import problem
from fewstep.demo.bench_results import Results, about
from fewstep.demo.model import load_demo_model
from fewstep.demo.showcase import set_threads
from fewstep.fitting import Limit, Teacher
from fewstep.schedules import optimal_sigmas
from fewstep.solvers import SolverTable, build_table, few_step_table

FORMS = {"unipc2": "UniPC 2", "ipndm3": "iPNDM 3"}
FIRST_SEED = 2_500_000
TRAINED_ON, HELD_OUT, CALLS_PER_CALL = 32, 16, 60


def tables(cfg: float, calls: int) -> dict[str, SolverTable]:
    """All that is compared, by name."""
    model = load_demo_model("emoji")
    ns = model.noise_schedule
    found = {
        "FewStep's default (UniPC 2 after a jump)": few_step_table(ns, calls, model.structure, cfg),
        "UniPC 2 on optimized steps from s = 1": build_table("unipc", optimal_sigmas(ns, calls), ns.family, 2),
    }
    setting = amed_setting(model, cfg, TRAINED_ON + HELD_OUT, 16, first=FIRST_SEED)
    teacher = Teacher(setting).run().end_points
    for form, title in FORMS.items():
        config = demo_config(ns, form, calls)
        found[f"{title} on the same stamps, r = 0.5"] = config.plain_table()
        result = train_amed(
            setting, config, mode="table", method="forward", held_out=HELD_OUT, teacher=teacher, limit=Limit(calls=CALLS_PER_CALL * calls)
        )
        found[f"{title}, AMED table"] = result.net.solver_table()  # type: ignore[union-attr]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0])
    parser.add_argument("--calls", type=int, nargs="+", default=[5])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    set_threads()
    results = Results(args.out, about("python benchmarks/amed_emoji.py"))
    for cfg in args.cfg:
        measurement = Measurement(problem("emoji", args.seeds, cfg), cfg, args.keep)
        for calls in args.calls:
            for name, table in tables(cfg, calls).items():
                part = f"emoji/cfg {cfg:g}/{calls} calls/{name}"
                results.part(part, measurement.key(table), args.seeds, partial(measurement.score, table), "amed")
                print(f"{part}: {results.document['amed'][part]['rmse']}", flush=True)


if __name__ == "__main__":
    main()
