"""See the package."""

from no_such_package import stand_in_for

__getattr__ = stand_in_for("torchaudio.transforms")
