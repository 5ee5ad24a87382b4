// Shared by all parts: the data, elements made from text only, numbers as people read them, what is chosen.
const report = JSON.parse(document.getElementById("report").textContent);
const byId = (id) => document.getElementById(id);
const state = { task: "", model: "", method: "", metric: "", group: 0 };
const watchers = [];

function changed() {
  for (const watcher of watchers) watcher();
}

/** An element with attributes, listeners (`onclick` …) and children; strings become text, never markup. */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

const small = (text) => el("small", {}, text);

/** When everything is read: samples stand behind the scripts, so that tables need not wait for them. */
const complete = new Promise((done) => document.addEventListener("DOMContentLoaded", done));

/** The JSON in a compressed block of the page. */
async function unpack(id) {
  await complete;
  const packed = Uint8Array.from(atob(byId(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const isKnown = (value) => value !== null && value !== undefined;
const fixed = (digits) => (value) => (isKnown(value) ? value.toFixed(digits).replace("-", "−") : "–");
const fixedGain = (digits) => (value) => (isKnown(value) ? (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits) : "–");
const score = fixed(4);
const signed = fixedGain(4);
const percent = (share) => `${Math.round(100 * share)} %`;
const count = (value) => Math.round(value).toLocaleString("en");
const counted = (value, thing) => `${count(value)} ${thing}${value === 1 ? "" : "s"}`;
const hasInterval = (estimate) => isKnown(estimate.low);
const interval = (estimate, format = score) =>
  hasInterval(estimate) ? `[${format(estimate.low)}, ${format(estimate.high)}]` : "";
const pvalue = (p) => (p === null ? "–" : p < 0.001 ? "< 0.001" : p.toFixed(3));
const total = (tally) => tally.win + tally.tie + tally.loss;

const groupName = (group) =>
  [group.subject || group.task, group.options && `(${group.options})`, group.subject ? "" : group.split, "·", group.model, group.apart && `(${group.apart})`].filter(Boolean).join(" ");
const metricOf = (group) => (group.metrics.some((each) => each.name === state.metric) ? state.metric : group.primary);
const isHigher = (group, metric) => group.metrics.find((each) => each.name === metric).higher;
const withArrow = (group, metric) => `${metric} ${isHigher(group, metric) ? "↑" : "↓"}`;
const shownGroups = () =>
  report.groups.filter((group) => ["", group.task].includes(state.task) && ["", group.model].includes(state.model));
const isShown = ({ label, run }) => label.toLowerCase().includes(state.method.toLowerCase()) || (state.method && run.startsWith(state.method));
/** Whether a metric has the tests of its table, which are of the primary one only. */
const isTested = ({ group, metric }) => metric === group.primary;

const DIGITS = 3;
const MOST_DIGITS = 4;

/** As many decimal places as the intervals of a metric justify; tables of papers count the same way. */
function digitsOf(group, metric) {
  const known = group.rows.map((row) => row.metrics[metric]).filter((estimate) => estimate && hasInterval(estimate));
  const halves = known.map(({ low, high }) => (high - low) / 2).filter((half) => half > 0);
  if (!halves.length) return DIGITS;
  return Math.min(MOST_DIGITS, Math.max(1, 1 - Math.floor(Math.log10(d3.median(halves)))));
}

function options(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
}
