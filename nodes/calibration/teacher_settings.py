"""The node with the settings of the teacher, the many-step run that calibrations and comparisons measure against."""

from __future__ import annotations

from comfy_api.latest import io

from ..common.sockets import TeacherType
from ..common.teacher import LEAST_STEPS, MOST_STEPS, SOLVER_CHOICES, USUAL_STEPS, teacher_plan
from ..inputs import check, problem_with


class FewStepTeacherSettings(io.ComfyNode):
    """Settings of the reference run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepTeacherSettings",
            display_name="FewStep Teacher Settings",
            category="FewStep/recipes",
            description="Settings of the many-step run that FewStep Calibrate and FewStep Compare Recipes take as the truth. Only needed "
            "to change them: without this node it is 64 steps of UniPC, stored on disk.",
            inputs=[
                io.Int.Input(
                    "steps",
                    default=USUAL_STEPS,
                    min=LEAST_STEPS,
                    max=MOST_STEPS,
                    tooltip="Steps of the run. 64 is enough for recipes of up to 10 calls; take 100 for more. Below 40 the few-step "
                    "samplers are measured against its errors.",
                ),
                io.Combo.Input(
                    "solver",
                    options=list(SOLVER_CHOICES),
                    default="unipc",
                    tooltip="Solver of the run, with its default order. With many steps all of them meet in the same picture.",
                ),
                io.Boolean.Input(
                    "store_on_disk",
                    default=True,
                    tooltip="Keep the run's end points in ComfyUI's user folder, so that an interrupted calibration goes on where it was, "
                    "and another effort or number of calls starts at once. The 24 used last are kept.",
                ),
            ],
            outputs=[TeacherType.Output("teacher", display_name="teacher", tooltip="For FewStep Calibrate and FewStep Compare Recipes.")],
        )

    @classmethod
    def validate_inputs(cls, solver: str | None = None) -> bool | str:
        return problem_with(solver=(solver, SOLVER_CHOICES)) or True

    @classmethod
    def execute(cls, steps: int, solver: str, store_on_disk: bool) -> io.NodeOutput:
        check(problem_with(solver=(solver, SOLVER_CHOICES)))
        return io.NodeOutput(teacher_plan(steps, solver, store_on_disk))
