/**
 * Inputs that have no effect with the present choices are hidden, and choices that the solver does not have are not offered.
 *
 * Hidden is not removed: the widgets stay where they are, with their values, so workflows and prompts are the same with and
 * without this file. An input that something is connected to is never hidden.
 */

import { announce, Rows, setHidden } from "./hidden.mjs";

const AUTO = "auto";
const ALWAYS = ["solver", "algorithm_version"];

/** By node id: f(value of an input by name, facts of the solver) -> { name of an input: whether it has an effect }. */
const RULES = {
  FewStepSampler: (value, solver, names) => {
    const shown = {};
    for (const name of names) {
      if (name === "order") shown.order = !solver || solver.orders.length > 1;
      else if (name === "variant") shown.variant = !solver || solver.variants.length > 1;
      else if (!ALWAYS.includes(name)) shown[name] = !solver || solver.options.includes(name);
    }
    return shown;
  },
  FewStepScheduler: (value, solver) => {
    const optimized = value("schedule") === "optimized";
    const whole = value("p") === AUTO && Number(value("denoise")) === 1 && value("boundary") === "none";
    return {
      p: optimized,
      order: optimized && (!solver || solver.orders.length > 1),
      first_call: optimized && whole,
      boundary_sigma: value("boundary") === "custom",
    };
  },
  FewStepTwoExpertGuider: (value) => ({ boundary_sigma: value("boundary") === "custom" }),
  FewStepKSampler: (value) => ({ steps: !/\d\s*$/.test(String(value("preset"))) }),
  FewStepSplitSigmas: (value) => Object.fromEntries(["step", "sigma", "percent"].map((name) => [name, value("split_at") === name])),
};

export const hasSubOptions = (nodeId) => nodeId in RULES;

export class SubOptions {
  /**
   * @param {object} node
   * @param {string} kind its id
   * @param {object} solvers facts by solver name, from the node's definition; {} where it has no solver
   */
  constructor(node, kind, solvers) {
    Object.assign(this, { node, solvers });
    this.rule = RULES[kind];
    this.rows = new Rows(node);
    this.all = {}; // all choices of an input whose choices depend on the solver
  }

  #widget(name) {
    return this.node.widgets?.find((widget) => widget.name === name);
  }

  /**
   * Apply the rules.
   *
   * @param {string} edited name of the input that was changed by hand, if one was
   * @param {boolean} resize whether the node follows; the size that a workflow was saved with fits already
   */
  apply(edited, resize = true) {
    const { node } = this;
    const spare = Math.max(0, node.size[1] - node.computeSize()[1]);
    const solver = this.solvers[this.#widget("solver")?.value];
    const names = (node.widgets ?? []).filter((widget) => widget.serialize !== false).map((widget) => widget.name);
    const shown = this.rule((name) => this.#widget(name)?.value, solver, names);
    let changed = false;
    for (const [name, isShown] of Object.entries(shown)) {
      const widget = this.#widget(name);
      if (widget) changed = setHidden(node, widget, !isShown) || changed;
    }
    if (solver) {
      this.#restrict("order", solver.orders.map(String), edited === "solver");
      this.#restrict("variant", solver.variants, edited === "solver");
    }
    if (changed && resize) node.setSize([node.size[0], node.computeSize()[1] + spare]);
    if (changed) announce(node);
    this.rows.mark();
  }

  /** Offer only what the solver has. A choice that is lost by choosing another solver becomes "auto"; a loaded one stays. */
  #restrict(name, offered, correct) {
    const widget = this.#widget(name);
    if (!Array.isArray(widget?.options?.values)) return;
    if (!this.all[name]) {
      this.all[name] = [...widget.options.values];
      // The definition's list is shared by all nodes of this kind.
      widget.options.values = [...this.all[name]];
    }
    const values = this.all[name].filter((value) => value === AUTO || offered.length < 2 || offered.includes(String(value)));
    // In place, because renderers may hold the list.
    widget.options.values.splice(0, Infinity, ...values);
    if (correct && !values.includes(widget.value)) widget.value = AUTO;
  }
}
