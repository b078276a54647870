"""Run by Python itself at the start of the tests' ComfyUI, whose path this folder is on."""

import sys

# The test environment knows the checkout as `fewstep`. In a user's ComfyUI nobody does: an absolute import inside the
# pack has to fail here as it fails there.
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
