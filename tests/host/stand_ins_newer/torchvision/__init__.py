"""In the place of torchvision, of which ComfyUI 0.33 imports single functions at its start; see ../stand_ins/torchvision."""

from no_such_package import stand_in_for

__version__ = "0.0.0"
__getattr__ = stand_in_for("torchvision")
