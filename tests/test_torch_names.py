"""The oldest torch of pyproject.toml has every name that is used; torch_names.py asked it."""

from __future__ import annotations

import json
import re

from .torch_names import FILE, ROOT, names_used

KNOWN = json.loads(FILE.read_text(encoding="utf-8"))


def test_every_name_of_torch_was_there_in_the_oldest_one():
    unknown = names_used() - set(KNOWN["present"])
    assert not unknown, f"`python tests/old_and_new.py --only '3.10 oldest'` asks torch {KNOWN['torch']}; use nothing that it lacks."
    assert not KNOWN["absent"]


def test_the_one_that_was_asked_is_the_oldest_that_is_promised():
    (oldest,) = re.findall(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert KNOWN["torch"].startswith(oldest) and len(KNOWN["present"]) > 50
