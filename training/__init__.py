"""Gradient training against a many-step teacher: what AMED and the tuning of a model have in common.

    options         arguments that every training has, and how seeds are held out
    targets         the teacher's end points that a training needs
    gradients       gradients through a model that is only borrowed
    objective       what is minimised: parameters, a batch, its losses, the held-out error
    course          batches, checks, the best so far, patience, interruption, resuming
    state           a training on disk
    parameters      the numbers being trained
    distributed     several processes
"""

from .course import Check, Course, Training
from .gradients import NoGradients
from .objective import Objective, Step
from .options import Options, held_out_seeds
from .state import OtherState, StateFile

__all__ = ["Check", "Course", "NoGradients", "Objective", "Options", "OtherState", "StateFile", "Step", "Training", "held_out_seeds"]
