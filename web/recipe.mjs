/** Buttons of nodes that have a recipe: copy its text, and keep it in the workflow. */

import { valueOf } from "./upstream.mjs";

const APPLY = "FewStepApplyRecipe";
const KINDS = new Set([
  APPLY, "FewStepCalibrate", "FewStepCompareRecipes", "FewStepLoadRecipe", "FewStepSaveRecipe", "FewStepRecipeToText", "FewStepTuneLora",
]);
const HEIGHT = 28;
const SAID = 1500; // ms that a button says what it did

export const hasRecipe = (nodeId) => KINDS.has(nodeId);

export class RecipeButtons {
  /** @param {object} of { app: ComfyUI's; node; kind: its id } */
  constructor({ app, node, kind }) {
    Object.assign(this, { app, node, text: "" });
    this.element = document.createElement("div");
    this.element.className = "fewstep-buttons";
    this.copy = this.#button("Copy recipe", "Copy the recipe's text, to share it or to paste it into FewStep Apply Recipe", () => this.#copy());
    if (kind === APPLY) {
      this.keep = this.#button("Keep in workflow", "Write the recipe into this node, so that the workflow gives the same result without the connected nodes", () => this.#keep());
    }
    const widget = node.addDOMWidget("fewstep_recipe", "fewstep_recipe", this.element, {
      serialize: false,
      hideOnZoom: true,
      margin: 4,
      getMinHeight: () => HEIGHT,
      getMaxHeight: () => HEIGHT,
      getValue: () => undefined,
      setValue: () => {},
    });
    widget.serialize = false;
    widget.serializeValue = () => undefined;
    this.refresh();
  }

  #button(label, title, action) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "fewstep-button", textContent: label, title });
    button.addEventListener("click", action);
    button.dataset.label = label;
    this.element.append(button);
    return button;
  }

  /** A run's outputs for this node. */
  onExecuted(output) {
    const texts = [].concat(output?.fewstep_recipe ?? []);
    if (texts.length) this.text = texts.join("\n");
    this.refresh();
  }

  /** Offer what can be done now: before a run there is only what was pasted. */
  refresh() {
    const pasted = this.keep ? String(valueOf(this.node, "text") ?? "").trim() : "";
    this.copy.disabled = !(this.text || pasted);
    if (!this.keep) return;
    const kept = Boolean(pasted);
    this.keep.disabled = kept || !this.text;
    this.keep.textContent = kept ? "Kept in workflow" : this.keep.dataset.label;
  }

  async #copy() {
    const pasted = this.keep ? String(valueOf(this.node, "text") ?? "").trim() : "";
    const done = await copied(pasted || this.text);
    this.copy.textContent = done ? "Copied" : "Copying was blocked";
    setTimeout(() => (this.copy.textContent = this.copy.dataset.label), SAID);
  }

  #keep() {
    const widget = this.node.widgets.find((widget) => widget.name === "text");
    if (!widget || !this.text) return;
    widget.value = this.text;
    widget.callback?.(this.text);
    this.app.graph?.setDirtyCanvas?.(true, true);
    this.refresh();
  }
}

/** Whether `text` is on the clipboard now. Pages that are not https, except localhost, have only the old way. */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
