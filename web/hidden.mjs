/**
 * Hiding a widget in all renderers of nodes: the one file that knows how pages differ.
 *
 * The canvas reads `widget.hidden`. The Vue renderer ("Nodes 2.0") reads the option of that name, whenever the node's list of widgets
 * changes. That of older pages (1.32, say) goes on with copies of the options once a widget was edited: there the rows are hidden.
 */

/** Whether the page's Vue renderer reads options again; such pages give widgets an id. */
const readsOptions = (widget) => "widgetId" in widget;

/** Hide or show a widget; returns whether that was a change. An input that something is connected to is never hidden. */
export function setHidden(node, widget, hidden) {
  const linked = node.inputs?.some((input) => input.widget?.name === widget.name && input.link != null);
  const wanted = hidden && !linked;
  if (Boolean(widget.hidden) === wanted) return false;
  widget.hidden = wanted;
  if (readsOptions(widget)) widget.options = Object.assign(widget.options ?? {}, { hidden: wanted });
  // Canvas layouts up to 1.32 keep room for hidden widgets unless they say that they need none; -4 is the gap between rows.
  if (wanted) widget.computeSize = () => [0, -4];
  else delete widget.computeSize;
  return true;
}

/** Let the page know that widgets were hidden or shown. */
export function announce(node) {
  if (node.widgets?.some(readsOptions)) node.widgets = [...node.widgets];
  node.setDirtyCanvas?.(true, true);
}

/** The rows of a node in the Vue renderer of older pages; nothing in others. */
export class Rows {
  constructor(node) {
    this.node = node;
    this.rows = null;
    this.observer = new MutationObserver(() => this.mark());
  }

  /** Find the rows by an element of this pack inside the node, which a renderer has mounted. */
  attach(anchor) {
    if (this.node.widgets?.some(readsOptions)) return;
    const rows = anchor?.closest(".lg-node-widgets") ?? null;
    if (rows === this.rows) return;
    this.observer.disconnect();
    this.rows = rows;
    if (rows) this.observer.observe(rows, { childList: true });
    this.mark();
  }

  mark() {
    if (!this.rows) return;
    const hidden = new Set((this.node.widgets ?? []).filter((widget) => widget.hidden).map((widget) => widget.label || widget.name));
    for (const row of this.rows.children) {
      const label = [...row.querySelectorAll("p, label, span")].map((part) => part.textContent.trim()).find(Boolean);
      const display = hidden.has(label) ? "none" : "";
      if (row.style.display !== display) row.style.display = display;
    }
  }

  dispose() {
    this.observer.disconnect();
    this.rows = null;
  }
}
