"""The oldest torch of pyproject.toml has every name that is used; torch_names.py asked it."""

from __future__ import annotations

import json
import re

import torch

from .torch_names import FILE, ROOT, attributes_used, exists, names_used

KNOWN = json.loads(FILE.read_text(encoding="utf-8"))
HINT = f"torch {KNOWN['torch']} lacks it, or was not asked: `python tests/old_and_new.py --only '3.10 oldest'` asks."


OF_LISTS = {"index"}
"""Newer tensors have them, too; here they are always of lists and other things."""


def test_every_name_of_torch_was_there_in_the_oldest_one():
    used = names_used()
    assert len(used) > 50 and not used - set(KNOWN["present"]), HINT
    assert all(map(exists, used)), "the torch of the tests has them, too"


def test_every_attribute_of_tensors_was_there_in_the_oldest_one():
    """Of all attributes that the code uses, those that tensors of this torch have."""
    used = attributes_used() & set(dir(torch.Tensor)) - OF_LISTS
    assert len(used) > 50 and not used - set(KNOWN["of tensors"]), HINT


def test_the_one_that_was_asked_is_the_oldest_that_is_promised():
    (oldest,) = re.findall(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert KNOWN["torch"].startswith(f"{oldest}.") and not KNOWN["absent"]


def test_what_it_lacks_is_told():
    assert exists("torch.nn.functional.silu") and not exists("torch.no_such_module.x") and not exists("torch.nn.NoSuchLayer")
