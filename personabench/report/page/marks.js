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

const labelMargin = (labels) => Math.min(200, 24 + 6.6 * Math.max(...labels.map((label) => Math.min(label.length, 26))));
const shortened = (label) => (label.length > 26 ? `${label.slice(0, 25)}…` : label);

/** Where to write names beside points so that none covers another or leaves the plot: offsets by point, in pixels. */
function placed(points, width, height) {
  const taken = points.map(({ x, y }) => ({ left: x - 5, right: x + 5, top: y - 5, bottom: y + 5 }));
  return points.map(({ x, y, text }) => {
    const wide = 6.6 * text.length;
    const downs = Array.from({ length: 2 * Math.ceil(height / 13) + 1 }, (_, step) => 13 * Math.ceil(step / 2) * (step % 2 ? -1 : 1));
    const tries = downs.flatMap((down) => [
      { dx: 9, dy: down, left: x + 9, anchor: "start" },
      { dx: -9, dy: down, left: x - 9 - wide, anchor: "end" },
    ]);
    const box = ({ left, dy }) => ({ left: left - 3, right: left + wide + 3, top: y + dy - 6, bottom: y + dy + 6 });
    const inside = ({ left, right, top, bottom }) => left >= 0 && right <= width && top >= 0 && bottom <= height;
    const clear = (own) =>
      taken.every((other) => own.right < other.left || own.left > other.right || own.bottom < other.top || own.top > other.bottom);
    const chosen = tries.find((each) => inside(box(each)) && clear(box(each))) ?? tries.find((each) => inside(box(each))) ?? tries[0];
    taken.push(box(chosen));
    return chosen;
  });
}
