"""Another author's node pack, old interface, with everything that could get in the way of ours.

It has modules named like our folders and finds them through sys.path, and it adds its own dropdown entries, also by
putting a new list in the place of the host's.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import comfy.samplers as samplers

import schedules

samplers.SCHEDULER_HANDLERS["rival"] = samplers.SchedulerHandler(schedules.rival_sigmas, use_ms=True)
if "rival" not in samplers.SCHEDULER_NAMES:
    samplers.SCHEDULER_NAMES.append("rival")


class RivalNode:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"steps": ("INT", {"default": 4})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("INT",), "run", "rival"

    def run(self, steps):
        return (schedules.OWNER and steps,)


NODE_CLASS_MAPPINGS = {"RivalNode": RivalNode}
