/** The curve of one node: what to ask for, when to ask, and what the answer stands for. */

import { keepKey, keyOf, preview } from "./previews.mjs";
import { assumedSchedule, modelChain, signatureOf, valueOf } from "./upstream.mjs";
import { CurveView } from "./view.mjs";

const DEBOUNCE = 150; // ms after the last edit
const PRESET_PROPERTY = "FewStep preview"; // "" or absent: from the graph
const AXIS_PROPERTY = "FewStep axis";
const MIN_HEIGHT = 176;
const MIN_WIDTH = 300;

const plain = (node, names) => Object.fromEntries(names.map((name) => [name, valueOf(node, name)]));

/** By node id: the parameters of its preview; null where only a run gives curves. */
const PARAMETERS = {
  FewStepScheduler: (node) => plain(node, ["schedule", "solver", "order", "steps", "denoise", "p", "first_call"]),
  FewStepBaselineScheduler: (node) => plain(node, ["schedule", "steps", "denoise"]),
  FewStepKSampler: (node) => {
    const { steps, preset, ...shown } = plain(node, ["solver", "cfg", "denoise", "algorithm_version", "steps", "preset"]);
    // "Fast 5", "Balanced 8": the number of steps is in the name.
    const named = /(\d+)\s*$/.exec(String(preset));
    return { ...shown, steps: named ? named[1] : steps };
  },
  FewStepPlotSigmas: null,
  FewStepApplyRecipe: null,
  FewStepCalibrate: null,
  FewStepCompareRecipes: null,
  FewStepLoadRecipe: null,
  FewStepAmedScheduler: null,
  FewStepLoadAmed: null,
  FewStepTrainAmed: null,
  FewStepTuneLora: null,
};

export const hasCurve = (nodeId) => nodeId in PARAMETERS;

export class NodeCurve {
  /**
   * @param {object} of { app, api: ComfyUI's; node; kind: its id; presets: () => titles of noise schedules by name;
   *     mounted: called with the box when a renderer has put it into the page }
   */
  constructor({ app, api, node, kind, presets, mounted }) {
    Object.assign(this, { app, api, node, presets });
    this.parameters = PARAMETERS[kind];
    this.executed = null; // curves of the last run in this page
    const on = {
      axis: (axis) => this.#remember(AXIS_PROPERTY, axis),
      preset: (name) => this.choosePreset(name),
      mounted: () => mounted(this.view.element),
    };
    this.view = new CurveView(on, Boolean(this.parameters));
    this.widget = this.#addWidget();
    this.#forwardToCanvas();
    this.restore();
  }

  #addWidget() {
    const widget = this.node.addDOMWidget("fewstep_curve", "fewstep_curve", this.view.element, {
      serialize: false,
      hideOnZoom: true,
      margin: 8,
      getMinHeight: () => MIN_HEIGHT,
      getValue: () => undefined,
      setValue: () => {},
    });
    // One keeps it out of saved workflows, the other (above) out of prompts.
    widget.serialize = false;
    widget.serializeValue = () => undefined;
    const [width, height] = this.node.computeSize();
    this.node.setSize([Math.max(width, MIN_WIDTH), height]);
    return widget;
  }

  /** Read what a loaded workflow keeps of the drawing. */
  restore() {
    const axis = this.node.properties?.[AXIS_PROPERTY] ?? (this.parameters ? undefined : valueOf(this.node, "axis"));
    this.view.setAxis(axis ?? this.view.axis);
    this.refresh();
  }

  choosePreset(name) {
    this.#remember(PRESET_PROPERTY, name);
    this.refresh();
  }

  #remember(property, value) {
    this.node.setProperty?.(property, value);
    this.app.graph?.setDirtyCanvas?.(true, true);
  }

  /** Update the plot from the node and the graph; cheap if nothing has changed. */
  refresh() {
    if (!this.parameters) {
      if (!this.view.curves.length) this.view.message("Run the workflow to see the curves.");
      return;
    }
    const chain = modelChain(this.node);
    const model = signatureOf(chain);
    // What was read from a model says nothing once that is gone.
    const connected = this.node.inputs?.some((input) => input.name === "model" && input.link != null);
    if (!connected) [this.key, this.executed] = ["", null];
    const assumed = assumedSchedule(chain);
    const chosen = this.node.properties?.[PRESET_PROPERTY] || "";
    this.#offerPresets(chosen, assumed);
    const schedule = chosen ? { preset: chosen } : { ...assumed.parameters, key: model ? keyOf(model) : this.key };
    const inputs = this.parameters(this.node);
    const query = queryOf({ ...schedule, ...inputs });
    if (query === this.asked) return;
    this.asked = query;
    this.#stop();
    const because = chosen ? "here" : assumed.because;
    this.timer = setTimeout(() => this.#ask(query, because, Number(inputs.steps)), DEBOUNCE);
  }

  async #ask(query, because, steps) {
    const request = (this.request = new AbortController());
    let answer;
    try {
      answer = await preview(this.api, query, request.signal);
    } catch (error) {
      if (request.signal.aborted) return;
      this.asked = null; // the next refresh tries again
      answer = { error: `No preview: ${error.message}` };
    }
    if (request.signal.aborted) return;
    if (answer.error) {
      // Long lists have no preview, but what ran can be shown.
      if (this.executed?.[0].sigmas.length === steps + 1) return;
      this.view.show([]);
      this.view.message(answer.error, true);
      return;
    }
    const exact = answer.assumed.source === "model";
    if (this.executed && sameLevels(answer.curves, this.executed)) {
      this.#showExecuted();
      return;
    }
    this.view.show(answer.curves, {
      calls: calls(answer.curves[0], valueOf(this.node, "cfg")),
      state: exact ? "exact for this model" : "preview",
      exact,
      assumes: !exact,
      detail: exact ? "Uses the noise schedule that a run has read from this model." : `Noise schedule of ${answer.assumed.title}, chosen ${because}. Exact after a run.`,
    });
  }

  #showExecuted() {
    const curves = this.executed;
    this.view.show(curves, {
      calls: this.parameters ? calls(curves[0], valueOf(this.node, "cfg")) : "",
      state: "exact, as run",
      detail: "The noise levels of the last run.",
      exact: true,
    });
  }

  #offerPresets(chosen, assumed) {
    const titles = this.presets();
    const automatic = titles[assumed.parameters.preset] ?? assumed.parameters.preset;
    const state = JSON.stringify([chosen, automatic, Object.keys(titles).length]);
    if (state === this.offered) return;
    this.offered = state;
    this.view.setChoices([["", automatic], ...Object.entries(titles).map(([name, title]) => [name, title])], chosen);
  }

  /** A run's outputs for this node. */
  onExecuted(output) {
    const curves = output?.fewstep_curve;
    if (output?.text) this.view.setReport([].concat(output.text).join("\n"));
    if (!curves?.length) return;
    this.executed = curves;
    this.#stop();
    this.#showExecuted();
    if (!this.parameters) return;
    this.key = curves[0].key;
    const model = signatureOf(modelChain(this.node));
    if (model && this.key) keepKey(model, this.key);
    // Inputs may have been edited since the run was queued: the preview for those of now tells.
    this.asked = null;
    this.refresh();
  }

  #stop() {
    clearTimeout(this.timer);
    this.request?.abort();
  }

  /** Let the wheel and the middle button move the graph over the drawing too; the new renderer does that by itself. */
  #forwardToCanvas() {
    const middle = 1;
    for (const [name, handler] of [["pointerdown", "processMouseDown"], ["pointermove", "processMouseMove"], ["pointerup", "processMouseUp"]]) {
      this.view.element.addEventListener(name, (event) => {
        const isMiddle = event.button === middle || Boolean(event.buttons & 4);
        if (isMiddle && !this.view.element.closest(".lg-node")) this.app.canvas?.[handler]?.(event);
      });
    }
    this.view.element.addEventListener(
      "wheel",
      (event) => {
        if (this.view.element.closest(".lg-node")) return;
        const { report } = this.view;
        if (!report.hidden && report.scrollHeight > report.clientHeight && !event.ctrlKey) return;
        event.preventDefault();
        this.app.canvas?.processMouseWheel?.(event);
      },
      { passive: false },
    );
  }

  dispose() {
    this.#stop();
    this.view.destroy();
  }
}

function queryOf(parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== null && value !== "") query.set(name, value);
  }
  return query.toString();
}

const sameLevels = (some, others) => JSON.stringify(some.map((curve) => curve.sigmas)) === JSON.stringify(others.map((curve) => curve.sigmas));

/** "6 calls (12 with CFG)"; `cfg` where the node knows the guidance scale. */
function calls({ nfe, calls_with_cfg: doubled }, cfg) {
  const count = `${nfe} ${nfe === 1 ? "call" : "calls"}`;
  return doubled && doubled !== nfe && cfg !== 1 ? `${count} (${doubled} with CFG)` : count;
}
