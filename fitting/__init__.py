"""Few-step sampling fitted to a model: teacher passes, the guard, calibration of tables, and schedules from the discretization loss."""

from .budget import Budget, Layout
from .calibrate import Calibration, calibrate, calibrate_all, default_starts
from .candidates import Candidate, SamplerCandidate, candidates
from .course import calibrations
from .discretization import PairCosts, discretization_costs, discretization_costs_from_samples, discretization_schedule
from .effort import EFFORTS, Effort
from .gits import Deviations, gits_schedule, trajectory_deviations
from .guard import Comparison, Score, compare, error_ratio
from .levenberg import Limit
from .parameters import FULL_DEPTH, GROUPS
from .progress import Ending, Stage
from .setting import FitError, Interrupted, Setting
from .teacher import Teacher
from .within import Within, laid_out

__all__ = [
    "EFFORTS", "FULL_DEPTH", "GROUPS", "Budget", "Calibration", "Candidate", "Comparison", "Deviations", "Effort", "Ending", "FitError",
    "Interrupted", "Layout", "Limit", "PairCosts", "SamplerCandidate", "Score", "Setting", "Stage", "Teacher", "Within", "calibrate",
    "calibrate_all", "calibrations", "candidates", "compare", "default_starts", "discretization_costs", "discretization_costs_from_samples",
    "discretization_schedule", "error_ratio", "gits_schedule", "laid_out", "trajectory_deviations",
]
