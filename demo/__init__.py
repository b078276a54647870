"""A small trained image model, its judge, and the command line's host for them."""
from .data import CLASS_NAMES
from .model import DemoModel, load_demo_model

__all__ = ["CLASS_NAMES", "DemoModel", "load_demo_model"]
