"""What a node with long work shows while it runs, and what it leaves."""

from __future__ import annotations

SHOWN = """
load_pack()
import importlib
import types
from PIL import Image
pack = nodes.NODE_CLASS_MAPPINGS["FewStepCalibrate"].__module__.removesuffix(".nodes.calibration.calibrate")
part = lambda name: importlib.import_module(f"{pack}.{name}")
progress = part("nodes.common.progress")
Stage = part("fitting.progress").Stage
model = nodes.NODE_CLASS_MAPPINGS["FewStepLoadDemoModel"].execute("edm", "mixed", 2).args[0]
costs = {("teacher", 0): 128.0, ("start", 5): 40.0, ("fit", 5): 400.0, ("guard", 5): 80.0}
shown = progress.HostProgress(costs, 2, model, "1")
texts, pictures = [], []
shown._text = texts.append
shown.bar = types.SimpleNamespace(update_absolute=lambda done, total, picture=None: pictures.append((done, picture)))
def fit(*errors):
    for error in errors:
        shown._shown = -1e9
        shown(Stage("fit", 10, 200, 5, error))
for call in (1, 34, 64):
    shown._shown = -1e9
    shown(Stage("teacher", call, 64))
fit(0.5, 0.4, 0.4, 0.3)
before = list(shown.fits["5 calls"])
fit(0.45, 0.41, 0.41)
after = list(shown.fits["5 calls"])
outcome = part("jobs.calibrate").CalibrationOutcome()
outcome.ending, outcome.seconds = part("fitting.progress").Ending.FINISHED, 70.0
shown.end(outcome)
bars = Image.new("RGB", (8, 8))
shown.finish(bars, ["5 model calls: 17% less error."])
tell(before=before, after=after, texts=texts, last=pictures[-1][0], same=pictures[-1][1][1] is bars)
"""


def test_lines_never_rise_because_seeds_were_added_and_the_end_is_the_bars(in_host):
    told = in_host(SHOWN)
    assert [round(10**height, 3) for height in told["before"]] == [0.5, 0.4, 0.4, 0.3]
    assert [round(10**height, 3) for height in told["after"]] == [0.45, 0.41, 0.41]
    assert told["last"] == 1000 and told["same"]
    assert told["texts"][-2:] == ["Finished after 70 s", "Finished after 70 s\n5 model calls: 17% less error."]
    assert told["texts"][1].startswith("Teacher: model call 34 of 64, about ") and "Expected cost: at most 648" in told["texts"][1]
