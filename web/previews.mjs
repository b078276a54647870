/** Asking the server for previews: every question once, the newest only. */

const KEPT = 300;
const answers = new Map();

/**
 * The server's answer to a preview: { curves, assumed } or { error: a sentence }.
 *
 * @param {object} api ComfyUI's
 * @param {string} query parameters as a URL's query
 * @param {AbortSignal} signal ends the request; the promise is then rejected
 */
export async function preview(api, query, signal) {
  const known = answers.get(query);
  if (known) return known;
  const response = await api.fetchApi(`/fewstep/preview?${query}`, { signal });
  if (response.status !== 200 && response.status !== 400) {
    throw new Error(`The server answered ${response.status} to the preview.`);
  }
  const answer = await response.json();
  // Without the schedule that was asked for (the server was restarted), the next answer may be better.
  if (!query.includes("key=") || answer.assumed?.source === "model") {
    if (answers.size >= KEPT) answers.delete(answers.keys().next().value);
    answers.set(query, answer);
  }
  return answer;
}

let facts = null;

/** Solvers, noise schedules and baselines as the server has them; asked once. */
export function catalog(api) {
  facts ??= api
    .fetchApi("/fewstep/catalog")
    .then((response) => (response.ok ? response.json() : Promise.reject(new Error(`HTTP ${response.status}`))))
    .catch((error) => {
      facts = null;
      throw error;
    });
  return facts;
}

const KEYS = "fewstep.schedules";
const MOST_KEYS = 50;

/** What the server calls the noise schedule of a model that has run, by `signatureOf` the nodes before it; "" where none has. */
export function keyOf(signature) {
  return readKeys()[signature] ?? "";
}

/** Keep such a key for as long as the page's tab is open: nodes that the server has cached do not send it again. */
export function keepKey(signature, key) {
  const keys = Object.entries(readKeys()).filter(([known]) => known !== signature);
  keys.push([signature, key]);
  try {
    sessionStorage.setItem(KEYS, JSON.stringify(Object.fromEntries(keys.slice(-MOST_KEYS))));
  } catch {
    // No room or no permission: previews then stay with presets.
  }
}

function readKeys() {
  try {
    return JSON.parse(sessionStorage.getItem(KEYS)) ?? {};
  } catch {
    return {};
  }
}
