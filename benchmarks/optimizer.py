"""Speed and quality of the step optimizer: `python benchmarks/optimizer.py [--trust-constr 5 8 15] [--json]`.

For the Stable Diffusion schedule, p = 2, trunc = 3, no minimum increment, one thread, nothing cached. `median` is over repeated
runs. `trust-constr` runs the paper's optimiser from uniform t and uniform half-log-SNR (seconds each), and `ratio` is its time over
ours. Wanted: N = 5..15 at most 50 ms, N = 50 at most 1 s, objective never above trust-constr's, N = 8 within 1e-4 of 6.2041 and N =
15 of 3.6350.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import statistics
import time

import numpy as np

from fewstep.schedules import NoiseSchedule, optimize_released_objective
from fewstep.schedules.optimize import starting_nodes

KNOWN = {8: 6.2041, 15: 3.6350}
REPEATS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trust-constr", type=int, nargs="*", default=[5, 8], metavar="N")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    ns = NoiseSchedule.preset("sd15")
    ends = float(ns.lambda_of(ns.sigma_max)), float(ns.lambda_of(ns.sigma_min))

    def time_of(lambdas: np.ndarray) -> np.ndarray:
        return ns.t_of(np.clip(ns.sigma_of(lambdas), ns.sigma_min, ns.sigma_max))

    rows = []
    for steps in (*range(5, 16), 50):
        seconds = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            _, value = optimize_released_objective(*ends, steps, 2, 3, t_of_lambda=time_of)
            seconds.append(time.perf_counter() - began)
        row = {
            "steps": steps,
            "median_ms": 1e3 * statistics.median(seconds),
            "limit_ms": 1000.0 if steps == 50 else 50.0,
            "objective": value,
            "known": KNOWN.get(steps),
        }
        if steps in args.trust_constr:
            for init in ("uniform_t", "uniform_lambda"):
                start = starting_nodes(init, *ends, steps, time_of)
                began = time.perf_counter()
                _, theirs = optimize_released_objective(*ends, steps, 2, 3, init=start, method="trust-constr")
                row[f"trust-constr from {init}"] = {
                    "objective": theirs,
                    "ratio": (time.perf_counter() - began) / statistics.median(seconds),
                }
        rows.append(row)
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'N':>3} {'median':>9} {'limit':>8} {'objective':>10}  remarks")
    for row in rows:
        remarks = [f"known optimum {row['known']}"] if row["known"] else []
        remarks += [
            f"{key}: {value['objective']:.4f}, {value['ratio']:.0f}x the time" for key, value in row.items() if isinstance(value, dict)
        ]
        print(f"{row['steps']:>3} {row['median_ms']:6.1f} ms {row['limit_ms']:5.0f} ms {row['objective']:10.4f}  {'; '.join(remarks)}")


if __name__ == "__main__":
    main()
