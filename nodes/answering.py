"""Answers to requests of the page that take computing: off the event loop, one at a time, only so many waiting, for this page only.

Whatever is asked, the server goes on serving and a model keeps the other cores. A website that the user visits beside ComfyUI could make
the browser ask, too; browsers name such requests, and they are refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MOST_WAITING = 40
"""More than a page with many nodes asks at once; at 200 ms each, the longest wait is 8 s."""
LONGEST_VALUE = 100
"""Characters of a parameter's name or value; the longest names of solvers, schedules and presets have under 30."""


class NoAnswer(ValueError):
    """A valid question without an answer; the message says why."""


class Answering:
    """Makes handlers for an aiohttp router from functions of the query's parameters; they share one thread.

    A handler answers with the function's JSON; with {"error": a sentence} and 400 where the function raises ValueError, 403 to another
    website, 503 while too many wait; and with what `without` makes of the sentence where it raises NoAnswer.
    """

    def __init__(self, name: str):
        # One thread: a dragged slider sends requests faster than they can be answered, and models need the other cores.
        self._worker = ThreadPoolExecutor(1, name)
        self._waiting = 0  # changed by the event loop's thread only

    def __call__(
        self, compute: Callable[[Mapping[str, str]], Any], without: Callable[[str], Any] = lambda sentence: {"error": sentence}
    ) -> Callable[[Any], Any]:
        from aiohttp import web

        def refused(sentence: str, status: int) -> web.Response:
            return web.json_response({"error": sentence}, status=status)

        async def answer(request: web.Request) -> web.Response:
            if request.headers.get("Sec-Fetch-Site") == "cross-site":
                return refused("Only ComfyUI's own page is answered, and this request came from another website.", 403)
            params = dict(request.query)
            if any(len(text) > LONGEST_VALUE for item in params.items() for text in item):
                return refused(f"A parameter is longer than {LONGEST_VALUE} characters; no valid one is.", 400)
            if self._waiting >= MOST_WAITING:
                return refused(f"{MOST_WAITING} requests are waiting already; ask again in a moment.", 503)

            def work() -> Any:
                # Who is gone does not wait: the page ends requests that later ones have overtaken.
                return None if request.transport is None else compute(params)

            self._waiting += 1
            try:
                return web.json_response(await asyncio.get_running_loop().run_in_executor(self._worker, work))
            except NoAnswer as error:
                return web.json_response(without(str(error)))
            except ValueError as error:
                return refused(str(error), 400)
            finally:
                self._waiting -= 1

        return answer
