"""Files of AMED predictors and tables in ComfyUI's models folder (models/fewstep), and those that come with FewStep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import folder_paths
from safetensors import safe_open

from ...amed import AmedPredictor, AmedTable, load_amed, save_amed
from ...amed.checkpoint import FORMAT
from ...demo.amed_shipped import AMED_FOLDER
from ..model_folder import ModelFolder, files_below

KEY = "fewstep"
"""Of the folder in the host's folder_paths, for extra_model_paths.yaml."""

ENDING = ".safetensors"
BUILT_IN = "demo model: "


def folder() -> Path:
    """The folder that files are saved in; it need not exist yet."""
    return Path(folder_paths.models_dir) / "fewstep"


FOLDER = ModelFolder("models/fewstep", folder, ENDING)
problem_with_name = FOLDER.problem_with_name


def listed() -> Mapping[str, Path]:
    """All files by the name in the dropdown: the user's by their paths in the folder, then those that come with FewStep.

    Other safetensors files in the folder are left out; of each only the header is read, once.
    """
    found = files_below(KEY, folder(), lambda path: path.suffix == ENDING and _is_ours(path, path.stat().st_mtime_ns))
    shipped = sorted(AMED_FOLDER.glob(f"*{ENDING}")) if AMED_FOLDER.is_dir() else ()
    return found | {f"{BUILT_IN}{path.stem}": path for path in shipped}


@lru_cache(maxsize=4096)
def _is_ours(path: Path, changed: int) -> bool:
    try:
        with safe_open(str(path), framework="numpy") as file:
            record = json.loads((file.metadata() or {}).get("fewstep", "{}"))
    except Exception:  # safetensors has its own exception type; a damaged file of another pack is not ours to tell of
        return False
    return isinstance(record, dict) and record.get("format") == FORMAT


def load(name: str) -> AmedPredictor | AmedTable:
    """The predictor or table of a name in `listed`; ValueError in a sentence for others and for damaged files."""
    known = listed()
    if name not in known:
        offered = ", ".join(known) if known else "none yet: save one with FewStep Save AMED Predictor"
        raise ValueError(f"There is no AMED predictor {name!r}; in models/fewstep there are {offered}.")
    return load_amed(known[name])


def save(net: AmedPredictor | AmedTable, name: str, overwrite: bool = False) -> Path:
    """Write `<name>.safetensors` into the folder, "<name> (2).safetensors" where that exists and is not to be replaced; the path.

    Raises
    ------
    ValueError : an unsafe name. OSError : the disk refuses.
    """
    path = FOLDER.path_for(name, overwrite)
    save_amed(path, net)
    return path
