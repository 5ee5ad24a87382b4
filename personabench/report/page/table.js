// The table of results: a row per run, filtered with the page, sorted by any column.
const order = { column: null, down: false };

const COLUMNS = [
  { name: "Task", text: true, value: ({ group }) => `${group.task} ${group.split} ${group.apart}`, cell: taskCell },
  { name: "Method", text: true, value: ({ row }) => row.label, cell: methodCell, head: true },
  { name: "Model", text: true, value: ({ group }) => group.model },
  { name: "Metric", text: true, value: ({ metric, group }) => `${metric} ${isHigher(group, metric) ? "↑" : "↓"}` },
  { name: "Score", value: ({ found }) => found.value, cell: (line) => withInterval(line.found, score, tested(line) && line.row.emphasized) },
  { name: "Beats", text: true, value: (line) => (tested(line) ? line.row.beats.join(" ") : "") },
  {
    name: "Gain",
    value: ({ found }) => found.gain.value,
    cell: ({ found }) => (found.gain.value === null ? "" : withInterval(found.gain, signed)),
  },
  { name: "p", value: (line) => (tested(line) ? line.row.gain.p : null), cell: (line) => (tested(line) && line.row.gain.value !== null ? pvalue(line.row.gain.p) : "") },
  { name: "Made worse", value: worse, cell: (line) => (worse(line) === null ? "" : percent(worse(line))) },
  { name: "Own − shuffled", value: (line) => control(line, "shuffled").value, cell: (line) => against(control(line, "shuffled"), line.row.personal === false) },
  { name: "Over trivial", value: (line) => control(line, "trivial").value, cell: (line) => against(control(line, "trivial"), false) },
  { name: "n", value: ({ row }) => row.n, cell: ({ row }) => count(row.n) },
  { name: "Users", value: ({ row }) => row.users, cell: ({ row }) => count(row.users) },
  { name: "Failed", value: ({ row }) => row.failed, cell: ({ row }) => count(row.failed) },
  { name: "Owed", value: ({ row }) => row.owed, cell: ({ row }) => count(row.owed) },
  { name: "Tokens/query", value: ({ row }) => row.costs.per_query, cell: ({ row }) => count(row.costs.per_query) },
  { name: "Tokens/user", value: ({ row }) => row.costs.per_user, cell: ({ row }) => count(row.costs.per_user) },
  { name: "Run", text: true, value: ({ row }) => row.run, cell: runCell },
];

const NONE = { value: null };
const tested = ({ group, metric }) => metric === group.primary;
const control = (line, role) => (tested(line) ? line.row[role] : NONE);

function worse(line) {
  const users = tested(line) && line.row.users_changed;
  return users ? users.loss / total(users) : null;
}

function against(gain, doubtful) {
  if (gain.value === null) return "";
  return [el("span", {}, signed(gain.value), doubtful ? " †" : ""), small(`p ${pvalue(gain.p)}`)];
}

const small = (text) => el("small", {}, text);

function withInterval(found, format, leader = false) {
  return [
    el(leader ? "strong" : "span", {}, format(found.value), leader ? " ★" : ""),
    interval(found) === "" ? null : small(interval(found, format)),
  ];
}

function taskCell({ group }) {
  return [group.task, ...[group.split, group.options, group.apart].filter(Boolean).map(small)];
}

function methodCell({ row }) {
  const seeds = row.seeds.length > 1 && `mean of seeds ${row.seeds.join(", ")}, sd ${score(row.seed_sd)}`;
  const remarks = [row.privileged && "sees the answer", row.status !== "complete" && row.status, row.fit === "adapted" && "adapted", row.published && "published", seeds].filter(Boolean);
  return [el("span", { class: "letter" }, row.letter), ` ${row.label}`, remarks.length ? small(remarks.join(", ")) : null];
}

function runCell({ row }) {
  return el("a", { href: `#run-${row.run}` }, row.run);
}

function lines() {
  return shownGroups().flatMap((group) => {
    const metric = metricOf(group);
    return group.rows
      .filter((row) => isShown(row) && row.metrics[metric])
      .map((row) => ({ group, row, metric, found: row.metrics[metric] }));
  });
}

function sorted(all) {
  const column = COLUMNS[order.column];
  if (!column) return all;
  const known = (line) => ![null, undefined, ""].includes(column.value(line));
  const compare = (a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    return column.text ? x.localeCompare(y) : x - y;
  };
  const ranked = all.filter(known).sort((a, b) => (order.down ? -compare(a, b) : compare(a, b)));
  return [...ranked, ...all.filter((line) => !known(line))];
}

function sortBy(number) {
  const first = !COLUMNS[number].text;
  if (order.column !== number) Object.assign(order, { column: number, down: first });
  else if (order.down === first) order.down = !first;
  else order.column = null;
  showTable();
  byId("table").querySelectorAll("th button")[shownColumns(lines()).indexOf(COLUMNS[number])]?.focus();
}

function shownColumns(all) {
  const always = new Set(["Method", "Score", "n", "Run"]);
  const constant = (column) => new Set(all.map((line) => column.value(line) ?? "")).size <= 1;
  const hides = { Task: constant, Model: constant, Metric: constant, "Tokens/user": (column) => all.every((line) => !column.value(line)), Failed: (column) => all.every((line) => !column.value(line)) };
  return COLUMNS.filter((column) => {
    if (always.has(column.name)) return true;
    if (hides[column.name]) return !hides[column.name](column);
    return all.some((line) => ![null, undefined, ""].includes(column.value(line)));
  });
}

/** The score's column is named after the metric where all rows have the same. */
function heading(column, all) {
  const metrics = new Set(all.map(COLUMNS.find((each) => each.name === "Metric").value));
  return column.name === "Score" && metrics.size === 1 ? [...metrics][0] : column.name;
}

function showTable() {
  const all = lines();
  const columns = shownColumns(all);
  const heads = columns.map((column) => {
    const number = COLUMNS.indexOf(column);
    const active = order.column === number;
    const direction = order.down ? "descending" : "ascending";
    const mark = active ? (order.down ? " ▼" : " ▲") : "";
    const button = el("button", { type: "button", onclick: () => sortBy(number) }, heading(column, all), el("span", {}, mark));
    return el("th", { scope: "col", "aria-sort": active ? direction : "none", class: column.text ? "" : "number" }, button);
  });
  const ranked = sorted(all);
  const body = ranked.map((line, at) => {
    const starts = order.column === null && at > 0 && ranked[at - 1].group !== line.group;
    return el(
      "tr",
      { class: [starts ? "starts" : "", line.row.baseline ? "baseline" : ""].join(" ").trim() || null },
      columns.map((column) => {
        const content = (column.cell ?? column.value)(line);
        const kind = column.text ? "" : "number";
        return el(column.head ? "th" : "td", { class: kind || null, scope: column.head ? "row" : null }, content ?? "");
      }),
    );
  });
  byId("table").replaceChildren(el("thead", {}, el("tr", {}, heads)), el("tbody", {}, body));
  byId("filtered").textContent = `${all.length} of ${report.groups.reduce((sum, group) => sum + group.rows.length, 0)} runs`;
  byId("legend").textContent =
    "★ best of its table, or not significantly worse than the best. Brackets: 95 % intervals over users. " +
    "Beats: letters of the rows that it is significantly better than (Holm-corrected p ≤ 0.05). " +
    "Gain, p and made worse: against none, in italics." +
    (all.some((line) => line.row.personal === false) ? " † not shown to be personal." : "");
}
