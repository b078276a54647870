/**
 * Which noise schedule a node's model has, as far as the graph tells: nodes that change it, else the loader's file name.
 *
 * Only for previews. When the node runs, the server reads the schedule from the model itself.
 */

const BYPASSED = 4;
const LONGEST_WALK = 200;

/** The value of a widget, or of what is linked into it where that is a node with a single value. */
export function valueOf(node, name) {
  const slot = node.inputs?.findIndex((input) => input.widget?.name === name) ?? -1;
  if (slot >= 0 && node.inputs[slot].link != null) {
    const origin = originOf(node, slot)?.node;
    const values = origin?.widgets?.filter((widget) => ["number", "string", "boolean"].includes(typeof widget.value)) ?? [];
    const first = values[0]?.value;
    return first === "" ? undefined : first;
  }
  return node.widgets?.find((widget) => widget.name === name)?.value;
}

/** { node, slot } of the output that feeds an input, through the borders of subgraphs; null where nothing does. */
function originOf(node, slot) {
  const graph = node.graph;
  const id = node.inputs?.[slot]?.link;
  const link = id == null ? null : (graph?.getLink?.(id) ?? graph?.links?.[id]);
  if (!link) return null;
  const origin = graph.getNodeById(link.origin_id);
  if (origin?.subgraph) return insideOf(origin, link.origin_slot);
  if (origin) return { node: origin, slot: link.origin_slot };
  // The link starts at the border of a subgraph: go on outside, at the node that stands for it.
  const outer = graph.rootGraph && graph !== graph.rootGraph ? holderOf(graph.rootGraph, graph) : null;
  return outer ? originOf(outer, link.origin_slot) : null;
}

function insideOf(holder, slot) {
  const { subgraph } = holder;
  const link = subgraph.getLink?.(subgraph.outputs?.[slot]?.linkIds?.[0]);
  const origin = link && subgraph.getNodeById(link.origin_id);
  return origin ? { node: origin, slot: link.origin_slot } : null;
}

function holderOf(graph, wanted) {
  for (const node of graph.nodes ?? []) {
    if (!node.subgraph) continue;
    const found = node.subgraph === wanted ? node : holderOf(node.subgraph, wanted);
    if (found) return found;
  }
  return null;
}

/** The nodes that a MODEL input depends on, the nearest first. */
export function modelChain(node, inputName = "model") {
  const chain = [];
  let at = { node, slot: node.inputs?.findIndex((input) => input.name === inputName) ?? -1 };
  while (at.slot >= 0 && chain.length < LONGEST_WALK) {
    const origin = originOf(at.node, at.slot);
    if (!origin || chain.includes(origin.node)) break;
    chain.push(origin.node);
    const inputs = origin.node.inputs ?? [];
    // Reroutes have one input of any type.
    const slot = inputs.findIndex((input) => input.type === "MODEL");
    at = { node: origin.node, slot: slot >= 0 ? slot : inputs.findIndex((input) => input.type === "*") };
  }
  return chain;
}

/** All that the noise schedule can depend on, as text to compare; "" where no model is known. */
export function signatureOf(chain) {
  const values = (node) => (node.widgets ?? []).map(({ name }) => [name, valueOf(node, name)]);
  return chain.length ? JSON.stringify(chain.map((node) => [node.type, node.mode, values(node)])) : "";
}

/** File names of published models and the noise schedule they are trained with; the first match counts. */
const FILES = [
  [/svd|stable.?video|sv3d/, "svd"],
  [/x4.?upscal/, "sd_x4_upscaler"],
  [/cascade.*stage.?b|stage_b/, "stable_cascade_b"],
  [/cascade|stage_c/, "stable_cascade_c"],
  [/stable.?audio/, "stable_audio"],
  [/playground.*2.?5/, "playground25"],
  [/cosmos.*predict.?2/, "cosmos_predict2"],
  [/cosmos/, "cosmos"],
  [/sd.?3|stable.?diffusion.?3/, "sd3"],
  [/flux.?2/, "flux2"],
  [/schnell/, "flux_schnell"],
  [/chroma/, "chroma"],
  [/flux|kontext/, "flux"],
  [/qwen/, "qwen_image"],
  [/z.?image/, "z_image"],
  [/lumina/, "lumina2"],
  [/hidream/, "hidream"],
  [/omnigen/, "omnigen2"],
  [/hunyuan.?image.*refiner/, "hunyuan_image_refiner"],
  [/hunyuan.?image/, "hunyuan_image"],
  [/hunyuan.?3d/, "hunyuan3d"],
  [/hunyuan.?(video|1\.5)/, "hunyuan_video"],
  [/hunyuan.?dit.*1[._]?[01]/, "hunyuan_dit1"],
  [/hunyuan.?dit/, "hunyuan_dit"],
  [/\bwan|wan.?2|wan_/, "wan"],
  [/mochi/, "mochi"],
  [/ltx/, "ltxv"],
  [/aura.?flow|pony.?v7/, "auraflow"],
  [/ace.?step/, "ace_step"],
  [/pixart/, "pixart"],
  [/v.?pred|zsnr|ztsnr/, "zsnr"],
  [/refiner/, "sdxl_refiner"],
  [/xl|pony|illustrious|noob|animagine/, "sdxl"],
  [/v2.?1.?768|768.?v|sd.?2.?1/, "sd21v"],
  [/v2.?0|512.?base|sd.?2/, "sd20"],
];

/** The preset that a file name stands for, or "" where it says nothing. */
export function presetOfFile(file) {
  const name = file.toLowerCase().split(/[\\/]/).pop();
  return FILES.find(([pattern]) => pattern.test(name))?.[1] ?? "";
}

/** Nodes that replace the model's noise schedule: what they make of it, as parameters of the preview. */
const CHANGES = {
  ModelSamplingDiscrete: (node) => ({ preset: valueOf(node, "zsnr") ? "zsnr" : "sd15" }),
  ModelSamplingSD3: (node) => ({ preset: "sd3", shift: valueOf(node, "shift") }),
  ModelSamplingAuraFlow: (node) => ({ preset: "sd3", shift: valueOf(node, "shift") }),
  ModelSamplingFlux: (node) => {
    // ComfyUI's rule: the shift is linear in the number of 16 x 16 pixel patches, from 256 to 4096 of them.
    const [low, high] = [valueOf(node, "base_shift"), valueOf(node, "max_shift")];
    const patches = (valueOf(node, "width") * valueOf(node, "height")) / 256;
    return { preset: "flux", mu: low + ((high - low) * (patches - 256)) / (4096 - 256) };
  },
  ModelSamplingContinuousEDM: (node) => ({
    preset: valueOf(node, "sampling") === "cosmos_rflow" ? "cosmos_predict2" : "edm",
    sigma_min: valueOf(node, "sigma_min"),
    sigma_max: valueOf(node, "sigma_max"),
  }),
  ModelSamplingContinuousV: (node) => ({
    preset: "stable_audio",
    sigma_min: valueOf(node, "sigma_min"),
    sigma_max: valueOf(node, "sigma_max"),
  }),
  ModelSamplingStableCascade: (node) => ({ preset: "stable_cascade_c", shift: valueOf(node, "shift") }),
};

/**
 * What the preview assumes for a chain from `modelChain`.
 *
 * @returns {{parameters: object, because: string}} parameters of the server's preview, and why, for a tooltip
 */
export function assumedSchedule(chain) {
  for (const node of chain) {
    if (node.mode === BYPASSED) continue;
    if (node.type === "FewStepLoadDemoModel") {
      const kind = valueOf(node, "model") === "emoji" ? "emoji" : valueOf(node, "family");
      return { parameters: { preset: `demo_${kind}` }, because: "from the built-in demo model" };
    }
    const parameters = CHANGES[node.type]?.(node);
    if (parameters && Object.values(parameters).every((value) => value !== undefined && !Number.isNaN(value))) {
      return { parameters, because: `from the node ${node.title || node.type}` };
    }
  }
  const loader = chain.at(-1);
  const file = (loader?.widgets ?? []).map((widget) => widget.value).find((value) => /\.(safetensors|sft|ckpt|gguf|pth?|bin)$/i.test(String(value)));
  const preset = file ? presetOfFile(file) : "";
  if (preset) return { parameters: { preset }, because: `from the file name ${file}` };
  if (loader?.type === "ImageOnlyCheckpointLoader") return { parameters: { preset: "svd" }, because: "from the loader of video models" };
  return {
    parameters: { preset: "sd15" },
    because: file ? `by default, as the file name ${file} does not identify the model` : "by default, as no model loader was found",
  };
}
