"""Phase 2: tuning the network at the noise levels of one few-step table, with a LoRA file as the result."""

from ...training import Check, NoGradients, OtherState
from .alternate import Alternation, alternate
from .full import FullWeights
from .lora import LAYERS, LoraAdapters
from .lora_file import load_lora, lora_facts, save_lora, with_lora
from .options import METHODS
from .phase_one import CalibrationPhase, DiscretizationPhase, GivenTable, PhaseOne
from .samples import Samples, load_folder
from .tune import Tuning, tune

__all__ = [
    "LAYERS", "METHODS", "Alternation", "CalibrationPhase", "Check", "DiscretizationPhase", "FullWeights", "GivenTable", "LoraAdapters",
    "NoGradients", "OtherState", "PhaseOne", "Samples", "Tuning", "alternate", "load_folder", "load_lora", "lora_facts",
    "save_lora", "tune", "with_lora",
]
