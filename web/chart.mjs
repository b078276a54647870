/**
 * Noise levels over steps as an SVG drawing: sharp at every zoom of the graph and every pixel ratio, coloured by style sheet.
 *
 * A curve is the object that the server sends: { sigmas, lambdas (null where infinite), percent, label, ... }.
 */

export const AXES = ["log", "linear", "half-log-SNR"];

const NAMES = { log: "σ, logarithmic", linear: "σ, linear", "half-log-SNR": "half-log-SNR λ" };
const MARGIN = { left: 38, right: 10, top: 8, bottom: 17 };
const OUTSIDE = 9; // pixels between the axis' end and a point that lies at infinity
const SVG = "http://www.w3.org/2000/svg";

/** The height of level i on an axis; ±Infinity where it has none (σ = 0 on a logarithmic axis). */
function height(curve, i, axis) {
  const sigma = curve.sigmas[i];
  if (axis === "linear") return sigma;
  if (axis === "log") return sigma > 0 ? Math.log10(sigma) : -Infinity;
  return curve.lambdas[i] ?? (sigma > 0 ? -Infinity : Infinity);
}

/** Where everything lies in a drawing of the given size. */
export function layout(curves, axis, width, heightPx) {
  const heights = curves.map((curve) => curve.sigmas.map((_, i) => height(curve, i, axis)));
  const finite = heights.flat().filter(Number.isFinite);
  let low = finite.length ? Math.min(...finite) : 0;
  let high = finite.length ? Math.max(...finite) : 1;
  if (axis === "linear") low = Math.min(low, 0);
  if (high - low < 1e-9) [low, high] = [low - 0.5, high + 0.5];
  const ends = heights.flat();
  const top = MARGIN.top + (ends.includes(Infinity) ? OUTSIDE : 0);
  const bottom = heightPx - MARGIN.bottom - (ends.includes(-Infinity) ? OUTSIDE : 0);
  const steps = Math.max(1, ...curves.map((curve) => curve.sigmas.length - 1));
  const x = (i) => MARGIN.left + ((width - MARGIN.left - MARGIN.right) * i) / steps;
  const y = (value) => {
    if (value === Infinity) return MARGIN.top;
    if (value === -Infinity) return heightPx - MARGIN.bottom;
    return bottom + ((top - bottom) * (value - low)) / (high - low);
  };
  return { heights, low, high, steps, x, y, width, height: heightPx };
}

/** Round values inside [low, high], about `wanted` of them. */
function ticks(low, high, wanted) {
  const raw = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= raw);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
  return found;
}

/** Ticks of the vertical axis: [position on the axis, text]. */
function verticalTicks(low, high, axis, wanted) {
  if (axis !== "log") return ticks(low, high, wanted).map((value) => [value, text(value)]);
  const whole = [];
  for (let power = Math.ceil(low - 1e-9); power <= high + 1e-9; power++) whole.push(power);
  if (whole.length >= 2) {
    const every = Math.ceil(whole.length / Math.max(2, wanted));
    return whole.filter((_, i) => i % every === 0).map((power) => [power, text(10 ** power)]);
  }
  const fine = [];
  for (let power = Math.floor(low); power <= high; power++) {
    for (const factor of [1, 2, 5]) fine.push(power + Math.log10(factor));
  }
  return fine.filter((value) => value >= low && value <= high).map((value) => [value, text(10 ** value)]);
}

/** A number short enough to read: 4 significant digits. */
export function text(value) {
  if (value === 0 || Math.abs(value) < 1e-12) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-4) return value.toExponential(1).replace("-", "−").replace("e+", "e");
  return String(Number(value.toPrecision(4))).replace("-", "−");
}

function element(parent, name, attributes, content) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (content !== undefined) made.textContent = content;
  parent.append(made);
  return made;
}

/** Draw into `svg`, replacing what is there. `hover` is { curve, step } or null. */
export function draw(svg, curves, axis, place, hover) {
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${place.width} ${place.height}`);
  const right = place.width - MARGIN.right;
  for (const [value, label] of verticalTicks(place.low, place.high, axis, place.height / 32)) {
    const y = place.y(value);
    element(svg, "line", { class: "grid", x1: MARGIN.left, x2: right, y1: y, y2: y });
    element(svg, "text", { x: MARGIN.left - 5, y: y + 3.5, "text-anchor": "end" }, label);
  }
  if (axis === "log" && place.heights.flat().includes(-Infinity)) {
    element(svg, "text", { x: MARGIN.left - 5, y: place.height - MARGIN.bottom + 3.5, "text-anchor": "end" }, "0");
  }
  const every = Math.max(1, Math.ceil(place.steps / Math.max(1, Math.floor((right - MARGIN.left) / 22))));
  for (let step = 0; step <= place.steps; step += every) {
    element(svg, "text", { x: place.x(step), y: place.height - 4, "text-anchor": "middle" }, String(step));
  }
  if (hover) {
    const x = place.x(hover.step);
    element(svg, "line", { class: "guide", x1: x, x2: x, y1: MARGIN.top, y2: place.height - MARGIN.bottom });
  }
  curves.forEach((_, c) => curveOf(svg, place, c, hover));
  const name = element(svg, "text", { x: right, y: MARGIN.top + 8, "text-anchor": "end" }, NAMES[axis]);
  // Rising curves end in that corner.
  if (axis === "half-log-SNR") {
    name.setAttribute("x", MARGIN.left + 5);
    name.setAttribute("text-anchor", "start");
  }
}

function curveOf(svg, place, c, hover) {
  const points = place.heights[c].map((value, i) => ({ x: place.x(i), y: place.y(value), finite: Number.isFinite(value), i }));
  const group = element(svg, "g", { class: `fewstep-curve-${c % 4}` });
  const path = (some) => some.map((p, k) => `${k ? "L" : "M"}${p.x.toFixed(2)} ${p.y.toFixed(2)}`).join("");
  const inside = points.filter((p) => p.finite);
  if (inside.length > 1) element(group, "path", { d: path(inside) });
  points.forEach((p, k) => {
    if (p.finite) return;
    const neighbour = points[k + 1]?.finite ? points[k + 1] : points[k - 1];
    if (neighbour?.finite) element(group, "path", { class: "tail", d: path([neighbour, p]) });
  });
  const radius = points.length > 40 ? 1.5 : 2.75;
  for (const p of points) {
    const pointed = hover && hover.curve === c && hover.step === p.i;
    element(group, "circle", { cx: p.x, cy: p.y, r: pointed ? radius + 2 : radius, class: p.finite ? "" : "hollow" });
  }
}

/** The point nearest to (x, y) of the drawing: { curve, step }, or null. */
export function nearest(place, x, y) {
  let best = null;
  place.heights.forEach((heights, curve) => {
    const step = Math.min(heights.length - 1, Math.max(0, Math.round((x - place.x(0)) / (place.x(1) - place.x(0)))));
    // Across first: the guide follows the pointer's step; up and down decides between curves.
    const distance = Math.abs(place.x(step) - x) * 4 + Math.abs(place.y(heights[step]) - y);
    if (!best || distance < best.distance) best = { curve, step, distance };
  });
  return best && { curve: best.curve, step: best.step };
}

/** What hovering says about a point. */
export function describe(curves, point) {
  const curve = curves[point.curve];
  const { step } = point;
  const lambda = curve.lambdas[step] ?? (curve.sigmas[step] > 0 ? -Infinity : Infinity);
  const parts = [
    `step ${step} of ${curve.sigmas.length - 1}`,
    `σ ${text(curve.sigmas[step])}`,
    `λ ${Number.isFinite(lambda) ? text(lambda) : lambda > 0 ? "∞" : "−∞"}`,
  ];
  const percent = curve.percent?.[step];
  if (percent !== null && percent !== undefined) parts.push(`${(100 * percent).toFixed(1)} %`);
  return (curves.length > 1 ? `${curve.label}: ` : "") + parts.join("  ·  ");
}
