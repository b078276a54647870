"""Which emoji pictures are variants of one another, and on which side of the split they fall.

Skin tones, genders, hair colours and directions multiply a few hundred ideas to thousands of near-copies. All variants of one base
emoji must lie on one side of the train/test split, or the test set would be known already. `base_of` takes from a code point
sequence what makes it a variant; `emoji.json` (package emoji-datasource-google) tells the categories.
"""
from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CATEGORIES = (
    "Smileys & Emotion", "People & Body", "Animals & Nature", "Food & Drink", "Activities", "Travel & Places", "Objects", "Symbols",
    "Flags",
)  # fmt: skip
"""Of the emoji; the group "Component" (skin-tone patches) holds no pictures of things and is left out."""

SHORT_NAMES = ("smiley", "person", "nature", "food", "activity", "travel", "object", "symbol", "flag")
"""Of the categories."""

JOINER, LEFT_OUT = "200d", "Component"
_VARIATION_SELECTOR, _FACING_RIGHT = "fe0f", "27a1"
_SKIN_TONES = {f"1f3f{digit}" for digit in "bcdef"}
_GENDER_SIGNS = {"2640", "2642"}
_HAIR = {"1f9b0", "1f9b1", "1f9b2", "1f9b3"}
_DROPPED = _SKIN_TONES | _GENDER_SIGNS | _HAIR | {_VARIATION_SELECTOR, _FACING_RIGHT}

_CHILD, _ADULT, _OLD, _FAMILY = "1f9d2", "1f9d1", "1f9d3", "1f46a"
_PEOPLE = {
    "1f466": _CHILD, "1f467": _CHILD, "1f468": _ADULT, "1f469": _ADULT, "1f474": _OLD, "1f475": _OLD,
    "1f934": "1fac5", "1f478": "1fac5",  # prince, princess: person with crown
    "1f57a": "1f483",  # man, woman dancing
    "1f936": "1f385",  # Mrs. and Mr. Claus
    "1fac3": "1f930", "1fac4": "1f930",  # pregnant man, person, woman
    "1f46b": "1f46d", "1f46c": "1f46d",  # two people holding hands
}  # fmt: skip
_SEQUENCES = {
    (_ADULT, "1f91d", _ADULT): ("1f46d",),
    (_ADULT, "2764", _ADULT): ("1f491",),
    (_ADULT, "2764", "1f48b", _ADULT): ("1f48f",),
    (_ADULT, "1f384"): ("1f385",),
    (_ADULT, "1f37c"): ("1f931",),  # feeding a baby
}


def code_points(name: str) -> tuple[str, ...]:
    """Code points of a file name or of a `unified` field, lower case without leading zeros and variation selectors."""
    points = (point.lstrip("0") for point in name.lower().replace("_", "-").split("-"))
    return tuple(point for point in points if point != _VARIATION_SELECTOR)


def base_of(points: Sequence[str]) -> tuple[str, ...]:
    """The code points that all variants of an emoji share."""
    kept = tuple(_PEOPLE.get(point, point) for point in points if point not in _DROPPED and point != JOINER)
    if len(kept) > 1 and _CHILD in kept:
        return (_FAMILY,)
    return _SEQUENCES.get(kept, kept)


def categories_of(emoji: Sequence[Mapping]) -> dict[tuple[str, ...], str]:
    """Category by code points for all emoji of `emoji.json` and their skin variations; "Component" is left out.

    Raises
    ------
    ValueError : a category that is not in `CATEGORIES`.
    """
    known: dict[tuple[str, ...], str] = {}
    for entry in emoji:
        category = entry["category"]
        if category == LEFT_OUT:
            continue
        if category not in CATEGORIES:
            raise ValueError(f"emoji.json has the category {category!r}; known are {', '.join(CATEGORIES)}. "
                             "Use emoji-datasource-google 16.0.0.")  # fmt: skip
        for form in (entry, *entry.get("skin_variations", {}).values()):
            known[code_points(form["unified"])] = category
    return known


def is_held_out(base: Sequence[str], share: float) -> bool:
    """Whether a base emoji belongs to the test set: by a hash of its name, so that new emoji leave the others where they are."""
    digest = hashlib.sha256("-".join(base).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


@dataclass(frozen=True)
class Member:
    """One picture: its file's stem, and where it belongs."""

    stem: str
    base: tuple[str, ...]
    category: str
    held_out: bool


def members(stems: Sequence[str], emoji: Sequence[Mapping], test_share: float) -> list[Member]:
    """The usable ones of a package's pictures, sorted, each emoji once."""
    known = categories_of(emoji)
    found: dict[tuple[str, ...], Member] = {}
    for stem in sorted(stems):
        points = code_points(stem)
        if points in known:
            base = base_of(points)
            found.setdefault(points, Member(stem, base, known[points], is_held_out(base, test_share)))
    return list(found.values())
