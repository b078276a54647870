/** FewStep in ComfyUI's page: curves inside scheduler nodes, inputs that fit the solver, two settings. */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { hasCurve, NodeCurve } from "./node_curve.mjs";
import { Note, solverWords } from "./note.mjs";
import { catalog } from "./previews.mjs";
import { hasRecipe, RecipeButtons } from "./recipe.mjs";
import { hasSubOptions, SubOptions } from "./sub_options.mjs";

const CURVE_SETTING = "FewStep.Curve";
const DROPDOWN_SETTING = "FewStep.Dropdown";

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("./fewstep.css", import.meta.url).href;
document.head.append(style);

/** What this file keeps for its nodes: { curve?, note?, options?, recipe? }. */
const parts = new WeakMap();
/** Nodes that take their values from a workflow now. */
const loading = new WeakSet();
let presets = {};

function refreshAll(graph = app.rootGraph ?? app.graph) {
  for (const node of graph?.nodes ?? []) {
    if (node.subgraph) refreshAll(node.subgraph);
    else if (parts.has(node)) edited(node);
  }
}

function edited(node, name) {
  const { curve, note, options, recipe } = parts.get(node) ?? {};
  options?.apply(name, !loading.has(node));
  recipe?.refresh();
  note?.refresh();
  curve?.refresh();
}

function add(node, kind, solvers) {
  const own = {};
  parts.set(node, own);
  for (const widget of node.widgets ?? []) {
    const before = widget.callback;
    widget.callback = function (...args) {
      const result = before?.apply(this, args);
      edited(node, widget.name);
      return result;
    };
  }
  // Whichever element of ours the renderer mounts tells where the node's rows are.
  const mounted = (element) => own.options?.rows.attach(element);
  if (hasCurve(kind) && app.ui.settings.getSettingValue(CURVE_SETTING) !== false) {
    own.curve = new NodeCurve({ app, api, node, kind, presets: () => presets, mounted });
  } else if (hasSubOptions(kind)) {
    const solver = () => solvers[node.widgets.find((widget) => widget.name === "solver")?.value];
    own.note = new Note(node, () => (kind === "FewStepSampler" ? solverWords(solver()) : ""), () => mounted(own.note.element));
  }
  if (hasSubOptions(kind)) {
    own.options = new SubOptions(node, kind, solvers);
  }
  if (hasRecipe(kind)) own.recipe = new RecipeButtons({ app, node, kind });
  edited(node);
}

function chain(prototype, name, after) {
  const before = prototype[name];
  prototype[name] = function (...args) {
    const result = before?.apply(this, args);
    after.apply(this, args);
    return result;
  };
}

app.registerExtension({
  name: "FewStep",
  settings: [
    {
      id: CURVE_SETTING,
      category: ["FewStep", "Nodes", "Curve"],
      name: "Show the noise levels inside scheduler nodes",
      tooltip: "Applies to nodes added or loaded from now on.",
      type: "boolean",
      defaultValue: true,
    },
    {
      id: DROPDOWN_SETTING,
      category: ["FewStep", "Nodes", "Dropdown"],
      name: "Add FewStep's schedulers and samplers to the menus of KSampler and other nodes",
      tooltip: "Takes effect when ComfyUI restarts. The environment variable FEWSTEP_DROPDOWN=0 turns it off too.",
      type: "boolean",
      defaultValue: true,
    },
  ],

  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (!hasCurve(nodeData.name) && !hasSubOptions(nodeData.name) && !hasRecipe(nodeData.name)) return;
    const inputs = { ...nodeData.input?.required, ...nodeData.input?.optional };
    const solvers = inputs.solver?.[1]?.fewstep_solvers ?? {};
    chain(nodeType.prototype, "onNodeCreated", function () {
      add(this, nodeData.name, solvers);
    });
    const { configure } = nodeType.prototype;
    nodeType.prototype.configure = function (...args) {
      loading.add(this);
      try {
        configure.apply(this, args);
        edited(this);
        parts.get(this)?.curve?.restore();
      } finally {
        loading.delete(this);
      }
    };
    chain(nodeType.prototype, "onConnectionsChange", function () {
      // Links are complete only after this call.
      queueMicrotask(() => edited(this));
    });
    chain(nodeType.prototype, "onExecuted", function (output) {
      parts.get(this)?.curve?.onExecuted(output);
      parts.get(this)?.recipe?.onExecuted(output);
    });
    chain(nodeType.prototype, "onRemoved", function () {
      const own = parts.get(this);
      parts.delete(this);
      own?.curve?.dispose();
      own?.note?.dispose();
      own?.options?.rows.dispose();
    });
  },

  async setup() {
    // Any edit anywhere, undo and redo included: a node before ours may have changed the model.
    api.addEventListener("graphChanged", () => refreshAll());
    try {
      presets = (await catalog(api)).presets;
      refreshAll();
    } catch (error) {
      console.warn("FewStep: no list of noise schedules for previews:", error);
    }
  },
});
