// What all figures share: the Okabe-Ito palette, sizes, and labels that keep out of each other's way.
const OKABE_ITO = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B2A300"];
const GAIN = "#0072B2";
const LOSS = "#D55E00";
const SYMBOLS = ["circle", "square", "triangle", "diamond", "star", "wye", "cross"];

const paint = (number, row) => (row?.baseline ? "#888" : OKABE_ITO[number % OKABE_ITO.length]);
const symbol = (number) => SYMBOLS[Math.floor(number / OKABE_ITO.length + number) % SYMBOLS.length];

function figure(title, note, content) {
  return el("figure", {}, el("figcaption", {}, el("strong", {}, title), note ? el("span", { class: "quiet" }, ` ${note}`) : ""), content);
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

const jointed = (text) => text.split(/(?<=[,_/-])/);

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
