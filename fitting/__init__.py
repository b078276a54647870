"""Few-step sampling fitted to a model: teacher passes, the never-worse guard, calibration of tables."""

from .calibrate import Calibration, Stage, calibrate, calibrate_all, default_starts
from .candidates import Candidate, candidates
from .effort import EFFORTS, Effort
from .guard import Comparison, Score, compare, error_ratio
from .levenberg import Limit
from .parameters import FULL_DEPTH, GROUPS
from .setting import FitError, Interrupted, Setting
from .teacher import Teacher

__all__ = [
    "EFFORTS", "FULL_DEPTH", "GROUPS", "Calibration", "Candidate", "Comparison", "Effort", "FitError", "Interrupted", "Limit", "Score",
    "Setting", "Stage", "Teacher", "calibrate", "calibrate_all", "candidates", "compare", "default_starts", "error_ratio",
]
