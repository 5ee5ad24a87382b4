// The comparison: methods by tasks, each cell a gain over no history with its interval, and under it, hollow, the gain
// of the same method with another user's history.
const NARROW = 700;
// Pixels between the margins of a printed page.
const PAPER = 690;
let isPrinting = false;
const CELL = { least: 90, most: 900, height: 44, own: 14, twin: 30, over: 3 };

/** The rows of a group by line: the row on the user's own history, and the one on another user's. */
function linesOf(group, metric) {
  const lines = new Map();
  for (const row of group.rows) {
    const role = { own: "own", shuffled: "twin" }[row.history];
    if (!role || !row.metrics[metric]) continue;
    const line = lines.get(row.line) ?? {};
    line[role] ??= row;
    lines.set(row.line, line);
  }
  for (const line of lines.values()) if (line.own && isKnown(line.own.twin)) line.twin = group.rows[line.own.twin];
  return lines;
}

/** All that a column of the matrix needs of its group. */
function matrixColumn(group) {
  const metric = metricOf(group);
  const digits = digitsOf(group, metric);
  const base = group.baseline === null ? null : group.rows[group.baseline];
  const numberOf = (row) => (base ? row.metrics[metric].gain : row.metrics[metric]);
  return { group, metric, base, numberOf, lines: linesOf(group, metric), format: fixed(digits), formatGain: base ? fixedGain(digits) : fixed(digits) };
}

/** The lines of some columns: the baseline, one's own runs, published ones; best first, over all columns. */
function matrixLines(columns) {
  const facts = new Map();
  for (const column of columns) {
    const { lines, base, group, metric, numberOf } = column;
    const turn = base || isHigher(group, metric) ? 1 : -1;
    const most = d3.max([...lines.values()].flatMap(({ own, twin }) => ends(numberOf(own ?? twin))), Math.abs) || 1;
    for (const [name, line] of lines) {
      const row = line.own ?? line.twin;
      if (!isShown(row) && !(line.twin && isShown(line.twin))) continue;
      const known = facts.get(name) ?? { name, shares: [], own: false, baseline: false };
      known.shares.push((turn * (numberOf(row).value ?? 0)) / most);
      known.own ||= !row.published;
      known.baseline ||= row === base;
      facts.set(name, known);
    }
  }
  const keys = [(line) => !line.baseline, (line) => !line.own, (line) => -d3.mean(line.shares)];
  return d3.sort(facts.values(), ...keys);
}

const ends = (number) => [number.low ?? number.value, number.high ?? number.value].filter(isKnown);

function scaleOf(column, names, width) {
  const rows = names.flatMap((name) => Object.values(column.lines.get(name) ?? {}));
  const values = rows.flatMap((row) => ends(column.numberOf(row)));
  return d3.scaleLinear(spanned(column.base ? [0, ...values] : values), [12, width - 12]).nice(4);
}

/** A dot with its interval; what is said when it is pointed at is also its text for those who cannot point. */
function markOf(row, number, x, y, said) {
  const { color, fill, r } = markStyle(row, hasInterval(number));
  return svg("g", { class: "mark-of" }, svg("title", {}, said),
    hasInterval(number) ? svg("line", { x1: x(number.low), x2: x(number.high), y1: y, y2: y, stroke: color, "stroke-width": 2.2, "stroke-dasharray": row.history === "own" ? null : "3 2" }) : null,
    svg("circle", { cx: x(number.value), cy: y, r, fill, stroke: color, "stroke-width": 1.6 }));
}

function cellPlot(column, line, x, width) {
  const drawn = svg("svg", { width, height: CELL.height, viewBox: `0 0 ${width} ${CELL.height}`, role: "img", class: "cell" });
  const said = [];
  for (const tick of x.ticks(4)) drawn.append(svg("line", { x1: x(tick), x2: x(tick), y1: -CELL.over, y2: CELL.height + CELL.over, class: "grid" }));
  if (column.base) drawn.append(svg("line", { x1: x(0), x2: x(0), y1: -CELL.over, y2: CELL.height + CELL.over, class: "zero" }));
  for (const role of ["twin", "own"]) {
    const row = line[role];
    const number = row && column.numberOf(row);
    if (!row || !isKnown(number.value)) continue;
    const text = `${row.label}: ${column.formatGain(number.value)} ${interval(number, column.formatGain) || "no interval"}`;
    said.unshift(text);
    drawn.append(markOf(row, number, x, line.own && line.twin ? CELL[role] : CELL.height / 2, text));
  }
  drawn.setAttribute("aria-label", said.join("; "));
  return drawn;
}

function axisPlot(x, width) {
  const drawn = svg("svg", { width, height: 18, viewBox: `0 0 ${width} 18`, "aria-hidden": "true", class: "cell" });
  const ticks = x.ticks(width < 180 ? 2 : 4);
  for (const tick of ticks) drawn.append(svg("text", { x: x(tick), y: 12, "text-anchor": "middle", class: "tick" }, x.tickFormat(4)(tick)));
  return drawn;
}

/** Samples and users of a row, where they are not those of its column. */
function sizeOf(row, { group }) {
  if (row.n === group.n && row.users === group.users) return null;
  return [small(`n=${count(row.n)}`), small(counted(row.users, "user"))];
}

function matrixCells(column, name, x, width) {
  const line = column.lines.get(name);
  if (!line) return [el("td", { class: "number starts" }, "–"), el("td", { class: "plot-cell" }, emptyPlot(column, x, width)), el("td", {})];
  const row = line.own ?? line.twin;
  const found = row.metrics[column.metric];
  const star = isTested(column) && row.leader && row.beats.length > 0;
  const scored = [el(star ? "strong" : "span", {}, column.format(found.value), star ? " ★" : ""), line.own ? sizeOf(row, column) : small("shuffled only")];
  const gains = ["own", "twin"].filter((role) => line[role] && column.base && line[role] !== column.base).map((role) => {
    const number = column.numberOf(line[role]);
    const unsure = isKnown(number.value) && !hasInterval(number);
    const classes = [role === "twin" && "twin", unsure && "unsure"].filter(Boolean).join(" ");
    return el("span", { class: classes || null, title: unsure ? "no interval: too few users, or all of them score the same" : null }, role === "twin" ? "○ " : "", column.formatGain(number.value));
  });
  return [el("td", { class: "number starts" }, scored), el("td", { class: "plot-cell" }, row === column.base ? emptyPlot(column, x, width) : cellPlot(column, line, x, width)), el("td", { class: "number gains" }, gains)];
}

/** The lines of the scale alone, for a row that has no mark in this column. */
function emptyPlot(column, x, width) {
  const drawn = cellPlot(column, {}, x, width);
  drawn.removeAttribute("role");
  drawn.setAttribute("aria-hidden", "true");
  return drawn;
}

function columnHead(column) {
  const { group, metric, base } = column;
  const name = [group.subject || group.task, group.options && `(${group.options})`, group.subject ? "" : group.split].filter(Boolean).join(" ");
  const facts = [withArrow(group, metric), `n=${count(group.n)}, ${counted(group.users, "user")}`];
  const models = new Set(report.groups.map(({ model }) => model));
  return [el("strong", {}, name), models.size > 1 ? small(group.model) : null, group.apart ? small(group.apart) : null, group.judges.length ? small(`judge ${group.judges.join("; ")}`) : null, small(facts.join(" · ")), small(base ? `gain over ${base.label}` : "score, since there is no run of none")];
}

function matrixTable(columns, room) {
  const lines = matrixLines(columns);
  const names = lines.map(({ name }) => name);
  const label = room < NARROW ? 96 : 190;
  const numbers = room < NARROW ? 158 : 170;
  const width = Math.max(CELL.least, Math.min(CELL.most, Math.floor((room - label) / columns.length) - numbers));
  const scales = columns.map((column) => scaleOf(column, names, width));
  const heads = el("tr", {}, el("th", { scope: "col" }, "Method"), columns.map((column) => el("th", { scope: "colgroup", colspan: 3, class: "starts" }, columnHead(column))));
  const under = el("tr", { class: "under" }, el("td", {}), columns.map((column, at) => [el("td", { class: "number starts" }, "score"), el("td", { class: "plot-cell" }, axisPlot(scales[at], width)), el("td", { class: "number" }, column.base ? "gain" : "")]));
  const body = lines.map((line) => el("tr", {},
    el("th", { scope: "row" }, breakable(line.name), line.own ? null : small("published")),
    columns.map((column, at) => matrixCells(column, line.name, scales[at], width))));
  return { table: el("table", { class: "matrix" }, el("thead", {}, heads, under), el("tbody", {}, body)), lines, scales, width };
}

function matrixRows(columns, lines) {
  return columns.flatMap((column) => lines.flatMap(({ name }) => Object.values(column.lines.get(name) ?? {}).map((row) => {
    const found = row.metrics[column.metric];
    return { task: column.group.task, split: column.group.split, model: column.group.model, method: row.label, history: row.history, metric: column.metric,
      score: found.value, score_low: found.low, score_high: found.high, gain: found.gain.value, gain_low: found.gain.low, gain_high: found.gain.high, n: row.n, users: row.users, run: row.run };
  })));
}

/** The matrix as one picture, of the marks that are on the screen. */
function matrixPicture(host, columns, { lines, width }) {
  const heads = [...host.querySelectorAll("thead tr:first-child th")].slice(1).map((head) => [...head.children].map((child) => child.textContent));
  const label = Math.min(260, 24 + LETTER * longest(lines.flatMap(({ name }) => wrapped(name, 32))));
  const one = 70 + width + 80;
  const top = 8 + 15 * d3.max(heads, (head) => head.length);
  const parts = [];
  const texts = [];
  const put = (x, y, text, more = {}) => texts.push({ x, y, text, size: 12, ...more });
  heads.forEach((head, at) => head.forEach((text, row) => put(label + at * one, 12 + 15 * row, text, row ? {} : { weight: 600 })));
  host.querySelectorAll("tbody tr").forEach((tr, number) => {
    const y = top + 20 + number * CELL.height;
    const name = wrapped(lines[number].name, 32);
    name.forEach((text, row) => put(0, y + CELL.height / 2 + 4 + 14 * (row - (name.length - 1) / 2), text));
    const cells = [...tr.children].slice(1);
    columns.forEach((_, at) => {
      const [scored, plotted, gained] = cells.slice(3 * at, 3 * at + 3);
      const x = label + at * one;
      put(x + 58, y + CELL.height / 2 + 4, scored.firstChild.textContent, { anchor: "end" });
      if (plotted.firstChild) parts.push({ x: x + 66, y, node: plotted.firstChild });
      [...gained.children].forEach((span, row, all) => put(x + one - 10, y + CELL.height / 2 + 4 + 14 * (row - (all.length - 1) / 2), span.textContent, { anchor: "end" }));
    });
  });
  host.querySelectorAll(".under .plot-cell svg").forEach((node, at) => parts.push({ x: label + at * one + 66, y: top, node }));
  return { width: label + columns.length * one, height: top + 24 + lines.length * CELL.height, parts, texts };
}

/** The protocols of several groups in one, each sentence once. */
const sharedProtocol = (protocols) => [...new Set(protocols.flatMap((text) => text.split(/(?<=\.) /)))].join(" ");

function showMatrix() {
  const target = byId("matrix");
  const columns = shownGroups().map(matrixColumn).filter(({ lines }) => lines.size);
  const room = isPrinting ? PAPER : target.clientWidth || 600;
  const blocks = room < NARROW ? columns.map((column) => [column]) : columns.length ? [columns] : [];
  const drawn = blocks.map((block) => {
    const made = matrixTable(block, room);
    if (!made.lines.length) return null;
    const host = el("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Methods by tasks" }, made.table);
    const tools = downloads("Methods by tasks", {
      picture: () => matrixPicture(host, block, made),
      rows: () => matrixRows(block, made.lines),
      protocol: sharedProtocol(block.map(({ group }) => group.protocol)),
      note: "Gain over none with 95 % intervals over users. Filled: the user's own history; hollow, ○: another user's. Grey: no interval.",
    });
    return [host, tools];
  });
  const shown = drawn.filter(Boolean);
  target.replaceChildren(...(shown.length ? shown.flat() : [el("p", { class: "quiet" }, "No run fits the filters.")]));
  showWarnings(columns);
  byId("matrix-legend").replaceChildren(
    "Each dot is a method's gain on its users' own histories, with its 95 % interval over users; the hollow dot under it is the same method given ",
    "another user's history. Where both gain alike, the gain is not personal. Hollow and grey: no interval, because too few users were asked or all ",
    "of them score the same. ★: beats at least one row of its table, and no row is significantly better.");
}

/** The warnings of a group, those of several rows in one. */
function suspicions(group) {
  const said = new Map();
  for (const { label } of group.rows) {
    const start = `Suspicious: ${label}: `;
    for (const note of group.notes.filter((each) => each.startsWith(start))) {
      const clause = note.slice(start.length);
      said.set(clause, [...(said.get(clause) ?? []), label]);
    }
  }
  return [...said].map(([clause, labels]) => `Suspicious: ${labels.join(", ")}: ${clause}`);
}

/** What the reader has to know before any number, once for all tasks that share it. */
function showWarnings(columns) {
  const said = new Map();
  for (const { group } of columns) {
    const warnings = suspicions(group);
    if (group.sample) warnings.unshift("Small example data, not the benchmark: nothing here is a result about a method.");
    for (const warning of warnings) said.set(warning, [...(said.get(warning) ?? []), groupName(group)]);
  }
  const most = 3;
  const all = [...said].map(([warning, groups]) => el("li", {}, columns.length > 1 && groups.length < columns.length ? `${groups.join(", ")}: ${warning}` : warning));
  const rest = all.slice(most);
  byId("warnings").replaceChildren(
    el("ul", {}, all.slice(0, most)),
    ...(rest.length ? [el("details", {}, el("summary", {}, `${rest.length} more`), el("ul", {}, rest))] : []));
  byId("warnings").hidden = !all.length;
}
