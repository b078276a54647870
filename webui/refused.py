"""Pictures that cannot be made: where the reason is told.

    an API request      the error is raised, and the host answers with it
    the page            no picture, the reason in its place and one line in the log; an error raised there would be logged by the host
                        with all arguments of the page, the whole text of a recipe among them
    a cell of a grid    a picture of the reason; the host's X/Y/Z plot leaves the cell of a raised error black and tells nobody why
    other scripts       the error is raised: they expect a picture

In the page and in grids the reason is in the infotext, too.
"""

from __future__ import annotations

import enum
import functools
import logging
import textwrap
from collections.abc import Callable
from typing import Any

from . import job

_logger = logging.getLogger("fewstep")

REASON = "fewstep_refused"
"""Attribute of the host's processing object: why its picture was not made."""

IN_INFOTEXT = "FewStep error"
_GRID_SCRIPT = "xyz_grid.py"
EXPECTED = (ValueError, OSError)
"""What a user's choices and files raise; anything else is a fault, which should be seen with its traceback."""


class Place(enum.Enum):
    """Who waits for a picture."""

    API = "api"
    PAGE = "page"
    GRID = "grid"
    SCRIPT = "script"


def place_of(p: Any) -> Place:
    """Who waits for the picture of a processing object; `API`, where errors are raised, if that is not known."""
    arguments, runner = getattr(p, "script_args", None), getattr(p, "scripts", None)
    selectable = getattr(runner, "selectable_scripts", None)
    if not arguments or selectable is None:
        return Place.API
    number = arguments[0] if isinstance(arguments[0], int) else 0
    if 0 < number <= len(selectable):
        file = str(getattr(selectable[number - 1], "filename", "")).replace("\\", "/")
        return Place.GRID if file.endswith("/" + _GRID_SCRIPT) else Place.SCRIPT
    return Place.API if getattr(p, "is_api", True) else Place.PAGE


def tell(p: Any, error: Exception) -> None:
    """Keep the first reason why the picture of `p` is not made: in the log, below the picture, and in its infotext."""
    if getattr(p, REASON, ""):
        return
    reason = " ".join(str(error).split()) or type(error).__name__
    setattr(p, REASON, reason)
    _logger.error("FewStep: no picture was made. %s", reason)
    p.extra_generation_params[IN_INFOTEXT] = reason
    if hasattr(p, "comment"):
        p.comment(f"FewStep: no picture was made. {reason}")


def excused(function: Callable[..., Any], instead: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose expected errors go to the picture in work if that takes them; then it returns `instead` of the same arguments."""

    @functools.wraps(function)
    def wrapped(*given: Any, **named: Any) -> Any:
        try:
            return function(*given, **named)
        except EXPECTED as error:
            if job.current.refuse is None:
                raise
            job.current.refuse(error)
            return instead(*given, **named)

    return wrapped


def card(reason: str, size: tuple[int, int]) -> Any:
    """A picture of a reason, for the cell of a grid."""
    from PIL import Image, ImageDraw

    width = size[0]
    image = Image.new("RGB", size, (40, 40, 40))
    draw = ImageDraw.Draw(image)
    font = _font(max(10, width // 24))
    across = max(1, int(draw.textlength("n" * 20, font=font)) // 20)
    text = "\n".join(textwrap.wrap(f"FewStep: {reason}", max(4, (width - 8) // across)))
    draw.multiline_text((4, 4), text, fill=(240, 240, 240), font=font)
    return image


def _font(size: int) -> Any:
    try:
        from modules.images import get_font

        return get_font(size)
    except Exception:  # without a host, or one without its own font
        from PIL import ImageFont

        return ImageFont.load_default()
