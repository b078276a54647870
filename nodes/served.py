"""Addresses of this pack's files that the host would answer with 404.

    help pages     The page asks for FewStepX/en.md, in the user's language, before it asks for FewStepX.md. Both give the page there is.
    odd folders    The host serves a pack's files under the name of its folder, but does not find them where that name has a blank, a
                   letter beyond ASCII, or another character that addresses write differently. For help pages the browser's page takes
                   the name only up to a dot or an @.

    templates      They have been numbered since; addresses with the names of before still open them.

All are routes beside the host's own, which stay as they are.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parents[1]  # not resolved: the host knows a linked folder by the name of the link
WEB, TEMPLATES = ROOT / "web", ROOT / "example_workflows"
FORMER_TEMPLATES: Mapping[str, str] = {
    "5-step demo": "01 Try it",
    "SD 1.5 or SDXL 6 steps": "02 Your checkpoint",
    "Flux or SD3 8 steps": "03 Flux or SD3",
    "img2img": "04 Image to image",
    "compare schedules": "05 Compare schedules",
    "calibrate": "06 Calibrate the demo model",
    "AMED": "09 AMED",
    "train AMED": "10 Train AMED",
    "tune LoRA": "11 Tune a LoRA",
}
_PLAIN = re.compile(r"[A-Za-z0-9_.~@-]+")
_ENDS_AN_ADDRESS = set("#?%")

_logger = logging.getLogger("fewstep")


def register() -> None:
    """Add the routes, if there is a server."""
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if server is None:
        return
    for path, handler in routes_for(ROOT.name):
        server.routes.get(path)(handler)
    # Straight to the router: the host adds its own route to the same folder before those in `routes`, and the first that fits answers.
    names = "|".join(map(re.escape, FORMER_TEMPLATES))
    server.app.router.add_get(f"/api/workflow_templates/{_part(ROOT.name)}/{{name:{names}}}.{{ending:json|jpg}}", _former_template)
    if _ENDS_AN_ADDRESS & set(ROOT.name):
        _logger.warning(
            "FewStep: ComfyUI's page cannot load FewStep's help pages and templates from a folder named %r, because # ? %% mean something "
            "else in an address. The nodes work. Rename the folder to 'fewstep'.", ROOT.name,
        )  # fmt: skip


def routes_for(folder: str) -> list[tuple[str, Callable[..., Any]]]:
    """Paths and handlers that a pack in a folder of this name needs beside the host's, for an aiohttp router.

    The folder's name is a literal part where it is plain, as only then the host's route to the same folder comes second.
    """
    short = re.split("[.@]", folder)[0]
    routes: list[tuple[str, Callable[..., Any]]] = []
    for name in dict.fromkeys((folder, short)):
        routes.append((f"/extensions/{_part(name)}/docs/{{node:FewStep[A-Za-z]+}}/{{locale}}.md", _help_page))
    if not _PLAIN.fullmatch(folder):
        routes.append((f"/extensions/{_part(folder)}/{{file:.*}}", _file_of(WEB)))
        routes.append((f"/workflow_templates/{_part(folder)}/{{file:.*}}", _file_of(TEMPLATES)))  # the host adds /api
    if short != folder:
        routes.append((f"/extensions/{_part(short)}/{{file:docs/FewStep.*}}", _file_of(WEB)))
    return routes


def _part(name: str) -> str:
    """A part of a path that stands for a folder's name; aiohttp compares it with addresses in which only / and % are escaped."""
    if _PLAIN.fullmatch(name):
        return name
    pattern = "".join(f"\\x{ord(c):02x}" if c in "{}" else re.escape(c) for c in name.replace("%", "%25"))
    return f"{{pack:{pattern}}}"


async def _help_page(request: Any) -> Any:
    return _answer(WEB, f"docs/{request.match_info['node']}.md")


async def _former_template(request: Any) -> Any:
    return _answer(TEMPLATES, f"{FORMER_TEMPLATES[request.match_info['name']]}.{request.match_info['ending']}")


def _file_of(root: Path) -> Callable[..., Any]:
    async def answer(request: Any) -> Any:
        return _answer(root, request.match_info["file"])

    return answer


def _answer(root: Path, file: str) -> Any:
    from aiohttp import web

    try:
        path = (root / file).resolve()
        there = path.is_relative_to(root.resolve()) and path.is_file()
    except (OSError, ValueError):  # a name that is too long for any file, or has a null in it
        there = False
    if not there:
        raise web.HTTPNotFound
    return web.FileResponse(path)
