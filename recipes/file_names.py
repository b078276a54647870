"""Names that Windows keeps for its devices, which no file may have on any system, because folders are shared."""

from __future__ import annotations

import re
import unicodedata

_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d) *(\..*)?", re.IGNORECASE)  # whatever follows the dot


def is_reserved(name: str) -> bool:
    """Whether it names a device on Windows, which takes superscripts (COM¹) for digits and ignores blanks before a dot."""
    return _DEVICE.fullmatch(unicodedata.normalize("NFKC", name)) is not None
