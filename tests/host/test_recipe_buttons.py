"""The buttons of recipe nodes in the page: what a run gave can be kept in the workflow, and then it is not made again."""

from __future__ import annotations

import pytest

from fewstep.demo import load_demo_model
from fewstep.recipes import Recipe
from fewstep.schedules import optimal_sigmas
from fewstep.solvers import build_table

from .browser import open_page, why_no_browser

APPLY = "FewStepApplyRecipe"

BUILD = """(name) => {
  app.graph.clear();
  const made = Object.fromEntries(["FewStepLoadRecipe", "FewStepApplyRecipe", "FewStepRecipeToText"].map((type, k) => {
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    node.pos = [100 + 420 * k, 120];
    return [type, node];
  }));
  made.FewStepLoadRecipe.widgets.find((w) => w.name === "name").value = name;
  const link = (from, output, to) => {
    const outputs = made[from].outputs, inputs = made[to].inputs;
    made[from].connect(outputs.findIndex((o) => o.name === output), made[to], inputs.findIndex((i) => i.name === "recipe"));
  };
  link("FewStepLoadRecipe", "recipe", "FewStepApplyRecipe");
  link("FewStepApplyRecipe", "used", "FewStepRecipeToText");
}"""


def buttons(page, node_type: str) -> list[tuple[str, bool]]:
    found = page.js(
        """(type) => [...app.graph.nodes.find((n) => n.type === type).widgets.find((w) => w.name === "fewstep_recipe").element.children]
          .map((button) => [button.textContent, button.disabled])""",
        node_type,
    )
    return [(text, disabled) for text, disabled in found]


def click(page, node_type: str, index: int) -> None:
    page.js(
        """([type, index]) => app.graph.nodes.find((n) => n.type === type).widgets.find((w) => w.name === "fewstep_recipe")
          .element.children[index].click()""",
        [node_type, index],
    )


def text_of(page) -> str:
    return page.js("(type) => app.graph.nodes.find((n) => n.type === type).widgets.find((w) => w.name === 'text').value", APPLY)


def test_a_recipe_can_be_kept_in_the_workflow_and_copied(comfy):
    if why_no_browser():
        pytest.skip(why_no_browser())
    ns = load_demo_model("edm").noise_schedule
    recipe = Recipe.from_table(build_table("unipc", optimal_sigmas(ns, 5), "edm"), note="buttons")
    recipe.save(comfy.base / "models" / "fewstep" / "recipes" / "for the page.json")
    with open_page(comfy.url) as page:
        page.js(BUILD, "for the page.json")
        assert buttons(page, APPLY) == [("Copy recipe", True), ("Keep in workflow", True)], "nothing has run"
        page.run()
        assert buttons(page, APPLY) == [("Copy recipe", False), ("Keep in workflow", False)]
        assert buttons(page, "FewStepLoadRecipe") == [("Copy recipe", False)]
        assert page.curve(APPLY)["dots"] == 6 and text_of(page) == ""

        click(page, APPLY, 1)
        assert text_of(page) == recipe.to_text()
        assert buttons(page, APPLY)[1] == ("Kept in workflow", True)
        assert recipe.to_text() in str(page.workflow())
        prompt = next(node for node in page.prompt().values() if node["class_type"] == APPLY)
        assert prompt["inputs"]["text"] == recipe.to_text() and "fewstep_recipe" not in prompt["inputs"]

        click(page, "FewStepLoadRecipe", 0)
        page.until(
            """(type) => app.graph.nodes.find((n) => n.type === type).widgets.find((w) => w.name === "fewstep_recipe")
              .element.textContent === "Copied" """,
            "FewStepLoadRecipe",
        )
        assert not page.complaints()
