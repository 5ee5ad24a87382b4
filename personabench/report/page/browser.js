// The sample browser: a list from the group's index; a sample's pack is opened when it is asked for.
const PAGE = 50;
const browsing = { index: null, group: null, listed: [], shown: PAGE, current: null, ask: 0 };
const packs = new Map();

async function openGroup() {
  const number = state.group;
  if (browsing.group === number) return;
  browsing.group = number;
  const index = await unpack(`index-${number}`);
  if (browsing.group !== number) return;
  const group = report.groups[number];
  Object.assign(browsing, { index, current: null, shown: PAGE });
  packs.clear();
  const rows = group.rows.map((row, at) => [String(at), row.label]);
  const baseline = group.baseline ?? rows.length - 1;
  options(byId("one"), rows, String(group.rows.findIndex((_, at) => at !== baseline) === -1 ? 0 : group.rows.findIndex((_, at) => at !== baseline)));
  options(byId("other"), rows, String(baseline));
  byId("find").value = "";
  listSamples();
  if (browsing.listed.length) await openSample(browsing.listed[0], false);
}

function difference(at) {
  const { scores } = browsing.index;
  const group = report.groups[state.group];
  const [one, other] = [scores[Number(byId("one").value)][at], scores[Number(byId("other").value)][at]];
  if (one === null || other === null) return null;
  return (one - other) * (isHigher(group, group.primary) ? 1 : -1);
}

function listSamples() {
  const { index } = browsing;
  const wanted = byId("find").value.trim().toLowerCase();
  const way = byId("order").value;
  let listed = index.samples.map((_, at) => at);
  if (wanted) listed = listed.filter((at) => index.samples[at].toLowerCase().includes(wanted) || index.users[at].toLowerCase().includes(wanted));
  if (way !== "file") {
    const turn = way === "gain" ? -1 : 1;
    const value = new Map(listed.map((at) => [at, difference(at)]));
    listed = listed.filter((at) => value.get(at) !== null).sort((a, b) => turn * (value.get(a) - value.get(b)) || a - b);
  }
  browsing.listed = listed;
  browsing.shown = PAGE;
  showList();
}

function showList() {
  const { index, listed, shown, current } = browsing;
  byId("found").textContent = `${count(listed.length)} of ${count(index.samples.length)} samples`;
  byId("list").replaceChildren(
    ...listed.slice(0, shown).map((at) => {
      const gain = difference(at);
      const kind = gain > 0 ? "better" : gain < 0 ? "worse" : "level";
      return el("li", {}, el(
        "button",
        { type: "button", "aria-current": at === current ? "true" : null, onclick: () => openSample(at) },
        el("span", {}, index.samples[at], small(index.users[at])),
        el("span", { class: `gain ${kind}` }, gain === null ? "–" : signed(gain)),
      ));
    }),
  );
  byId("more").hidden = shown >= listed.length;
}

async function openSample(at, focus = true) {
  const ask = ++browsing.ask;
  const number = state.group;
  const starts = browsing.index.packs;
  const part = starts.findLastIndex((start) => start <= at);
  if (!packs.has(part)) {
    if (packs.size > 8) packs.clear();
    packs.set(part, unpack(`pack-${number}-${part}`));
  }
  const pack = await packs.get(part);
  if (ask !== browsing.ask || number !== state.group) return;
  browsing.current = at;
  const place = browsing.listed.indexOf(at);
  if (place >= browsing.shown) browsing.shown = Math.ceil((place + 1) / PAGE) * PAGE;
  showList();
  showSample(pack, pack.samples[at - starts[part]], at);
  if (focus) byId("sample").focus({ preventScroll: true });
  if (focus && window.matchMedia("(max-width: 800px)").matches) byId("sample").scrollIntoView();
}

function step(by) {
  const place = browsing.listed.indexOf(browsing.current) + by;
  if (place >= 0 && place < browsing.listed.length) openSample(browsing.listed[place]);
}

function showSample(pack, sample, at) {
  const { index } = browsing;
  const group = report.groups[state.group];
  const written = (lines) => lines.map((line) => pack.lines[line]).join("\n");
  const text = (lines) => el("div", { class: "text" }, written(lines) || "(empty)");
  const place = browsing.listed.indexOf(at);
  const parts = [
    el("div", { class: "steps" },
      el("button", { type: "button", onclick: () => step(-1), disabled: place <= 0 }, "← Previous"),
      el("h3", {}, `Sample ${index.samples[at]}`, small(`user ${index.users[at]}`)),
      el("button", { type: "button", onclick: () => step(1), disabled: place === browsing.listed.length - 1 }, "Next →")),
  ];
  if (sample.input) parts.push(el("h4", {}, "Input"), text(sample.input));
  else if (!index.located) parts.push(el("p", { class: "quiet" }, "The data was no longer where the runs found it when this page was made; inputs, references and records are missing."));
  for (const [name, value] of Object.entries(sample.attributes)) parts.push(el("p", {}, el("strong", {}, name), ` ${value}`));
  if (sample.references?.length) parts.push(el("h4", {}, "Reference"), ...sample.references.map(text));
  const answers = sample.answers
    .map((answer, row) => ({ answer, row: group.rows[row], at: row, value: index.scores[row][at] }))
    .filter(({ answer, row }) => answer && isShown(row));
  parts.push(el("h4", {}, "Answers"), el("div", { class: "answers" }, answers.map((each) => answerCard(each, group, text))));
  parts.push(...recordTable(sample, group, text));
  parts.push(el("h4", {}, "Messages"));
  if (index.bare_from !== null && at >= index.bare_from) parts.push(el("p", { class: "quiet" }, "Messages of this sample were left out to keep this file small."));
  parts.push(...answers.map((each) => conversation(each, pack, text)));
  byId("sample").replaceChildren(...parts);
}

// Ratings of answers by the reader, kept until the page is closed, and written as `judge-report --labels` reads them.
const RATINGS = [1, 2, 3, 4, 5];
const ratings = new Map();

function ratingScale(group) {
  const [low, high] = group.scale ?? [RATINGS[0], RATINGS.at(-1)];
  return high - low > 10 ? RATINGS : Array.from({ length: high - low + 1 }, (_, step) => low + step);
}

function ratingBar(row, group) {
  const sample = browsing.index.samples[browsing.current];
  const key = JSON.stringify([row.run, sample]);
  const buttons = ratingScale(group).map((score) =>
    el("button", { type: "button", "aria-pressed": ratings.get(key) === score ? "true" : "false", onclick: (event) => {
      if (ratings.get(key) === score) ratings.delete(key);
      else ratings.set(key, score);
      for (const button of event.currentTarget.parentElement.querySelectorAll("button"))
        button.setAttribute("aria-pressed", String(Number(button.textContent) === ratings.get(key)));
      showRatings();
    } }, String(score)));
  return el("p", { class: "rating", role: "group", "aria-label": `Your rating of ${row.label}` }, small("your rating"), buttons);
}

function showRatings() {
  byId("ratings").hidden = ratings.size === 0;
  byId("ratings").textContent = `Save ${counted(ratings.size, "rating")}`;
}

function ratingLines() {
  return [...ratings].map(([key, label]) => {
    const [run, id] = JSON.parse(key);
    return JSON.stringify({ run, id, label });
  });
}

function saveRatings() {
  const file = URL.createObjectURL(new Blob([ratingLines().map((line) => line + "\n").join("")], { type: "application/jsonl" }));
  el("a", { href: file, download: "ratings.jsonl" }).click();
  setTimeout(() => URL.revokeObjectURL(file), 1000);
}

function answerCard({ answer, row, at, value }, group, text) {
  const flags = Object.entries(answer.flags).filter(([, amount]) => amount).map(([name, amount]) => (amount === 1 ? name : `${name} ${amount}`));
  return el(
    "div",
    { class: "card" },
    el("p", {}, el("span", { class: "letter" }, row.letter), " ", el("strong", {}, row.label)),
    answer.error ? el("p", { class: "worse" }, `failed: ${answer.error}`) : text(answer.output ?? []),
    answer.parsed ? el("p", { class: "quiet" }, "read as ", text(answer.parsed)) : null,
    answer.unparsed ? el("p", { class: "worse" }, "unparsed") : null,
    answer.error ? null : ratingBar(row, group),
    el("p", { class: "quiet" }, `${group.primary} ${score(value)}`, flags.length ? ` · ${flags.join(", ").replaceAll("_", " ")}` : ""),
  );
}

function recordTable(sample, group, text) {
  if (sample.history === null || sample.history === undefined) return [];
  const usedBy = (record) => [...record.rows, ...record.profiled];
  const rows = [...new Set(sample.records.flatMap(usedBy))].sort((a, b) => a - b).filter((row) => isShown(group.rows[row]));
  const used = sample.records.filter((record) => record.evidence || usedBy(record).some((row) => rows.includes(row)));
  const hasEvidence = used.some((record) => record.evidence);
  const seen = used.filter((record) => record.rows.some((row) => rows.includes(row)));
  const title = el("h4", {}, "Records", small(`${seen.length} shown with any answer; the user has ${sample.history}`));
  if (!used.length) return [title];
  const heads = rows.map((row) => el("th", { scope: "col", title: group.rows[row].label }, group.rows[row].letter));
  const mark = (record, row) => {
    if (record.rows.includes(row)) return el("span", { "aria-label": "shown with the answer" }, "●");
    return record.profiled.includes(row) ? el("span", { "aria-label": "in the profile's prompts" }, "○") : "";
  };
  if (hasEvidence) heads.unshift(el("th", { scope: "col" }, "Evidence"));
  const body = used.map((record) =>
    el("tr", {}, el("td", {}, record.time ? small(record.time) : null, text(record.text)),
      hasEvidence ? el("td", { class: "mark" }, record.evidence ? el("span", { "aria-label": "evidence" }, "✓") : "") : null,
      rows.map((row) => el("td", { class: "mark" }, mark(record, row)))));
  const legend = "● shown with the answer · ○ in the profile's prompts only";
  const names = [...rows.map((row) => `${group.rows[row].letter} ${group.rows[row].label}`), legend].join(" · ");
  return [title, el("div", { class: "wide" }, el("table", { class: "records" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Record"), heads)), el("tbody", {}, body))), el("p", { class: "quiet" }, names)];
}

function conversation({ answer, row }, pack, text) {
  const made = answer.state === undefined ? null : pack.states[answer.state];
  const calls = [...(made ? made.calls : []), ...answer.calls];
  const fold = el("details", {}, el("summary", {}, `${row.label}: ${calls.length} call${calls.length === 1 ? "" : "s"}${made ? ", and what it knows of the user" : ""}`));
  fold.addEventListener("toggle", () => {
    if (!fold.open || fold.childElementCount > 1) return;
    for (const call of calls) {
      fold.append(el("p", { class: "quiet" }, `${call.phase} call ${call.key}, ${count(call.tokens[0])} + ${count(call.tokens[1])} tokens${call.finish === "stop" ? "" : `, ended by ${call.finish}`}`));
      if (!call.messages) fold.append(el("p", { class: "quiet" }, "Its messages are not in this file."));
      for (const [role, content] of call.messages ?? []) fold.append(el("div", { class: `message ${role}` }, el("span", { class: "role" }, role), text(content)));
      if (call.reply) fold.append(el("div", { class: "message reply" }, el("span", { class: "role" }, "reply"), text(call.reply)));
    }
    if (made) fold.append(el("div", { class: "message" }, el("span", { class: "role" }, "what it knows of the user"), text(made.text)));
  });
  return fold;
}
