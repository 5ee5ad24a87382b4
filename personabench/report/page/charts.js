// The figures of one group, drawn by Observable Plot as SVG. A name is only shown: nothing is told apart by it.
let perUser = 10;

// Pixels of a figure's frame, left and right together.
const FRAME = 26;

/** Whether rows were scored on different samples; then their names say how many. */
const isMixed = (group) => new Set(group.rows.map((row) => row.sample_set ?? row.n)).size > 1;

function chosenRows(group, metric) {
  const mixed = isMixed(group);
  return group.rows
    .map((row) => ({ row, label: mixed ? `${row.label}, n=${row.metrics[metric]?.n ?? row.n}` : row.label, found: row.metrics[metric] }))
    .filter(({ row, found }) => found && isShown(row));
}

function showFigures() {
  const group = report.groups[state.group];
  const metric = metricOf(group);
  const rows = chosenRows(group, metric);
  const target = byId("figures");
  if (!rows.length) return target.replaceChildren(el("p", { class: "quiet" }, "No run fits the filters."));
  const single = Math.min(target.clientWidth || 600, 1300);
  const width = (single > 900 ? (single - 24) / 2 : single) - FRAME;
  const whole = single - FRAME;
  const drawn = [scores(group, metric, rows, width), gains(group, metric, rows, width), slopes(group, metric, rows, width, whole), frontier(group, metric, rows, width)];
  const families = group.curves.filter((curve) => curve.metric === metric);
  for (const over of new Set(families.map((curve) => curve.over))) drawn.push(curves(group, families.filter((curve) => curve.over === over), width));
  if (metric === group.primary) drawn.push(userGains(group, rows, whole));
  target.replaceChildren(...drawn.filter(Boolean));
}

const arrow = (group, metric) => `${metric} ${isHigher(group, metric) ? "(higher is better)" : "(lower is better)"}`;

/** What a file of numbers says of a row. */
const factsOf = (group, metric, row) => ({ task: group.task, split: group.split, model: group.model, metric, method: row.label, history: row.history });
const numbersOf = ({ value, low, high }) => ({ value, low, high });

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
    r: { type: "identity" },
    marks: [
      zero === null ? null : Plot.ruleX([zero], { strokeDasharray: "4 3" }),
      Plot.ruleY(data, { y: "y", x1: "low", x2: "high", stroke: "color", strokeWidth: 2.5 }),
      Plot.dot(data, { x: "value", y: "y", fill: "fill", stroke: "color", strokeWidth: 1.6, r: "r", tip: true, title: "hint" }),
    ].filter(Boolean),
    ariaLabel: label,
  });
}

/** A row as a mark: who it is, its number and interval, and what is said when it is pointed at. */
const ranged = ({ row, label }, number, format, ...facts) => ({
  letter: row.letter,
  label,
  ...markStyle(row, hasInterval(number)),
  sure: hasInterval(number),
  value: number.value,
  low: number.low ?? number.value,
  high: number.high ?? number.value,
  hint: hint(label, `${format(number.value)} ${interval(number, format) || `no interval: ${row.reason ?? "too few users"}`}`, ...facts),
});

function scores(group, metric, rows, width) {
  const format = fixed(digitsOf(group, metric));
  const data = rows.map((one) => ranged(one, one.found, format));
  const baseline = rows.find(({ row }) => row.baseline);
  const note = ["with 95 % intervals over users", baseline && "dashed: none", isMixed(group) && "not all on the same samples"].filter(Boolean).join("; ");
  const drawing = intervals(data, width, arrow(group, metric), baseline ? baseline.found.value : null);
  return figure(metric, note, drawing, {
    picture: () => onePart(drawing),
    rows: () => rows.map(({ row, found }) => ({ ...factsOf(group, metric, row), ...numbersOf(found), n: found.n ?? row.n, users: row.users })),
    protocol: group.protocol,
  });
}

function gains(group, metric, rows, width) {
  const known = rows.filter(({ found }) => found.gain.value !== null);
  if (!known.length) return null;
  const format = fixedGain(digitsOf(group, metric));
  const data = known.map((one) => ranged(one, one.found.gain, format));
  const drawing = intervals(data, width, "gain (right is better)", 0);
  const p = (row) => (isTested({ group, metric }) ? row.gain.p : null);
  return figure("Gain over none", "paired, with 95 % intervals; hollow: another user's history, or grey: no interval", drawing, {
    picture: () => onePart(drawing),
    rows: () => known.map(({ row, found }) => ({ ...factsOf(group, metric, row), ...numbersOf(found.gain), p: p(row), n: found.gain.n, users: row.users })),
    protocol: group.protocol,
  });
}

/** Own history against another user's, method by method: a line per user, and the method's own scores. */
function slopes(group, metric, rows, half, whole) {
  const pairs = rows.filter(({ row }) => isKnown(row.twin) && group.rows[row.twin].metrics[metric]);
  if (!pairs.length || metric !== group.primary) return null;
  const base = group.baseline === null ? null : group.rows[group.baseline].metrics[metric].value;
  const values = pairs.flatMap(({ row, found }) => [found.value, group.rows[row.twin].metrics[metric].value, ...(row.twin_pairs ?? []).flat()]);
  const domain = spanned([...(base === null ? [] : [base]), ...values]);
  const isWhole = pairs.length > 2;
  const room = isWhole ? whole : half;
  const per = Math.max(1, Math.min(pairs.length, Math.floor(room / (room < 600 ? 160 : 240))));
  const width = Math.min(320, Math.floor((room - 12 * (per - 1)) / per));
  const multiples = pairs.map((pair) => slope(group, metric, pair, { base, domain, width }));
  const note = `${withArrow(group, metric)} with the user's own history and with another user's; thin: each user; thick: all samples${base === null ? "" : "; dashed: none"}`;
  return multiple("Is the gain personal?", note, multiples, {
    rows: () => pairs.flatMap(({ row }) => (row.twin_pairs ?? []).map(([own, other], user) => ({ ...factsOf(group, metric, row), user: user + 1, own, other }))),
    protocol: group.protocol,
  }, isWhole);
}

function slope(group, metric, { row, found }, { base, domain, width }) {
  const sides = ["own", "another's"];
  const twin = group.rows[row.twin];
  const users = row.twin_pairs ?? [];
  const lines = users.flatMap((pair, user) => pair.map((value, side) => ({ user, value, side: sides[side] })));
  const means = [[row, found], [twin, twin.metrics[metric]]].map(([each, number], side) => ({ side: sides[side], value: number.value, ...markStyle(each, hasInterval(number)), r: 6 }));
  const gain = row.shuffled;
  const format = fixedGain(digitsOf(group, metric));
  const won = users.filter(([own, other]) => (isHigher(group, metric) ? own > other : own < other)).length;
  const said = [];
  if (isKnown(gain.value)) said.push(`own − another's ${format(gain.value)} ${interval(gain, format)}${gain.p === null ? "" : `, p ${pvalue(gain.p)}`}`);
  if (users.length) said.push(`${won} of ${counted(users.length, "user")} better with their own`);
  const drawing = plot({
    width,
    height: 210,
    marginLeft: 46,
    marginTop: 10,
    marginRight: 16,
    marginBottom: 26,
    x: { domain: sides, type: "point", label: null, padding: 0.25 },
    y: { domain, label: null, grid: true, nice: true, ticks: 5 },
    r: { type: "identity" },
    marks: [
      base === null ? null : Plot.ruleY([base], { strokeDasharray: "4 3" }),
      Plot.line(lines, { x: "side", y: "value", z: "user", stroke: "var(--thin)", strokeWidth: 0.8 }),
      Plot.line(means, { x: "side", y: "value", stroke: hueOf(row), strokeWidth: 2.5 }),
      Plot.dot(means, { x: "side", y: "value", fill: "fill", stroke: "color", strokeWidth: 1.8, r: "r" }),
    ].filter(Boolean),
    ariaLabel: `Own history against another user's, ${row.label}: ${said.join("; ")}`,
  });
  return { name: row.label, said, drawing };
}

/** Small plots side by side, each with its name and what is said of it. */
function multiple(title, note, multiples, saved, isWhole, after = "") {
  const content = el("div", { class: "multiples" }, multiples.map(({ name, said, drawing }) => el("div", {}, el("p", {}, el("strong", {}, breakable(name)), said.map(small)), drawing)));
  const made = figure(title, note, [content, after ? el("p", { class: "quiet" }, after) : null], { ...saved, note: [note, after].filter(Boolean).join(". "), picture: () => manyParts(multiples) });
  if (isWhole) made.classList.add("full");
  return made;
}

/** Quality against cost, by the leaderboard's rule: controls cannot be bought, and rows without a rank are left out. */
function frontier(group, metric, all, width) {
  const rows = all.filter(({ row }) => row.history === "own");
  if (!rows.length) return null;
  const format = fixed(digitsOf(group, metric));
  const cost = ({ costs }) => costs.per_query + costs.per_user / perUser;
  const known = rows.some(({ found }) => found.common.value !== null);
  const data = rows.map((one) => {
    const shared = one.found.common.value !== null;
    const spent = cost(one.row);
    const mark = ranged(one, shared ? one.found.common : one.found, format, `${count(spent)} tokens per query`);
    const apart = (known && !shared) || !one.row.ranked;
    return { ...mark, apart, fill: apart ? HOLLOW : mark.fill, cost: Math.max(spent, 1), row: one.row };
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
    x: { label: "tokens per query", type: wide > 10 ? "log" : "linear", grid: true, tickFormat: "~s", inset: 24, labelOffset: 38, ticks: wide > 10 ? logTicks(Math.min(...costs), Math.max(...costs)) : width < 500 ? 3 : 6 },
    y: { domain: spanned(data.flatMap(({ low, high }) => [low, high])), label: arrow(group, metric), grid: true, nice: true },
    r: { type: "identity" },
    marks: [
      Plot.line(steps, { x: "cost", y: "value", curve: "step-after", stroke: "var(--quiet)", strokeDasharray: "5 3" }),
      Plot.ruleX(data, { x: "cost", y1: "low", y2: "high", stroke: "color", strokeWidth: 1.5 }),
      Plot.dot(data, { x: "cost", y: "value", fill: "fill", stroke: "color", strokeWidth: 1.6, r: "r", tip: true, title: "hint" }),
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
      lineAnchor: "middle", lineHeight: LINE / 12, stroke: "var(--card)", strokeWidth: 6, fill: "currentColor" }));
  const spread = group.rows.some((row) => row.costs.per_user > 0);
  const queries = el("input", { type: "number", min: 1, max: 100000, value: perUser, "aria-label": "queries per user" });
  queries.addEventListener("change", () => {
    perUser = Math.max(1, Number(queries.value) || 1);
    showFigures();
  });
  const rest = ["; dashed: what nothing cheaper reaches; controls are left out", rows.some(({ row }) => cost(row) < 1) ? "; without calls: drawn at 1" : "", samplesOf(rows, data)].join("");
  const note = el("span", { class: "quiet" }, spread ? ["knowing a user spread over ", queries, " queries"] : "input and output, all calls of a query", rest);
  const keys = near ? [] : data.map((point) => ({ mark: [swatch(point.color, "circle", point.fill === HOLLOW), el("span", { class: "letter" }, point.letter)], label: point.label }));
  const drawing = plot(spec(names));
  const made = figure("Quality against cost", "", near ? drawing : [drawing, key(keys)], {
    picture: () => onePart(drawing, keys),
    rows: () => data.map(({ row, cost: spent, value, low, high }) => ({ ...factsOf(group, metric, row), tokens_per_query: spent, value, low, high, queries_per_user: perUser })),
    protocol: group.protocol,
    note: `${spread ? `knowing a user spread over ${perUser} queries` : "input and output, all calls of a query"}${rest}`,
  });
  made.firstChild.append(" ", note);
  return made;
}

/** On which samples the points of the frontier stand, where that is not on their own. */
function samplesOf(rows, data) {
  const cut = rows.find(({ found }) => found.common.value !== null && found.common.n !== found.n);
  return [
    cut ? `; scores on the ${cut.found.common.n} samples that all have` : "",
    data.some(({ apart }) => apart) ? "; hollow: too few users or samples, not compared" : "",
    data.some(({ apart, sure }) => !apart && !sure) ? "; hollow and grey: no interval" : "",
  ].join("");
}

function curves(group, families, width) {
  const [{ over, metric }] = families;
  const format = fixed(digitsOf(group, metric));
  const data = families.flatMap(({ name, points }, number) =>
    points
      .filter(({ row }) => isShown(group.rows[row]))
      .map((point) => {
        const row = group.rows[point.row];
        const x = point.x === null ? "all" : String(point.x);
        const facts = [`${over} ${x}`, `n=${point.n}${point.joined ? "" : ", not joined"}`];
        return { ...ranged({ row, label: row.label }, point, format, ...facts), color: hueOf(row), x, rank: point.x ?? Infinity, name, number, joined: point.joined, size: point.n, row };
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
      Plot.ruleX(data, { x: "x", y1: "low", y2: "high", stroke: "color", strokeWidth: 1.5 }),
      Plot.line(data.filter(({ joined }) => joined), { x: "x", y: "value", z: "number", stroke: "color", strokeWidth: 2 }),
      Plot.dot(data, { x: "x", y: "value", fill: ({ joined, color }) => (joined ? color : HOLLOW), stroke: "color", symbol: ({ number }) => symbol(number), r: 4.5, tip: true, title: "hint" }),
    ],
    symbol: { type: "identity" },
    ariaLabel: `Score against ${named}`,
  });
  const colorOf = (number) => data.find((point) => point.number === number).color;
  const keys = shown.map(({ name, number }) => ({ mark: swatch(colorOf(number), symbol(number)), label: `${name}, n=${sizes(data.filter((point) => point.number === number))}` }));
  const notes = shown.flatMap(({ name, remarks }) => remarks.map((remark) => `${name}: ${remark}`));
  return figure(title, "runs that share everything else, on the same samples; bars: 95 % intervals", [drawing, key(keys), notes.map((note) => el("p", { class: "quiet" }, note))], {
    picture: () => onePart(drawing, keys),
    rows: () => data.map(({ name, row, x, value, low, high, size, joined }) => ({ ...factsOf(group, metric, row), curve: name, over, x, value, low, high, n: size, joined: String(joined) })),
    protocol: [...notes, group.protocol].join(" "),
  });
}

const sizes = (points) => [...new Set(points.map(({ size }) => size))].join(", ");

function userGains(group, rows, single) {
  const known = rows.filter(({ row }) => row.user_gains?.length > 1);
  const shown = known.filter(({ row }) => row.user_gains.some((gain) => gain !== 0));
  const level = known.filter((one) => !shown.includes(one)).map(({ label }) => label);
  if (!shown.length) return null;
  const domain = spanned([0, ...shown.flatMap(({ row }) => row.user_gains)]);
  const per = Math.max(1, Math.min(shown.length, Math.floor(single / (single < 600 ? 160 : 260))));
  const width = Math.min(480, Math.floor((single - 12 * (per - 1)) / per));
  const multiples = shown.map(({ label, row }) => {
    const values = row.user_gains;
    const data = values.map((gain, at) => ({ gain, from: at / values.length, to: (at + 1) / values.length }));
    const tally = row.users_changed;
    const said = tally ? `${percent(tally.win / total(tally))} of users gain, ${percent(tally.loss / total(tally))} lose` : "";
    const drawing = plot({
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
    });
    return { name: label, said: said ? [said] : [], drawing };
  });
  return multiple("Gain of each user over none", "share of users, from the worst served to the best; orange loses", multiples, {
    rows: () => known.flatMap(({ row }) => row.user_gains.map((gain, user) => ({ ...factsOf(group, group.primary, row), user: user + 1, gain }))),
    protocol: group.protocol,
  }, true, level.length ? `No user gains or loses with ${level.join(", ")}` : "");
}
