// The table of results: a block of rows per task and model, filtered with the page, sorted within the blocks.
const order = { column: null, down: false };
/** Columns that the reader showed or hid, by name; the others are shown if they say something. */
const chosenColumns = new Map();

const isFilled = (value) => ![null, undefined, ""].includes(value);
const NONE = { value: null };
const trained = (name) => ({ row }) => row.training?.[name] ?? null;
const amount = (line, name) => (isKnown(trained(name)(line)) ? count(trained(name)(line)) : "");
const control = (line, role) => (isTested(line) ? line.row[role] : NONE);

/**
 * The columns, those that matter most first.
 * @property about a sentence for the heading and the list of columns.
 * @property rare hidden until the reader asks for it, or until a row has something to report (`alarm`).
 * @property screen left out of print.
 * @property training of trained methods, and only there where one is among all rows.
 */
const COLUMNS = [
  { name: "Method", about: "The method, its parameters that are not at their default, and its history control.", text: true, value: ({ row }) => row.label, cell: methodCell, head: true },
  { name: "Score", about: "The chosen metric, with its 95 % interval over users. ★: beats at least one row, and no row is significantly better.", value: ({ found }) => found.value, cell: (line) => withInterval(line.found, line.format, isBest(line)) },
  { name: "Gain", about: "Score minus that of none on the same samples, with a paired interval; positive is better.", value: ({ found }) => found.gain.value, cell: ({ found, formatGain }) => (isKnown(found.gain.value) ? withInterval(found.gain, formatGain) : "") },
  { name: "p", about: "Of the gain: sign-flip permutation test over users, corrected after Holm over all pairs of the table.", value: (line) => (isTested(line) ? line.row.gain.p : null), cell: (line) => (isTested(line) && isKnown(line.row.gain.value) ? pvalue(line.row.gain.p) : "") },
  { name: "Own − shuffled", about: "Gain over the same method with another user's history: the part that is personal. †: not shown to be personal.", value: (line) => control(line, "shuffled").value, cell: (line) => against(line, "shuffled", line.row.personal === false) },
  { name: "Beats", about: "Letters of the rows that this one is significantly better than (corrected p ≤ 0.05).", text: true, value: (line) => (isTested(line) ? line.row.beats.join(" ") : "") },
  { name: "Made worse", about: "Share of users whose own score is lower than without any history.", value: worse, cell: (line) => (worse(line) === null ? "" : percent(worse(line))) },
  { name: "Over trivial", about: "Gain over the best rule that calls no model.", value: (line) => control(line, "trivial").value, cell: (line) => against(line, "trivial", false) },
  { name: "n", about: "Number of samples.", value: ({ row }) => row.n, cell: ({ row }) => count(row.n) },
  { name: "Users", about: "Number of users: the unit of chance.", value: ({ row }) => row.users, cell: ({ row }) => count(row.users) },
  { name: "Failed", about: "Samples that ended in an error; they count as wrong.", rare: true, alarm: true, value: ({ row }) => row.failed, cell: ({ row }) => count(row.failed) },
  { name: "Unparsed", about: "Answers that no parser could read; they count as wrong.", rare: true, alarm: true, value: ({ row }) => row.unparsed, cell: ({ row }) => count(row.unparsed) },
  { name: "Owed", about: "Samples that the run has not done yet.", rare: true, alarm: true, value: ({ row }) => row.owed, cell: ({ row }) => count(row.owed) },
  { name: "Tokens/query", about: "Tokens of all calls at question time, by sample.", screen: true, value: ({ row }) => row.costs.per_query, cell: ({ row }) => count(row.costs.per_query) },
  { name: "Tokens/user", about: "Tokens spent once to know a user.", rare: true, screen: true, value: ({ row }) => row.costs.per_user, cell: ({ row }) => count(row.costs.per_user) },
  { name: "Trained on", about: "What the method was trained on: train (samples of the training split), history (the user's own records), or both.", training: true, text: true, value: trained("trained_on") },
  { name: "Training s/user", about: "Seconds of a user's training, the mean over users.", training: true, screen: true, value: trained("train_seconds") },
  { name: "Training s, p95", about: "Seconds of a user's training, the 95th percentile over users.", training: true, rare: true, screen: true, value: trained("train_seconds_p95") },
  { name: "Parameters/user", about: "Trained numbers of a user's artifact.", training: true, rare: true, screen: true, value: trained("train_parameters"), cell: (line) => amount(line, "train_parameters") },
  { name: "Bytes/user", about: "Size of a user's artifact.", training: true, rare: true, screen: true, value: trained("train_bytes"), cell: (line) => amount(line, "train_bytes") },
  { name: "Records/user", about: "Records that a user's artifact was trained on, the mean over users.", training: true, rare: true, screen: true, value: trained("train_records") },
  { name: "Run", about: "The run's short name, which leads to everything that identifies it.", text: true, screen: true, value: ({ row }) => row.run, cell: runCell },
];
const FIXED = new Set(["Method", "Score"]);

/** Best of its table in the only way that means something: it beats a row, and none is significantly better. */
const isBest = (line) => isTested(line) && line.row.emphasized;

function worse(line) {
  const users = isTested(line) && line.row.users_changed;
  return users ? users.loss / total(users) : null;
}

function against(line, role, doubtful) {
  const gain = control(line, role);
  if (!isKnown(gain.value)) return "";
  return [el("span", {}, line.formatGain(gain.value), doubtful ? " †" : ""), small(`p ${pvalue(gain.p)}`)];
}

function withInterval(estimate, format, isLeader = false) {
  const reason = hasInterval(estimate) ? null : "no interval: too few users, or all of them score the same";
  return [
    el(isLeader ? "strong" : "span", { class: reason && "unsure", title: reason ?? `${estimate.value} ${interval(estimate, String)}` }, format(estimate.value), isLeader ? " ★" : ""),
    hasInterval(estimate) ? small(interval(estimate, format)) : null,
  ];
}

function methodCell({ row }) {
  const seeds = row.seeds.length > 1 && `mean of seeds ${row.seeds.join(", ")}, sd ${score(row.seed_sd)}`;
  const remarks = [row.privileged && "sees the answer", row.status !== "complete" && row.status, row.fit === "adapted" && "adapted", row.published && "published", seeds].filter(Boolean);
  return [el("span", { class: "letter" }, row.letter), " ", el("span", {}, breakable(row.label)), remarks.length ? small(remarks.join(", ")) : null];
}

function runCell({ row }) {
  return el("a", { href: `#run-${row.run}`, onclick: (event) => {
    event.preventDefault();
    openRun(row.run);
  } }, row.run);
}

/** The rows to show, in blocks. */
function blocks() {
  return shownGroups().map((group) => {
    const metric = metricOf(group);
    const digits = digitsOf(group, metric);
    const shared = { group, metric, format: fixed(digits), formatGain: fixedGain(digits) };
    const rows = group.rows.filter((row) => isShown(row) && row.metrics[metric]);
    return { group, metric, lines: rows.map((row) => ({ ...shared, row, found: row.metrics[metric] })) };
  }).filter(({ lines }) => lines.length);
}

function sorted(lines) {
  const column = COLUMNS.find(({ name }) => name === order.column);
  if (!column) return lines;
  const known = (line) => isFilled(column.value(line));
  const compare = (a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    return column.text ? x.localeCompare(y) : x - y;
  };
  const ranked = lines.filter(known).sort((a, b) => (order.down ? -compare(a, b) : compare(a, b)));
  return [...ranked, ...lines.filter((line) => !known(line))];
}

function sortBy(column) {
  const first = !column.text;
  if (order.column !== column.name) Object.assign(order, { column: column.name, down: first });
  else if (order.down === first) order.down = !first;
  else order.column = null;
  showTable();
  writeAddress();
  byId("table").querySelector(`th[data-column="${column.name}"] button`)?.focus();
}

const hasTraining = () => report.groups.some((group) => group.rows.some((row) => row.training));
const possibleColumns = () => COLUMNS.filter((column) => !column.training || hasTraining());

function shownColumns(lines) {
  return possibleColumns().filter((column) => {
    if (FIXED.has(column.name)) return true;
    if (chosenColumns.has(column.name)) return chosenColumns.get(column.name);
    if (column.alarm) return lines.some((line) => column.value(line));
    return !column.rare && lines.some((line) => isFilled(column.value(line)));
  });
}

/** The score's column is named after the metric where all rows have the same. */
function heading(column, all) {
  const metrics = new Set(all.map(({ group, metric }) => withArrow(group, metric)));
  return column.name === "Score" && metrics.size === 1 ? [...metrics][0] : column.name;
}

function columnHeads(columns, all) {
  return columns.map((column) => {
    const active = order.column === column.name;
    const direction = order.down ? "descending" : "ascending";
    const mark = active ? (order.down ? " ▼" : " ▲") : "";
    const button = el("button", { type: "button", title: column.about, onclick: () => sortBy(column) }, heading(column, all), el("span", {}, mark));
    return el("th", { scope: "col", "data-column": column.name, "data-heading": heading(column, all), "aria-sort": active ? direction : "none", class: cellClass(column) }, button);
  });
}

const cellClass = (column) => [column.text ? "" : "number", column.screen ? "screen" : ""].join(" ").trim() || null;

function tableRow(line, columns) {
  return el("tr", { class: line.row.baseline ? "baseline" : null }, columns.map((column) => {
    const content = (column.cell ?? column.value)(line);
    return el(column.head ? "th" : "td", { class: cellClass(column), scope: column.head ? "row" : null }, content ?? "");
  }));
}

/** The name of a block: its task, model, metric and size, on a line of its own. */
function blockHead({ group, metric }, columns) {
  const facts = [withArrow(group, metric), `${counted(group.n, "sample")} of ${counted(group.users, "user")}`].join(" · ");
  return el("tr", { class: "block" }, el("th", { scope: "rowgroup", colspan: columns.length }, el("span", { class: "pinned" }, el("strong", {}, groupName(group)), " ", small(facts))));
}

function showTable() {
  const shown = blocks();
  const all = shown.flatMap(({ lines }) => lines);
  const columns = shownColumns(all);
  byId("table").replaceChildren(
    el("thead", {}, el("tr", {}, columnHeads(columns, all))),
    ...shown.map((block) => el("tbody", {}, blockHead(block, columns), sorted(block.lines).map((line) => tableRow(line, columns)))));
  byId("filtered").textContent = `${all.length} of ${report.groups.reduce((sum, group) => sum + group.rows.length, 0)} runs`;
  byId("legend").textContent =
    "Brackets: 95 % intervals over users. Italics: none, which gain, p and made worse are against. " +
    "Grey: no interval, because too few users were asked or all of them score the same." +
    (all.some(isBest) ? " ★: beats a row, and no row is significantly better." : "") +
    (all.some((line) => line.row.personal === false) ? " † not shown to be personal." : "");
  showChooser(all, columns);
}

/** The list of columns, each with its sentence: what to show, and what it means. */
function showChooser(all, columns) {
  byId("columns").replaceChildren(...possibleColumns().map((column) => {
    const box = el("input", { type: "checkbox", name: column.name, checked: columns.includes(column), disabled: FIXED.has(column.name) });
    box.addEventListener("change", () => {
      chosenColumns.set(column.name, box.checked);
      showTable();
      writeAddress();
      byId("columns").querySelector(`input[name="${column.name}"]`)?.focus();
    });
    return el("label", {}, box, el("span", {}, el("strong", {}, heading(column, all)), " ", small(column.about)));
  }));
}
