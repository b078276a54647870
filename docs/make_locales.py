"""Make `locales/en/nodeDefs.json` from the nodes, on the real ComfyUI: names, descriptions and tooltips for the page, and for translators.

    python docs/make_locales.py

The page takes texts from there before it takes them from the nodes, so run this after each change of them; a test compares the two.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "host"))

from comfyui import Comfy  # noqa: E402

FILE = ROOT / "locales" / "en" / "nodeDefs.json"


def texts_of(nodes: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of FewStep's nodes, by node, from the server's /object_info."""
    return {
        name: {
            "display_name": info["display_name"],
            "description": info["description"],
            "inputs": {
                given: {"name": options["display_name"], "tooltip": options["tooltip"]}
                for kind in ("required", "optional")
                for given, (_, options) in info["input"].get(kind, {}).items()
            },
            "outputs": {
                str(place): {"name": output, "tooltip": tooltip}
                for place, (output, tooltip) in enumerate(zip(info["output_name"], info["output_tooltips"], strict=True))
            },
        }
        for name, info in sorted(nodes.items())
        if name.startswith("FewStep")
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as base, Comfy(Path(base), environment={"FEWSTEP_CACHE_DIR": base}) as comfy:
        texts = texts_of(comfy.object_info)
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(texts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
