"""The door through which Stable Diffusion WebUI (AUTOMATIC1111, Forge, reForge) finds FewStep; everything else is in `webui/`.

Hosts run this file at every start of the user interface, under a name that is no module's, and put the extension's folder in front of
`sys.path`, where two extensions with a folder `nodes` would get each other's. So the folder is loaded as a package under a name that
nobody else has, its former modules are dropped first, and the folder is taken off `sys.path` again.
"""

import importlib
import importlib.util
import logging
import os
import sys
from pathlib import Path

PACKAGE = "fewstep_webui_extension"
ROOT = Path(__file__).absolute().parents[1]


def load_package(name, root):
    """The package in `root` under `name`, without what an earlier run left of it."""
    for known in [module for module in sys.modules if module == name or module.startswith(name + ".")]:
        del sys.modules[known]
    spec = importlib.util.spec_from_file_location(name, root / "__init__.py", submodule_search_locations=[str(root)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def leave_path(root):
    """Take the folder off the list that everybody's imports search."""
    same = {str(root), str(root.resolve())}
    sys.path[:] = [entry for entry in sys.path if not (isinstance(entry, str) and os.path.abspath(entry or ".") in same and entry)]


leave_path(ROOT)
try:
    load_package(PACKAGE, ROOT)
    # The host looks for Script classes among the names of this file.
    FewStepScript = importlib.import_module(PACKAGE + ".webui.entry").start(lambda: leave_path(ROOT))
except Exception as error:
    logging.getLogger("fewstep").error("FewStep could not be loaded and is off: %s: %s", type(error).__name__, error)
