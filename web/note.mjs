/** A line of text at the foot of a node. */

export class Note {
  /**
   * @param {object} node
   * @param {() => string} words what to say; "" takes no room
   * @param {() => void} mounted called when a renderer has put the line into the page
   */
  constructor(node, words, mounted) {
    this.words = words;
    this.element = document.createElement("div");
    this.element.className = "fewstep-note";
    const widget = node.addDOMWidget("fewstep_note", "fewstep_note", this.element, {
      serialize: false,
      hideOnZoom: true,
      margin: 4,
      getMinHeight: () => (this.element.textContent ? 26 : 0),
      getMaxHeight: () => (this.element.textContent ? 26 : 0),
      getValue: () => undefined,
      setValue: () => {},
    });
    widget.serialize = false;
    widget.serializeValue = () => undefined;
    this.observer = new ResizeObserver(mounted);
    this.observer.observe(this.element);
    this.refresh();
  }

  refresh() {
    const words = this.words();
    if (this.element.textContent === words) return;
    this.element.textContent = words;
    this.element.title = words;
  }

  dispose() {
    this.observer.disconnect();
  }
}

/** How often a solver calls the model, by the facts of a node's definition. */
export function solverWords(solver) {
  if (!solver) return "";
  const n = solver.calls_per_step;
  const last = n === 1 ? "" : ", the last step 1";
  return `${solver.title}: ${n} ${n === 1 ? "call" : "calls"} per step (${2 * n} with CFG)${last}`;
}
