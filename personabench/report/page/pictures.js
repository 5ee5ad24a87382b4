// Figures as files: a picture (SVG, PNG) with its protocol inside, and the numbers behind it (CSV).
const PICTURE_FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif";
const PICTURE_SCALE = 3;
const PICTURE_EDGE = 14;
const COPIED = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-linejoin", "opacity", "font-size", "font-weight", "text-anchor", "paint-order"];
// Spreadsheets take text that begins so as a formula, as in the CSV files of the command line.
const FORMULA_STARTS = /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/;

/** A drawing whose look is in attributes, since a file has no style sheet of this page; tips and styles are left out. */
function standalone(node) {
  const copy = node.cloneNode(true);
  const pairs = [[node, copy]];
  while (pairs.length) {
    const [from, to] = pairs.pop();
    const style = getComputedStyle(from);
    const kept = [];
    [...from.children].forEach((child, at) => kept.push([child, to.children[at]]));
    for (const [child, clone] of kept) {
      if (["style", "title"].includes(child.tagName) || child.getAttribute("aria-label") === "tip") clone.remove();
      else pairs.push([child, clone]);
    }
    for (const name of COPIED) to.setAttribute(name, style.getPropertyValue(name));
    if (to.tagName === "svg") to.setAttribute("overflow", "visible");
    if (to.getAttribute("dominant-baseline")) to.setAttribute("dominant-baseline", style.getPropertyValue("dominant-baseline"));
    for (const name of ["class", "style", "tabindex", "role", "font-family"]) to.removeAttribute(name);
  }
  return copy;
}

/** Draw with the light colours, whatever the reader looks at: pictures go into papers. */
function inLight(draw) {
  const root = document.documentElement;
  const theme = root.dataset.theme;
  root.dataset.theme = "light";
  try {
    return draw();
  } finally {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
  }
}

const written = ({ x, y, text, size = 12, weight = null, anchor = null, fill = "#1a1a1a" }) =>
  svg("text", { x, y, "font-size": size, "font-weight": weight, "text-anchor": anchor, fill }, text);

/** One SVG of title, note, parts, texts and protocol. */
function compose(title, note, protocol, { width, height, parts, texts }) {
  const wide = Math.max(width, 480);
  const head = [...wrapped(title, Math.floor(wide / 8)).map((text) => ({ text, size: 14, weight: 600 })), ...(note ? wrapped(note, Math.floor(wide / 6)).map((text) => ({ text, size: 11, fill: "#5c5c5c" })) : [])];
  const foot = wrapped(protocol, Math.floor(wide / 5.2)).map((text) => ({ text, size: 10, fill: "#5c5c5c" }));
  let y = PICTURE_EDGE;
  const lines = [];
  for (const line of head) lines.push(written({ ...line, x: 0, y: (y += line.size + 4) }));
  const top = y + 10;
  const body = svg("g", { transform: `translate(0,${top})` }, ...parts.map(({ x, y: down, node }) => svg("g", { transform: `translate(${x},${down})` }, standalone(node))), ...texts.map(written));
  y = top + height + 8;
  for (const line of foot) lines.push(written({ ...line, x: 0, y: (y += 13) }));
  const size = { width: wide + 2 * PICTURE_EDGE, height: y + PICTURE_EDGE };
  return svg("svg", { xmlns: "http://www.w3.org/2000/svg", ...size, viewBox: `0 0 ${size.width} ${size.height}`, "font-family": PICTURE_FONT, color: "#1a1a1a" },
    svg("rect", { ...size, fill: "#ffffff" }), svg("g", { transform: `translate(${PICTURE_EDGE},0)` }, ...lines, body));
}

/** A drawing and the names under it as the parts of a picture. */
function onePart(drawing, keys = []) {
  const size = (node) => ["width", "height"].map((name) => Number(node.getAttribute(name)));
  const [width, height] = size(drawing);
  const parts = [{ x: 0, y: 0, node: drawing }];
  const texts = [];
  let y = height + 6;
  for (const { mark, label } of keys) {
    const marks = [mark].flat().filter((node) => node instanceof SVGElement);
    const letters = [mark].flat().filter((node) => !(node instanceof SVGElement)).map((node) => node.textContent);
    for (const node of marks) parts.push({ x: 0, y: y + 3, node });
    for (const line of wrapped([...letters, label].join("  "), Math.floor((width - 20) / 6.5))) texts.push({ x: 20, y: (y += 15), text: line });
  }
  return { width, height: y, parts, texts };
}

function csvCell(value) {
  if (!isKnown(value)) return "";
  if (typeof value === "number") return String(value);
  const text = FORMULA_STARTS.test(value) ? `'${value}` : String(value);
  return `"${text.replaceAll('"', '""')}"`;
}

function csvText(rows) {
  const columns = Object.keys(rows[0] ?? {});
  return [columns.map(csvCell), ...rows.map((row) => columns.map((name) => csvCell(row[name])))].map((cells) => `${cells.join(",")}\n`).join("");
}

function save(name, blob) {
  const address = URL.createObjectURL(blob);
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

async function savePng(name, drawing) {
  const [width, height] = ["width", "height"].map((side) => Number(drawing.getAttribute(side)));
  const address = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(drawing)], { type: "image/svg+xml" }));
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = el("canvas", { width: width * PICTURE_SCALE, height: height * PICTURE_SCALE });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(address);
  canvas.toBlob((blob) => save(name, blob), "image/png");
}

/** Buttons that save a figure. `picture` gives its parts, `rows` its numbers. */
function downloads(title, { picture, rows, protocol, note }, subject = "") {
  const stem = [subject, title].filter(Boolean).join("-").toLowerCase().replaceAll(/[^\p{L}\p{N}]+/gu, "-").replaceAll(/^-|-$/g, "");
  const draw = () => inLight(() => compose([subject, title].filter(Boolean).join(": "), note, protocol, picture()));
  const ways = {
    SVG: () => save(`${stem}.svg`, new Blob([new XMLSerializer().serializeToString(draw())], { type: "image/svg+xml" })),
    PNG: () => savePng(`${stem}.png`, draw()),
    CSV: () => save(`${stem}.csv`, new Blob([csvText(rows())], { type: "text/csv" })),
  };
  return el("p", { class: "tools" }, Object.entries(ways).map(([name, onclick]) => el("button", { type: "button", onclick, "aria-label": `Save ${title} as ${name}` }, name)));
}

/** Small plots as the parts of one picture, three in a row. */
function manyParts(multiples) {
  const side = (name) => d3.max(multiples, ({ drawing }) => Number(drawing.getAttribute(name)));
  const width = side("width") + 16;
  const across = Math.min(3, multiples.length);
  const characters = Math.floor((width - 16) / 6.6);
  const heads = multiples.map(({ name, said }) => [
    ...wrapped(name, characters).map((text) => ({ text, weight: 600 })),
    ...said.flatMap((text) => wrapped(text, characters)).map((text) => ({ text, size: 11, fill: "#5c5c5c" })),
  ]);
  const parts = [];
  const texts = [];
  let y = 0;
  for (let first = 0; first < multiples.length; first += across) {
    const row = d3.range(first, Math.min(first + across, multiples.length));
    const above = 15 * d3.max(row, (at) => heads[at].length);
    for (const at of row) {
      const x = (at - first) * width;
      heads[at].forEach((line, number) => texts.push({ ...line, x, y: y + 12 + 15 * number }));
      parts.push({ x, y: y + above + 4, node: multiples[at].drawing });
    }
    y += above + side("height") + 16;
  }
  return { width: across * width, height: y, parts, texts };
}
