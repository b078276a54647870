"""A small trained image model, its judge, and the command line's host for them."""
from .data import CLASS_NAMES
from .model import DemoModel, load_demo_model
from .shipped import demo_recipe

__all__ = ["CLASS_NAMES", "DemoModel", "demo_recipe", "load_demo_model"]
