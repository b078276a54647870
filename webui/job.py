"""The picture in work: its choices, and what its schedule function must know.

A schedule function of the host is told the number of steps and the model, not the picture; and pictures are made one after the other, under
the host's lock. So the script keeps here what a picture needs when it begins, and takes it away when it ends. Samplers, which get the
host's denoiser and through it the picture, look there first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .choices import Choices

ATTRIBUTE = "fewstep_choices"
"""Of the host's processing object: `Choices`, or the error that they gave. Hosts go on after an error in a script's preparations, so it is
raised again where it stops the picture."""


@dataclass
class Job:
    """What one picture needs.

    Attributes
    ----------
    choices : Choices or error
        Of the picture, or the error in them.
    architecture : str
        A preset's name, which selects among published tables.
    drops_penultimate : bool
        Whether the host will drop the last but one of the next list that it asks for.
    stamps : tuple of float, error or None
        The levels of the AMED predictor if it samples; schedule functions then give these.
    structure : float or None
        Largest structures of the picture (schedules/first_level.py), if it begins with noise alone and one of FewStep's samplers makes it.
    refuse : callable or None
        Takes an error where it must not be raised (refused.py); None: errors are raised.
    """

    choices: Choices | Exception | None = None
    architecture: str = ""
    drops_penultimate: bool = False
    stamps: tuple[float, ...] | Exception | None = None
    structure: float | None = None
    refuse: Callable[[Exception], None] | None = None


current = Job()


def begin(job: Job) -> None:
    """A picture, or a pass of it, begins."""
    global current
    current = job


def end() -> None:
    """It has ended."""
    begin(Job())


def choices_of(processing: Any = None) -> Choices:
    """The choices of a picture, of the one in work, or the defaults (a picture of another extension, without the panel).

    Raises
    ------
    ValueError : what the panel or the API gave is not allowed.
    """
    own = getattr(processing, ATTRIBUTE, None) or current.choices or Choices()
    if isinstance(own, Exception):
        raise own
    return own
