// What all figures share: hue is the method, fill the control, grey a row without an interval; and labels that keep out
// of each other's way. Colours are those of the style sheet, at least 3:1 on their background in both themes.
const HUES = 10;
const SYMBOLS = ["circle", "square", "triangle", "diamond", "star", "wye", "cross"];
const GAIN = "var(--gain)";
const LOSS = "var(--loss)";
const HOLLOW = "var(--card)";
const UNSURE = "var(--unsure)";

const baselines = new Set(report.groups.map((group) => group.rows[group.baseline]?.method).filter(Boolean));
/** A number for each method of the report, so that a method has the same hue in every task and setting. */
const hues = new Map(
  [...new Set(report.groups.flatMap((group) => group.rows.map((row) => row.method)))].filter((method) => !baselines.has(method)).sort().map((method, at) => [method, at % HUES]),
);

const hueOf = (row) => (hues.has(row.method) ? `var(--hue-${hues.get(row.method)})` : "var(--baseline)");
const symbol = (number) => SYMBOLS[number % SYMBOLS.length];

/** How a row is marked: its method's hue; hollow for another user's history, small for a cut one, grey if unsure. */
function markStyle(row, sure) {
  const color = sure ? hueOf(row) : UNSURE;
  const isHollow = !sure || ["shuffled", "none"].includes(row.history);
  return { color, fill: isHollow ? HOLLOW : color, r: row.history.startsWith("size=") ? 3 : 5 };
}

const svg = (tag, attributes = {}, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (isKnown(value)) made.setAttribute(name, value);
  made.append(...children.filter(isKnown));
  return made;
};

/** A figure with its title and note above, and buttons below that save `saved` (see `downloads`). */
function figure(title, note, content, saved = null) {
  const caption = el("figcaption", {}, el("strong", {}, title), note ? el("span", { class: "quiet" }, ` ${note}`) : "");
  const tools = saved && downloads(title, { note, ...saved }, groupName(report.groups[state.group]));
  return el("figure", {}, caption, content, tools);
}

/** Ticks of a logarithmic scale that can all be labelled: 1, 2 and 5 of each power of ten, or the powers alone. */
function logTicks(low, high) {
  const powers = d3.range(Math.floor(Math.log10(low)), Math.ceil(Math.log10(high)) + 1).map((power) => 10 ** power);
  const inside = (value) => value >= low && value <= high;
  const fine = powers.flatMap((power) => [power, 2 * power, 5 * power]).filter(inside);
  return fine.length > 7 ? powers.filter(inside) : fine;
}

function plot(spec) {
  return Plot.plot({ className: "plot", style: { fontSize: "12px" }, ...spec });
}

const LETTER = 7;
const LINE = 14;

/** A name in lines of so many characters, broken between words, else at joints, else anywhere; nothing is left out. */
function wrapped(text, width) {
  const lines = [""];
  const fits = (part) => `${lines.at(-1)}${part}`.trimEnd().length <= width;
  for (const word of text.split(/(?<=\s)/)) {
    if (!fits(word) && lines.at(-1)) lines.push("");
    for (const part of fits(word) ? [word] : jointed(word)) {
      if (!fits(part) && lines.at(-1)) lines.push("");
      for (const piece of part.match(new RegExp(`.{1,${width}}`, "gu"))) lines.splice(-1, 1, ...(fits(piece) ? [lines.at(-1) + piece] : [lines.at(-1), piece]));
    }
  }
  return lines.map((line) => line.trim());
}

const jointed = (text) => text.split(/(?<=[,_/=-])/);

/** A name that a browser may break at its joints. */
const breakable = (text) => jointed(text).flatMap((part) => [part, el("wbr")]);

const longest = (lines) => Math.max(...lines.map((line) => line.length));

/** The range of some values, never an empty one: what is level is drawn in the middle. */
function spanned(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  return high - low > 1e-9 ? [low, high] : [low - 0.05, high + 0.05];
}

/** What a mark says when pointed at: its whole name, then what is known of it. */
const hint = (label, ...facts) => [...wrapped(label, 30), ...facts.filter(Boolean)].join("\n");

/** Names beside what stands for them in a plot. */
function key(entries) {
  return el("ul", { class: "key" }, entries.map(({ mark, label }) => el("li", {}, mark, el("span", {}, breakable(label)))));
}

function swatch(color, kind, hollow = false) {
  const shape = d3.symbol(d3[`symbol${kind[0].toUpperCase()}${kind.slice(1)}`], 60)();
  const svg = d3.create("svg").attr("width", 14).attr("height", 14).attr("viewBox", "-7 -7 14 14").attr("aria-hidden", "true");
  svg.append("path").attr("d", shape).attr("stroke", color).attr("fill", hollow ? "none" : color);
  return svg.node();
}

/**
 * Where to write names beside points so that none covers another or leaves the plot: offsets by point, in pixels.
 * Null where some name has no room at most `far` above or below its point.
 */
function placed(points, width, height, far = Infinity) {
  const taken = points.map(({ x, y }) => ({ left: x - 5, right: x + 5, top: y - 5, bottom: y + 5 }));
  const chosen = [];
  for (const { x, y, lines } of points) {
    const wide = LETTER * longest(lines);
    const half = (LINE * lines.length - 2) / 2;
    const downs = Array.from({ length: 2 * Math.ceil(height / 13) + 1 }, (_, step) => 13 * Math.ceil(step / 2) * (step % 2 ? -1 : 1));
    const tries = downs.filter((down) => Math.abs(down) <= far).flatMap((down) => [
      { dx: 9, dy: down, left: x + 9, anchor: "start" },
      { dx: -9, dy: down, left: x - 9 - wide, anchor: "end" },
    ]);
    const box = ({ left, dy }) => ({ left: left - 3, right: left + wide + 3, top: y + dy - half, bottom: y + dy + half });
    const inside = ({ left, right, top, bottom }) => left >= 0 && right <= width && top >= 0 && bottom <= height;
    const clear = (own) =>
      taken.every((other) => own.right < other.left || own.left > other.right || own.bottom < other.top || own.top > other.bottom);
    const free = tries.find((one) => inside(box(one)) && clear(box(one)));
    if (!free && far < Infinity) return null;
    chosen.push(free ?? tries.find((one) => inside(box(one))) ?? tries[0]);
    taken.push(box(chosen.at(-1)));
  }
  return chosen;
}
