"""Makes the AMED predictors and tables that ship with the demo model: `python -m fewstep.demo.make_amed --cache FOLDER`.

Tables come first, fitted with forward passes; a predictor then starts from the table of its form and learns, with gradients through all
steps, what its features are worth. The best on held-out seeds goes to the guard: on seeds that neither training nor the choice has seen, it
must have a smaller error than its own plain solver (c = 1, a = 1, and r = 0.5 or the values that give the list whose every second level is
a stamp); otherwise the plain solver is saved, and the file says so. Each file is written when it is finished. Existing files (for this
network, guidance and number of trajectories) are not made again; with --cache, interrupted teacher passes and trainings are resumed.
"""
from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..amed import AmedConfig, AmedPredictor, AmedTable, load_amed, save_amed, train_amed
from ..amed.joint import candidate, constants_on
from ..amed.training import AmedTraining
from ..amed.warm_start import begin_with
from ..fitting import Candidate, Ending, Interrupted, Limit, Setting, Teacher, compare
from ..fitting.progress import staged
from ..recipes import model_identity
from .amed_shipped import (
    AMED_CFG,
    AMED_FAMILY,
    AMED_FOLDER,
    AMED_NFES,
    FIRST_AMED_SEED,
    FORM_SCHEDULES,
    PREDICTOR_FORMS,
    PREDICTOR_NFES,
    TABLE_FORMS,
    Kind,
    amed_file,
    amed_setting,
    demo_config,
    schedule_levels,
)  # fmt: skip
from .calibration import model_facts, recognised
from .making import run_maker
from .model import DemoModel, load_demo_model
from .stage_bar import StageBar

TRAJECTORIES = 10_000
TABLE_SEEDS, TABLE_BATCH = 96, 48
CALLS_PER_CALL = 60
"""Limit of a table's fit: calls on a batch per model call of the table."""

_TEACHER_BATCH = 50
TEACHER_STEPS, EXACT_STEPS = 20, 64
HELD_OUT, GUARD = 96, 192
_FIRST_HELD_OUT, _FIRST_GUARD = 100_000, 200_000  # after the first seed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=TRAJECTORIES, help="images to train a predictor on (default 10000)")
    parser.add_argument("--tables", nargs="*", default=list(TABLE_FORMS), metavar="FORM")
    parser.add_argument("--predictors", nargs="*", default=list(PREDICTOR_FORMS), metavar="FORM")
    parser.add_argument("--nfe", nargs="+", type=int, default=list(AMED_NFES), help="predictors are made for 5 and 9 of these")
    parser.add_argument("--schedule", help="schedule whose every second level is a time stamp (default: that of FORM_SCHEDULES)")
    parser.add_argument("--batch", type=int, default=25, help="images per optimisation step of a predictor (default 25)")
    return run_maker(parser, arguments, AMED_FOLDER, _make)


def _make(args: argparse.Namespace, bar: StageBar) -> None:
    with tempfile.TemporaryDirectory() as nowhere:
        maker = _Maker(args, args.cache or Path(nowhere), bar)
        for nfe in sorted(args.nfe, key=lambda nfe: (nfe != 5, nfe)):
            for form in args.tables:
                maker.table(form, nfe)
            for form in args.predictors if nfe in PREDICTOR_NFES else ():
                maker.predictor(form, nfe)


class _Maker:
    def __init__(self, args: argparse.Namespace, cache: Path, bar: StageBar) -> None:
        self.args, self.cache, self.bar = args, cache, bar
        self.model: DemoModel = load_demo_model(AMED_FAMILY, args.device)
        self.identity = model_identity(self.model.network)
        self.held, self.guard = self.seeds(_FIRST_HELD_OUT, HELD_OUT), self.seeds(_FIRST_GUARD, GUARD)

    def seeds(self, first: int, count: int, batch: int = _TEACHER_BATCH) -> Setting:
        """Images from seed `first` of AMED's own on."""
        return amed_setting(self.model, AMED_CFG, count, batch, self.args.device, FIRST_AMED_SEED + first)

    def targets(self, first: int, count: int, steps: int) -> Tensor:
        """End points of these seeds."""
        return Teacher(self.seeds(first, count), steps, folder=self.cache).run(staged(self.bar, "teacher")).end_points

    def made(self, kind: Kind, form: str, nfe: int, trajectories: int) -> AmedPredictor | AmedTable | None:
        """A file that was made before for this model, guidance, schedule and number of trajectories."""
        try:
            net = load_amed(amed_file(kind, form, nfe, self.args.out))
        except ValueError:  # not there, or damaged
            return None
        facts = (net.facts.get("cfg"), net.facts.get("model_identity"), net.facts.get("trajectories"), net.facts.get("schedule"))
        return net if facts == (AMED_CFG, self.identity, trajectories, self.schedule(form)) else None

    def schedule(self, form: str) -> str:
        """The schedule whose every second level is a stamp."""
        return self.args.schedule or FORM_SCHEDULES.get(form, "fewstep")

    def config(self, form: str, nfe: int) -> AmedConfig:
        """What is trained."""
        return demo_config(self.model.noise_schedule, form, nfe, self.schedule(form))

    def table(self, form: str, nfe: int) -> AmedTable:
        """A table, fitted with forward passes unless it was made before."""
        known = None if self.args.again else self.made("table", form, nfe, TABLE_SEEDS)
        if isinstance(known, AmedTable):
            return known
        config = self.config(form, nfe)
        setting, targets = self.together(TABLE_SEEDS, TABLE_BATCH)
        result = train_amed(
            setting, config, mode="table", method="forward", held_out=HELD_OUT, teacher=targets, progress=self.bar,
            limit=Limit(calls=CALLS_PER_CALL * nfe),
        )  # fmt: skip
        return self.keep("table", config, result)  # type: ignore[return-value]

    def predictor(self, form: str, nfe: int) -> None:
        """Train a predictor, starting from the table of its form."""
        count = self.args.trajectories
        if not self.args.again and self.made("predictor", form, nfe, count) is not None:
            return
        table = self.table(form, nfe)
        config = self.config(form, nfe)
        setting, targets = self.together(count, self.args.batch)
        state = self.cache / f"{form}-{nfe}-{count}-{self.schedule(form)}-state.safetensors"
        result = train_amed(setting, config, held_out=HELD_OUT, teacher=targets, start=table, resume=state, progress=self.bar)
        self.keep("predictor", config, result)
        state.unlink(missing_ok=True)  # finished: made again, it starts over

    def together(self, count: int, batch: int) -> tuple[Setting, Tensor]:
        """Seeds to train on followed by the held-out ones, with their end points."""
        own = self.seeds(0, count, batch)
        labels = torch.cat([own.per_seed["labels"], self.held.per_seed["labels"]])
        setting = replace(own, seeds=own.seeds + self.held.seeds, per_seed={"labels": labels})
        held = self.targets(_FIRST_HELD_OUT, HELD_OUT, EXACT_STEPS)
        return setting, torch.cat([self.targets(0, count, TEACHER_STEPS), held])

    def keep(self, kind: Kind, config: AmedConfig, result: AmedTraining) -> AmedPredictor | AmedTable:
        """Let the guard decide between the result and the plain solver, and write the file."""
        if result.ending is Ending.INTERRUPTED:
            raise Interrupted("during training")
        plain = {"plain": AmedTable(config)}
        if config.method.kind != "step":  # there the plain solver on the whole list is one of the form's own choices
            plain["list"] = constants_on(schedule_levels(self.model.noise_schedule, config.nfe, self.schedule(config.form)), config)
        rivals = [Candidate(name, table.solver_table(), "stock") for name, table in plain.items()]
        targets = self.targets(_FIRST_GUARD, GUARD, EXACT_STEPS)
        comparison = compare(self.guard, targets, [*rivals, candidate(result.net, "trained")], judge=recognised)
        net, note = result.net, ""
        before, after = (comparison.score_of(name).error for name in ("plain", "trained"))
        best = min(plain, key=lambda name: comparison.score_of(name).error)
        if not after < comparison.score_of(best).error:
            net = AmedTable(config) if kind == "table" else AmedPredictor(config)
            begin_with(net, plain[best])
            net.facts, after = result.net.facts, comparison.score_of(best).error
            note = "Nothing better than the plain solver was found: these are its constants."
        path = amed_file(kind, config.form, config.nfe, self.args.out)
        save_amed(
            path, net, **model_facts(self.guard), schedule=self.schedule(config.form), error_before=before, error_after=after,
            teacher=f"{TEACHER_STEPS} steps of unipc; held-out seeds: {EXACT_STEPS} steps", held_out_seeds=GUARD, note=note,
            seconds=round(result.seconds),
        )  # fmt: skip
        print(f"{path.name}: {before:.4f} -> {after:.4f} on {GUARD} seeds ({after / before:.3f}), {result.seconds:.0f} s", flush=True)
        return net


if __name__ == "__main__":
    raise SystemExit(main())
