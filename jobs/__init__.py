"""Long work, free of hosts: calibrate, compare, train AMED, tune.

Each is a plan (validated; knows what it will cost), a `run(setting, plan, progress)` that can be interrupted and resumed and handles every
failure in one place, and an outcome (what is finished, how it ended, facts for recipes, lines for reports). Command line, ComfyUI nodes and
the WebUI panel gather a plan, hand over a setting, and show progress and outcome.

    plan            seeds, teacher and expected cost that every job has
    outcome         how a job ended; the one place where failures are handled
    pace            how far a job is, and how long it will take
    words           where a job is, in words
    saving          results on a disk that may be full
    facts           what a recipe says about how it was chosen
    calibrate, compare, train_amed, tune
"""

from .outcome import Outcome
from .pace import Pace
from .plan import Plan, TeacherPlan

__all__ = ["Outcome", "Pace", "Plan", "TeacherPlan"]
