/** The box inside a node: model calls, the drawing, what the curve stands for, and the report of the last run. */

import { AXES, describe, draw, layout, nearest } from "./chart.mjs";

const HINT = "Click to change the axis: logarithmic, linear, half-log-SNR.";
const DRAG = 4; // pixels a pointer may move between press and release of a click

function make(name, className, attributes = {}) {
  const made = document.createElement(name);
  made.className = className;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export class CurveView {
  /**
   * @param {object} on callbacks: axis(name) after a click, preset(name) after a choice ("" is automatic), mounted() when a
   *     renderer has put the box into the page
   * @param {boolean} choice whether the noise schedule of the preview can be chosen
   */
  constructor(on, choice) {
    this.on = on;
    this.curves = [];
    this.axis = AXES[0];
    this.hover = null;
    this.idle = "";
    this.#build(choice);
    this.observer = new ResizeObserver(() => {
      this.redraw();
      this.on.mounted();
    });
    this.observer.observe(this.plot);
  }

  #build(choice) {
    this.element = make("div", "fewstep");
    const head = make("div", "fewstep-line");
    this.calls = make("span", "fewstep-calls");
    this.state = make("span", "fewstep-state");
    head.append(this.calls, this.state);
    this.plot = make("div", "fewstep-plot", { title: HINT });
    this.svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.svg.setAttribute("role", "img");
    // The attribute lets the new renderer scroll the text instead of zooming the graph.
    this.report = make("pre", "fewstep-report", { hidden: "", "data-capture-wheel": "true" });
    this.plot.append(this.svg, this.report);
    this.legend = make("div", "fewstep-legend", { hidden: "" });
    const foot = make("div", "fewstep-line");
    this.readout = make("span", "fewstep-readout");
    foot.append(this.readout);
    if (choice) {
      this.choice = make("label", "fewstep-choice");
      this.select = make("select", "", { "aria-label": "Noise schedule of the preview" });
      this.select.addEventListener("change", () => this.on.preset(this.select.value));
      this.choice.append("for", this.select);
      foot.append(this.choice);
    }
    this.button = make("button", "fewstep-button", { type: "button", hidden: "", title: "What the node reported when it ran" });
    this.button.addEventListener("click", () => this.#showReport(this.report.hidden));
    foot.append(this.button);
    this.element.append(head, this.plot, this.legend, foot);

    let pressed = null;
    this.plot.addEventListener("pointerdown", (event) => (pressed = [event.clientX, event.clientY]));
    this.plot.addEventListener("click", (event) => {
      const moved = pressed ? Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) : 0;
      if (moved <= DRAG && this.report.hidden && this.curves.length) this.#nextAxis();
    });
    this.plot.addEventListener("pointermove", (event) => this.#pointAt(event));
    this.plot.addEventListener("pointerleave", () => this.#point(null));
    this.#showReport(false);
  }

  /**
   * Show curves. `state` is what they stand for, `detail` explains it, `exact` whether a run made them, `assumes` whether the
   * choice of a noise schedule decides them.
   */
  show(curves, { calls = "", state = "", detail = "", exact = false, assumes = false } = {}) {
    this.curves = curves;
    this.calls.textContent = calls;
    this.state.textContent = state;
    this.state.title = detail;
    this.state.dataset.exact = exact;
    this.assumes = assumes;
    if (this.choice) this.choice.title = detail;
    this.hover = null;
    this.message("");
    this.legend.replaceChildren(
      ...curves.map((curve, c) => {
        const entry = make("span", `fewstep-curve-${c % 4}`);
        entry.append(make("i", ""), curve.label);
        return entry;
      }),
    );
    this.legend.hidden = curves.length < 2;
    this.redraw();
  }

  /** A line below the drawing, for as long as nothing is pointed at. */
  message(words, isError = false) {
    this.idle = words;
    this.idleIsError = isError;
    this.#say(words, isError);
  }

  #say(words, isError = false) {
    this.readout.textContent = words;
    this.readout.title = words;
    this.readout.dataset.error = isError;
    this.readout.hidden = !words;
    if (this.choice) this.choice.hidden = Boolean(words) || !this.assumes;
  }

  /** Offer the text of the last run's report behind a button; "" takes the button away. */
  setReport(words) {
    this.report.textContent = words;
    this.button.hidden = !words;
    if (!words) this.#showReport(false);
  }

  /** The entries [value, text] of the choice, and the chosen value. */
  setChoices(entries, chosen) {
    if (!this.choice) return;
    this.select.replaceChildren(...entries.map(([value, words]) => new Option(words, value, false, value === chosen)));
  }

  setAxis(axis) {
    this.axis = AXES.includes(axis) ? axis : AXES[0];
    this.redraw();
  }

  redraw() {
    const { clientWidth: width, clientHeight: height } = this.plot;
    if (width < 20 || height < 20) return;
    if (!this.curves.length) {
      this.svg.replaceChildren();
      return;
    }
    this.place = layout(this.curves, this.axis, width, height);
    draw(this.svg, this.curves, this.axis, this.place, this.hover);
    const levels = this.curves.map((curve) => `${curve.label}: ${curve.sigmas.map((s) => Number(s.toPrecision(4))).join(", ")}`);
    this.svg.setAttribute("aria-label", `Noise levels. ${levels.join(". ")}`);
  }

  destroy() {
    this.observer.disconnect();
  }

  #nextAxis() {
    this.setAxis(AXES[(AXES.indexOf(this.axis) + 1) % AXES.length]);
    this.#point(null);
    this.on.axis(this.axis);
  }

  #pointAt(event) {
    if (!this.curves.length || !this.place || !this.report.hidden) return;
    const box = this.svg.getBoundingClientRect();
    // The graph's zoom scales the box on screen, not the drawing's own units.
    const scale = box.width / this.place.width || 1;
    this.#point(nearest(this.place, (event.clientX - box.left) / scale, (event.clientY - box.top) / scale));
  }

  #point(point) {
    if (point?.curve === this.hover?.curve && point?.step === this.hover?.step) return;
    this.hover = point;
    if (point) this.#say(describe(this.curves, point));
    else this.#say(this.idle, this.idleIsError);
    this.redraw();
  }

  #showReport(shown) {
    this.report.hidden = !shown;
    this.button.textContent = shown ? "curve" : "report";
    this.plot.title = shown ? "" : HINT;
    this.plot.style.cursor = shown ? "text" : "";
  }
}
