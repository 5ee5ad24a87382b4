// The figures of one group, drawn by Observable Plot as SVG.
let perUser = 10;

function chosenRows(group, metric) {
  return group.rows
    .map((row, at) => ({ row, at, label: shortened(row.label), found: row.metrics[metric] }))
    .filter(({ row, found }) => found && isShown(row));
}

function showFigures() {
  const group = report.groups[state.group];
  const metric = metricOf(group);
  const rows = chosenRows(group, metric);
  const target = byId("figures");
  if (!rows.length) return target.replaceChildren(el("p", { class: "quiet" }, "No run fits the filters."));
  const single = Math.min(target.clientWidth || 600, 1300);
  const width = single > 900 ? (single - 24) / 2 : single;
  const drawn = [scores(group, metric, rows, width), gains(group, rows, width), frontier(group, metric, rows, width)];
  for (const over of new Set(group.curves.map((curve) => curve.over))) drawn.push(curves(group, metric, over, width));
  target.replaceChildren(...drawn.filter(Boolean), ...[metric === group.primary ? userGains(rows, single) : null].filter(Boolean));
}

const arrow = (group, metric) => `${metric} ${isHigher(group, metric) ? "(higher is better)" : "(lower is better)"}`;

function intervals(rows, width, label, zero) {
  const labels = rows.map(({ label }) => label);
  return plot({
    width,
    height: 62 + 26 * rows.length,
    marginTop: 8,
    marginBottom: 46,
    marginLeft: labelMargin(labels),
    marginRight: 20,
    x: { label, grid: true, nice: true, labelOffset: 38, ticks: width < 500 ? 4 : 7 },
    y: { domain: labels, label: null },
    marks: [
      zero === null ? null : Plot.ruleX([zero], { strokeDasharray: "4 3", strokeOpacity: 0.7 }),
      Plot.ruleY(rows, { y: "label", x1: "low", x2: "high", stroke: "color", strokeWidth: 2.5 }),
      Plot.dot(rows, { x: "value", y: "label", fill: "color", r: 4.5, tip: { format: { fill: false, x: true } }, channels: { interval: "text" } }),
    ].filter(Boolean),
    ariaLabel: label,
  });
}

const ranged = (found, format) => ({
  value: found.value,
  low: found.low ?? found.value,
  high: found.high ?? found.value,
  text: interval(found, format) || "no interval",
});

function scores(group, metric, rows, width) {
  const data = rows.map(({ row, at, label, found }) => ({ label, color: paint(at, row), ...ranged(found, score) }));
  const baseline = rows.find(({ row }) => row.baseline);
  const note = baseline ? "with 95 % intervals over users; dashed: none" : "with 95 % intervals over users";
  return figure(metric, note, intervals(data, width, arrow(group, metric), baseline ? baseline.found.value : null));
}

function gains(group, rows, width) {
  const data = rows
    .filter(({ found }) => found.gain.value !== null)
    .map(({ row, label, at, found }) => ({ label, color: paint(at, row), ...ranged(found.gain, signed) }));
  if (!data.length) return null;
  return figure("Gain over none", "paired, with 95 % intervals", intervals(data, width, "gain (right is better)", 0));
}

function frontier(group, metric, rows, width) {
  const cost = ({ costs }) => costs.per_query + costs.per_user / perUser;
  const data = rows.map(({ row, at, label, found }) => ({ label, color: paint(at, row), cost: Math.max(cost(row), 1), ...ranged(found, score) }));
  const better = (a, b) => (isHigher(group, metric) ? a > b : a < b);
  const steps = [];
  for (const point of [...data].sort((a, b) => a.cost - b.cost || (better(a.value, b.value) ? -1 : 1)))
    if (!steps.length || better(point.value, steps.at(-1).value)) steps.push(point);
  const costs = data.map((each) => each.cost);
  const wide = Math.max(...costs) / Math.min(...costs);
  const height = 330;
  const spec = (labels) => ({
    width,
    height,
    marginLeft: 52,
    marginRight: 20,
    marginTop: 30,
    marginBottom: 46,
    x: { label: "tokens per query", type: wide > 10 ? "log" : "linear", grid: true, tickFormat: "~s", inset: 24, labelOffset: 38, ticks: width < 500 ? 3 : 6 },
    y: { label: arrow(group, metric), grid: true, nice: true },
    marks: [
      Plot.line(steps, { x: "cost", y: "value", curve: "step-after", strokeOpacity: 0.5, strokeDasharray: "5 3" }),
      Plot.ruleX(data, { x: "cost", y1: "low", y2: "high", stroke: "color", strokeOpacity: 0.6, strokeWidth: 1.5 }),
      Plot.dot(data, { x: "cost", y: "value", fill: "color", r: 5, tip: { format: { fill: false } }, channels: { method: "label" } }),
      ...labels,
    ],
    ariaLabel: "Score against cost",
  });
  const first = plot(spec([]));
  const [x, y] = [first.scale("x"), first.scale("y")];
  const places = placed(data.map((each) => ({ x: x.apply(each.cost), y: y.apply(each.value), text: each.label })), width, height - 46);
  const names = data.map((each, number) =>
    Plot.text([each], { x: "cost", y: "value", text: "label", dx: places[number].dx, dy: places[number].dy, textAnchor: places[number].anchor,
      stroke: "var(--page)", strokeWidth: 4, fill: "currentColor" }));
  const spread = group.rows.some((row) => row.costs.per_user > 0);
  const asked = el("input", { type: "number", min: 1, max: 100000, value: perUser, "aria-label": "queries per user" });
  asked.addEventListener("change", () => {
    perUser = Math.max(1, Number(asked.value) || 1);
    showFigures();
  });
  const note = el("span", { class: "quiet" }, spread ? ["knowing a user spread over ", asked, " queries"] : "input and output, all calls of a query", "; dashed: what nothing cheaper reaches",
    rows.some(({ row }) => cost(row) < 1) ? "; without calls: drawn at 1" : "");
  const made = figure("Quality against cost", "", plot(spec(names)));
  made.firstChild.append(" ", note);
  return made;
}

function curves(group, metric, over, width) {
  const families = group.curves.filter((curve) => curve.over === over);
  const data = families.flatMap((curve, number) =>
    curve.points
      .map(({ x, row }) => ({ x: x === null ? "all" : String(x), rank: x ?? Infinity, row: group.rows[row] }))
      .filter(({ row }) => row.metrics[metric] && isShown(row))
      .map(({ x, rank, row }) => ({ x, rank, label: curve.label, number, ...ranged(row.metrics[metric], score) })));
  if (data.length < 2) return null;
  const domain = [...new Map(data.map(({ x, rank }) => [x, rank])).entries()].sort((a, b) => a[1] - b[1]).map(([x]) => x);
  const ends = families.map((_, number) => data.filter((each) => each.number === number).at(-1)).filter(Boolean);
  const named = over === "history" ? "records of history" : over;
  const title = over === "history" ? "How much history" : `How much ${over}`;
  return figure(title, "runs that share everything else; bars: 95 % intervals", plot({
    width,
    height: 330,
    marginLeft: 52,
    marginTop: 30,
    marginBottom: 46,
    marginRight: 24 + 6.6 * Math.max(...ends.map(({ label }) => label.length)),
    x: { label: named, domain, type: "point", labelOffset: 38 },
    y: { label: arrow(group, metric), grid: true, nice: true },
    marks: [
      Plot.ruleX(data, { x: "x", y1: "low", y2: "high", stroke: ({ number }) => paint(number), strokeOpacity: 0.6, strokeWidth: 1.5 }),
      Plot.line(data, { x: "x", y: "value", z: "number", stroke: ({ number }) => paint(number), strokeWidth: 2 }),
      Plot.dot(data, { x: "x", y: "value", fill: ({ number }) => paint(number), symbol: ({ number }) => symbol(number), r: 4.5, tip: { format: { fill: false, symbol: false } }, channels: { method: "label" } }),
      Plot.text(ends, { x: "x", y: "value", text: "label", dx: 10, textAnchor: "start", fill: "currentColor" }),
    ],
    symbol: { type: "identity" },
    ariaLabel: `Score against ${named}`,
  }));
}

function userGains(rows, single) {
  const shown = rows.filter(({ row }) => row.user_gains?.length > 1);
  if (!shown.length) return null;
  const all = shown.flatMap(({ row }) => row.user_gains);
  const domain = [Math.min(0, ...all), Math.max(0, ...all)];
  const per = Math.max(1, Math.min(shown.length, Math.floor(single / (single < 600 ? 160 : 260))));
  const width = Math.min(480, Math.floor((single - 12 * (per - 1)) / per));
  const small = shown.map(({ label, row }) => {
    const values = row.user_gains;
    const data = values.map((gain, at) => ({ gain, from: at / values.length, to: (at + 1) / values.length }));
    const tally = row.users_changed;
    const said = tally ? `${percent(tally.win / total(tally))} of users gain, ${percent(tally.loss / total(tally))} lose` : "";
    return el("div", {}, el("p", { title: row.label }, el("strong", {}, label), el("small", {}, said)), plot({
      width,
      height: 130,
      marginLeft: 40,
      marginTop: 8,
      marginRight: 8,
      marginBottom: 24,
      x: { domain: [0, 1], label: null, tickFormat: "~%", ticks: width < 220 ? [0, 1] : [0, 0.5, 1] },
      y: { domain, label: null, grid: true, nice: true, ticks: 5 },
      marks: [
        Plot.rect(data, { x1: "from", x2: "to", y1: 0, y2: "gain", fill: ({ gain }) => (gain < 0 ? LOSS : GAIN), insetLeft: values.length < 60 ? 0.5 : 0 }),
        Plot.ruleY([0]),
      ],
      ariaLabel: `Gain of each user, ${row.label} over none: ${said}`,
    }));
  });
  const made = figure("Gain of each user over none", "share of users, from the worst served to the best; orange loses", el("div", { class: "multiples" }, small));
  made.classList.add("full");
  return made;
}
