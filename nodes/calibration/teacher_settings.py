"""The node with the settings of the teacher, the many-step run that long work measures against."""

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
            description="Settings of the many-step run that FewStep Calibrate, Compare Recipes, Train AMED Predictor and Tune LoRA use as "
            "the reference. Only needed to change them: the default is 64 steps of UniPC, stored on disk.",
            inputs=[
                io.Int.Input(
                    "steps",
                    default=USUAL_STEPS,
                    min=LEAST_STEPS,
                    max=MOST_STEPS,
                    tooltip="Steps of the run. 64 is enough for recipes of up to 10 calls; use 100 for more. Below 40, its own errors "
                    "distort what is measured.",
                ),
                io.Combo.Input(
                    "solver",
                    options=list(SOLVER_CHOICES),
                    default="unipc",
                    tooltip="Solver of the run, with its default order. With many steps all solvers end in the same picture.",
                ),
                io.Boolean.Input(
                    "store_on_disk",
                    default=True,
                    tooltip="Store the run's end points in ComfyUI's user folder, so that an interrupted job can resume, and another "
                    "effort or number of calls starts at once. The 24 most recently used runs are kept.",
                ),
            ],
            outputs=[TeacherType.Output("teacher", display_name="teacher", tooltip="For the teacher input of other FewStep nodes.")],
        )

    @classmethod
    def validate_inputs(cls, solver: str | None = None) -> bool | str:
        return problem_with(solver=(solver, SOLVER_CHOICES)) or True

    @classmethod
    def execute(cls, steps: int, solver: str, store_on_disk: bool) -> io.NodeOutput:
        check(problem_with(solver=(solver, SOLVER_CHOICES)))
        return io.NodeOutput(teacher_plan(steps, solver, store_on_disk))
