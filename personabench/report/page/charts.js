// The figures of one group, drawn by Observable Plot as SVG. A name is only shown: nothing is told apart by it.
let perUser = 10;

/** Whether rows were scored on different samples; then their names say how many. */
const isMixed = (group) => new Set(group.rows.map((row) => row.sample_set ?? row.n)).size > 1;

function chosenRows(group, metric) {
  const mixed = isMixed(group);
  return group.rows
    .map((row, at) => ({ row, at, label: mixed ? `${row.label}, n=${row.metrics[metric]?.n ?? row.n}` : row.label, found: row.metrics[metric] }))
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
  const families = group.curves.filter((curve) => curve.metric === metric);
  for (const over of new Set(families.map((curve) => curve.over))) drawn.push(curves(group, families.filter((curve) => curve.over === over), width));
  target.replaceChildren(...drawn.filter(Boolean), ...[metric === group.primary ? userGains(rows, single) : null].filter(Boolean));
}

const arrow = (group, metric) => `${metric} ${isHigher(group, metric) ? "(higher is better)" : "(lower is better)"}`;

/** Rows under each other, each as high as its name. */
function intervals(rows, width, label, zero) {
  const room = Math.floor(Math.min(220, 0.42 * width) / LETTER);
  const names = new Map();
  let height = 0;
  const data = rows.map((row) => {
    const lines = wrapped(row.label, room);
    const high = Math.max(26, LINE * lines.length + 8);
    const y = height + high / 2;
    height += high;
    names.set(y, lines);
    return { ...row, y };
  });
  const left = 24 + LETTER * longest([...names.values()].flat());
  return plot({
    width,
    height: height + 54,
    marginTop: 8,
    marginBottom: 46,
    marginLeft: left,
    marginRight: 20,
    x: { domain: spanned([...(zero === null ? [] : [zero]), ...rows.flatMap(({ low, high }) => [low, high])]), label, grid: true, nice: true, labelOffset: 38, ticks: Math.max(2, Math.min(7, Math.floor((width - left) / 70))) },
    y: { domain: [0, height], reverse: true, label: null, ticks: [...names.keys()], tickFormat: (y) => names.get(y).join("\n") },
    marks: [
      zero === null ? null : Plot.ruleX([zero], { strokeDasharray: "4 3", strokeOpacity: 0.7 }),
      Plot.ruleY(data, { y: "y", x1: "low", x2: "high", stroke: "color", strokeWidth: 2.5 }),
      Plot.dot(data, { x: "value", y: "y", fill: "color", r: 4.5, tip: true, title: "hint" }),
    ].filter(Boolean),
    ariaLabel: label,
  });
}

/** A row as a mark: who it is, its number and interval, and what is said when it is pointed at. */
const ranged = ({ row, at, label }, number, format, ...facts) => ({
  letter: row.letter,
  label,
  color: paint(at, row),
  value: number.value,
  low: number.low ?? number.value,
  high: number.high ?? number.value,
  hint: hint(label, `${format(number.value)} ${interval(number, format) || "no interval"}`, ...facts),
});

function scores(group, metric, rows, width) {
  const data = rows.map((one) => ranged(one, one.found, score));
  const baseline = rows.find(({ row }) => row.baseline);
  const note = ["with 95 % intervals over users", baseline && "dashed: none", isMixed(group) && "not all on the same samples"].filter(Boolean).join("; ");
  return figure(metric, note, intervals(data, width, arrow(group, metric), baseline ? baseline.found.value : null));
}

function gains(group, rows, width) {
  const data = rows.filter(({ found }) => found.gain.value !== null).map((one) => ranged(one, one.found.gain, signed));
  if (!data.length) return null;
  return figure("Gain over none", "paired, with 95 % intervals", intervals(data, width, "gain (right is better)", 0));
}

function frontier(group, metric, rows, width) {
  const cost = ({ costs }) => costs.per_query + costs.per_user / perUser;
  const known = rows.some(({ found }) => found.common.value !== null);
  const data = rows.map((one) => {
    const shared = one.found.common.value !== null;
    const spent = cost(one.row);
    return { ...ranged(one, shared ? one.found.common : one.found, score, `${count(spent)} tokens per query`), apart: (known && !shared) || !one.row.ranked || one.row.history !== "own", cost: Math.max(spent, 1) };
  });
  const better = (a, b) => (isHigher(group, metric) ? a > b : a < b);
  const steps = [];
  for (const point of data.filter(({ apart }) => !apart).sort((a, b) => a.cost - b.cost || (better(a.value, b.value) ? -1 : 1)))
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
    y: { domain: spanned(data.flatMap(({ low, high }) => [low, high])), label: arrow(group, metric), grid: true, nice: true },
    marks: [
      Plot.line(steps, { x: "cost", y: "value", curve: "step-after", strokeOpacity: 0.5, strokeDasharray: "5 3" }),
      Plot.ruleX(data, { x: "cost", y1: "low", y2: "high", stroke: "color", strokeOpacity: 0.6, strokeWidth: 1.5 }),
      Plot.dot(data, { x: "cost", y: "value", fill: ({ apart, color }) => (apart ? "var(--page)" : color), stroke: "color", r: 5, tip: true, title: "hint" }),
      ...labels,
    ],
    ariaLabel: "Score against cost",
  });
  const first = plot(spec([]));
  const [x, y] = [first.scale("x"), first.scale("y")];
  const named = (lines) => data.map((point, number) => ({ x: x.apply(point.cost), y: y.apply(point.value), lines: lines(point, number) }));
  const whole = named(({ label }) => wrapped(label, 30));
  const letters = named(({ letter }) => [letter]);
  const near = placed(whole, width, height - 46, 26);
  const points = near ? whole : letters;
  const places = near ?? placed(letters, width, height - 46);
  const names = data.map((point, number) =>
    Plot.text([point], { x: "cost", y: "value", text: () => points[number].lines.join("\n"), dx: places[number].dx, dy: places[number].dy, textAnchor: places[number].anchor,
      lineAnchor: "middle", lineHeight: LINE / 12, stroke: "var(--page)", strokeWidth: 4, fill: "currentColor" }));
  const spread = group.rows.some((row) => row.costs.per_user > 0);
  const asked = el("input", { type: "number", min: 1, max: 100000, value: perUser, "aria-label": "queries per user" });
  asked.addEventListener("change", () => {
    perUser = Math.max(1, Number(asked.value) || 1);
    showFigures();
  });
  const note = el("span", { class: "quiet" }, spread ? ["knowing a user spread over ", asked, " queries"] : "input and output, all calls of a query", "; dashed: what nothing cheaper reaches",
    rows.some(({ row }) => cost(row) < 1) ? "; without calls: drawn at 1" : "", samplesOf(rows, data));
  const letter = ({ letter, color, apart }) => [swatch(color, "circle", apart), el("span", { class: "letter" }, letter)];
  const drawing = plot(spec(names));
  const made = figure("Quality against cost", "", near ? drawing : [drawing, key(data.map((point) => ({ mark: letter(point), label: point.label })))]);
  made.firstChild.append(" ", note);
  return made;
}

/** On which samples the points of the frontier stand, where that is not on their own. */
function samplesOf(rows, data) {
  const cut = rows.find(({ found }) => found.common.value !== null && found.common.n !== found.n);
  return [
    cut ? `; scores on the ${cut.found.common.n} samples that all have` : "",
    data.some(({ apart }) => apart) ? "; hollow: not compared, since they are controls or have too few users or samples" : "",
  ].join("");
}

function curves(group, families, width) {
  const [{ over, metric }] = families;
  const data = families.flatMap(({ name, points }, number) =>
    points
      .filter(({ row }) => isShown(group.rows[row]))
      .map((point) => {
        const row = group.rows[point.row];
        const x = point.x === null ? "all" : String(point.x);
        const facts = [`${over} ${x}`, `n=${point.n}${point.joined ? "" : ", not joined"}`];
        const color = paint(number);
        return { ...ranged({ row, at: number, label: row.label }, point, score, ...facts), color, x, rank: point.x ?? Infinity, name, number, joined: point.joined, size: point.n };
      }));
  if (data.length < 2) return null;
  const domain = [...new Map(data.map(({ x, rank }) => [x, rank])).entries()].sort((a, b) => a[1] - b[1]).map(([x]) => x);
  const named = over === "history" ? "records of history" : over;
  const title = over === "history" ? "How much history" : `How much ${over}`;
  const shown = families.map(({ name, remarks }, number) => ({ name, remarks, number })).filter(({ number }) => data.some((point) => point.number === number));
  const drawing = plot({
    width,
    height: 330,
    marginLeft: 52,
    marginTop: 30,
    marginBottom: 46,
    marginRight: 24,
    x: { label: named, domain, type: "point", labelOffset: 38 },
    y: { domain: spanned(data.flatMap(({ low, high }) => [low, high])), label: arrow(group, metric), grid: true, nice: true },
    marks: [
      Plot.ruleX(data, { x: "x", y1: "low", y2: "high", stroke: "color", strokeOpacity: 0.6, strokeWidth: 1.5 }),
      Plot.line(data.filter(({ joined }) => joined), { x: "x", y: "value", z: "number", stroke: "color", strokeWidth: 2 }),
      Plot.dot(data, { x: "x", y: "value", fill: ({ joined, color }) => (joined ? color : "var(--page)"), stroke: "color", symbol: ({ number }) => symbol(number), r: 4.5, tip: true, title: "hint" }),
    ],
    symbol: { type: "identity" },
    ariaLabel: `Score against ${named}`,
  });
  const names = key(shown.map(({ name, number }) => ({ mark: swatch(paint(number), symbol(number)), label: `${name}, n=${sizes(data.filter((point) => point.number === number))}` })));
  const notes = shown.flatMap(({ name, remarks }) => remarks.map((remark) => el("p", { class: "quiet" }, `${name}: ${remark}`)));
  return figure(title, "runs that share everything else, on the same samples; bars: 95 % intervals", [drawing, names, notes]);
}

const sizes = (points) => [...new Set(points.map(({ size }) => size))].join(", ");

function userGains(rows, single) {
  const shown = rows.filter(({ row }) => row.user_gains?.length > 1);
  if (!shown.length) return null;
  const all = shown.flatMap(({ row }) => row.user_gains);
  const domain = spanned([0, ...all]);
  const per = Math.max(1, Math.min(shown.length, Math.floor(single / (single < 600 ? 160 : 260))));
  const width = Math.min(480, Math.floor((single - 12 * (per - 1)) / per));
  const small = shown.map(({ label, row }) => {
    const values = row.user_gains;
    const data = values.map((gain, at) => ({ gain, from: at / values.length, to: (at + 1) / values.length }));
    const tally = row.users_changed;
    const said = tally ? `${percent(tally.win / total(tally))} of users gain, ${percent(tally.loss / total(tally))} lose` : "";
    return el("div", {}, el("p", {}, el("strong", {}, breakable(label)), el("small", {}, said)), plot({
      width,
      height: 130,
      marginLeft: 46,
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
