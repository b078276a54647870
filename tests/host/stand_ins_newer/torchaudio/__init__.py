"""In the place of torchaudio, which ComfyUI 0.33 imports at its start for models that no test uses."""

from no_such_package import stand_in_for

__version__ = "0.0.0"
__getattr__ = stand_in_for("torchaudio")
