"""A sample of soak.py on the server that all host tests share: its memory is not looked at, since other tests have filled it."""

from __future__ import annotations

import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from ..hardening import count, tell
from .soak import Item, Turn, asking, files_outside, growth, host_as_it_is, is_long, items, order, soak, spoilt, stock_pictures, summary

SEED = 1


def quick(item: Item) -> bool:
    """Templates with checkpoints take seconds, and test_run_workflows.py runs every one."""
    prompt = item.make(Random(0))
    return not is_long(prompt) and not any(node["class_type"] == "CheckpointLoaderSimple" for node in prompt.values())


@pytest.fixture(scope="module")
def found(comfy) -> list[Item]:
    return items(comfy)


def test_prompts_in_random_order(comfy, found, tmp_path):
    before = host_as_it_is(comfy), stock_pictures(comfy, tmp_path, few=True)
    turns: list[Turn] = []
    chosen = order([item for item in found if quick(item)], count(40, 150), SEED)
    with asking(comfy, SEED) as asker:
        soak(comfy, [(number, *turn) for number, turn in enumerate(chosen)], turns.append)
    assert not [(turn.item, turn.way, turn.complaints) for turn in turns if turn.complaints]
    assert not asker.complaints and asker.asked >= 20 and {200, 400} <= asker.statuses.keys()
    assert (host_as_it_is(comfy), stock_pictures(comfy, tmp_path, few=True)) == before
    assert not files_outside(comfy)
    ends = {turn.ended for turn in turns}
    assert {"done", "refused"} <= ends and len({turn.item for turn in turns}) >= 25
    tell("prompts", prompts=len(turns), requests_meanwhile=asker.asked, slowest_answer_s=round(asker.slowest, 2))


def test_every_node_is_among_the_prompts(comfy, found):
    used = {node["class_type"] for item in found for node in item.make(Random(0)).values()}
    assert {name for name in comfy.object_info if name.startswith("FewStep")} <= used


def test_wrong_prompts_are_wrong_in_the_nodes_of_the_pack_alone(found):
    for item in found:
        right = item.make(Random(3))
        changed = spoilt(right, Random(3))
        assert {number for number in right if changed[number] != right[number]} <= {
            number for number, node in right.items() if node["class_type"].startswith("FewStep")
        }


def test_memory_that_grows_is_seen():
    flat, grown = [800.0 + i % 3 for i in range(12)], [800.0 * 1.01**i for i in range(12)]
    assert growth(flat) == pytest.approx(1.0, abs=0.01) and growth(grown) > 1.05 and growth(flat[:5]) == 0.0
    turn = {"item": "x", "number": 0, "way": "plain", "ended": "done", "complaints": ["broken"], "memory": 0.0, "server_id": "a"}
    assert summary([{"server": "a"}, turn])["complaints"] == ["0 x (plain): broken"]


# --- the pack's addresses ----------------------------------------------------------------------------------------------------------------


def test_another_website_is_not_answered(comfy):
    for site, expected in (("cross-site", 403), ("same-origin", 200), ("none", 200)):
        request = urllib.request.Request(f"{comfy.url}/fewstep/catalog", headers={"Sec-Fetch-Site": site})
        try:
            status = urllib.request.urlopen(request, timeout=30).status
        except urllib.error.HTTPError as error:
            status = error.code
        assert status == expected, site


def test_a_parameter_that_is_too_long_is_refused_unread(comfy):
    status, body = comfy.request("/fewstep/preview?preset=" + "x" * 5000)
    assert status == 400 and len(body) < 300 and b"100 characters" in body


def test_nothing_can_be_changed_by_a_request(comfy):
    """Of our addresses all are read; the host answers HEAD where it answers GET."""
    routes = [route for route in host_as_it_is(comfy)["routes"] if "fewstep" in route.lower()]
    assert {route.split()[0] for route in routes} <= {"GET", "HEAD", "*"} and len(routes) >= 2
    assert comfy.request("/fewstep/preview", {"steps": 5})[0] == 405


def test_a_crowd_is_answered_or_sent_away_and_the_server_goes_on(comfy):
    """More requests at once than may wait, each of which takes computing."""
    addresses = [f"/fewstep/preview?preset=wan&steps={20 + number % 11}&denoise={0.5 + number / 1000}" for number in range(56)]
    with ThreadPoolExecutor(56) as pool:
        answers = [pool.submit(comfy.request, address) for address in addresses]
        waited = [comfy.request("/queue", timeout=5)[0] for _ in range(5)]
        statuses = {answer.result()[0] for answer in answers}
    assert waited == [200] * 5 and statuses == {200, 503}
    assert comfy.request("/fewstep/preview?steps=5")[0] == 200
