"""Files of AMED predictors and tables in ComfyUI's models folder, and those that come with FewStep."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import folder_paths

from ...amed import AmedPredictor, AmedTable, load_amed, save_amed
from ...amed.checkpoint import FORMAT
from ...demo.amed_shipped import AMED_FOLDER
from ...tensor_files import load_record
from ..model_files import ModelFiles


def _folder() -> Path:
    return Path(folder_paths.models_dir) / "fewstep"


def _is_amed(path: Path) -> bool:
    """Whether a safetensors file has AMED's format; of each file only the header is read, once."""
    try:
        return _has_format(path, path.stat().st_mtime_ns)
    except OSError:  # gone since the folder was listed
        return False


@lru_cache(maxsize=4096)
def _has_format(path: Path, modified: int) -> bool:
    try:
        record = load_record(path)
    except Exception:  # safetensors has its own exception type; a damaged file of another pack is not ours to report
        return False
    return isinstance(record, dict) and record.get("format") == FORMAT


AMED_FILES: ModelFiles[AmedPredictor | AmedTable] = ModelFiles(
    kind="AMED predictor",
    place="models/fewstep",
    path=_folder,
    endings=(".safetensors",),
    key="fewstep",
    read=load_amed,
    write=save_amed,
    shipped=AMED_FOLDER,
    save_node="FewStep Save AMED Predictor",
    belongs=_is_amed,
)
