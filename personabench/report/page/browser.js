// The sample browser: a list from the group's index; a sample's pack is opened when it is asked for.
const PAGE = 50;
const browsing = { index: null, group: null, listed: [], shown: PAGE, current: null, ask: 0, usual: {}, wanted: null, isRestoring: true };
const packs = new Map();

/** The group that the browser opens with: the first that has samples. */
const firstGroup = () => (report.groups.find((group) => group.has_samples) ?? report.groups[0]).id;

/** The rows that a reader compares first: the best method on its own history, and the baseline. */
function sensiblePair(group) {
  const rows = group.rows.filter((row) => !row.published);
  const base = rows.find((row) => row.baseline);
  const methods = rows.filter((row) => row !== base && row.history === "own");
  const one = methods.find((row) => row.calls) ?? methods[0] ?? rows.find((row) => row !== base) ?? rows[0];
  return [one, base ?? methods.find((row) => row !== one) ?? one];
}

async function openGroup() {
  const number = state.group;
  if (browsing.group === number) return;
  browsing.group = number;
  const index = await unpack(`index-${number}`);
  if (browsing.group !== number) return;
  const group = report.groups[number];
  Object.assign(browsing, { index, current: null, shown: PAGE });
  packs.clear();
  fillChoices(group, index);
  const wanted = browsing.wanted;
  browsing.wanted = null;
  if (wanted) for (const name of CHOICES) if (wanted.has(name)) byId(name).value = wanted.get(name);
  byId("sample-filters").open = ["has", "least", "most", "metadata"].some((name) => byId(name).value);
  selectSamples();
  const sample = index.samples.indexOf(wanted?.get("sample") ?? "");
  if (sample >= 0) await openSample(sample, false);
  else if (browsing.listed.length) await openSample(browsing.listed[0], false);
  else byId("sample").replaceChildren(el("p", { class: "quiet" }, group.has_samples ? "No sample fits the filters." : "These rows are published scores, which have no samples. Choose another task above."));
  browsing.isRestoring = false;
}

/** Fill the menus of the browser with what this group offers, and note what they open with. */
function fillChoices(group, index) {
  const rows = group.rows.filter((row) => !row.published).map((row) => [row.run, row.label]);
  const [one, other] = group.has_samples ? sensiblePair(group) : [];
  options(byId("one"), rows, one?.run);
  options(byId("other"), rows, other?.run);
  options(byId("of"), [["", "any method"], ...rows], "");
  options(byId("has"), [["", "any"], ...Object.keys(index.marks).map((name) => [name, name.replaceAll("_", " ")])], "");
  const attributes = Object.entries(index.attributes).flatMap(([name, { values }]) => values.map((value, code) => [`${name}:${code}`, `${name}: ${value}`]));
  options(byId("metadata"), [["", "any"], ...attributes], "");
  byId("metadata").parentElement.hidden = !attributes.length;
  for (const name of ["find", "least", "most"]) byId(name).value = "";
  byId("order").value = "file";
  browsing.usual = { ...Object.fromEntries(CHOICES.map((name) => [name, byId(name).value])), sample: index.samples[0] };
}

/** The index of the row that a menu names; -1 for any. */
const rowOf = (name) => report.groups[state.group].rows.findIndex(({ run }) => run === byId(name).value);

function difference(at) {
  const { scores } = browsing.index;
  const group = report.groups[state.group];
  const [one, other] = [scores[rowOf("one")]?.[at], scores[rowOf("other")]?.[at]];
  if (!isKnown(one) || !isKnown(other)) return null;
  return (one - other) * (isHigher(group, group.primary) ? 1 : -1);
}

/** Whether an answer of a row has a mark: a flag, an error, a way of ending. */
function isMarked(mark, row) {
  const positions = browsing.index.marks[mark]?.[row];
  if (positions !== null) return new Set(positions ?? []);
  return { has: (at) => isKnown(browsing.index.scores[row][at]) };
}

/** One condition for each filter that is set. */
function sampleFilters() {
  const { index } = browsing;
  const filters = [];
  const text = byId("find").value.trim().toLowerCase();
  if (text) filters.push((at) => index.samples[at].toLowerCase().includes(text) || index.users[at].toLowerCase().includes(text));
  const mark = byId("has").value;
  if (mark) {
    const row = rowOf("of");
    const rows = row >= 0 ? [row] : index.scores.map((_, number) => number);
    const marked = rows.map((number) => isMarked(mark, number));
    filters.push((at) => marked.some((positions) => positions.has(at)));
  }
  const scores = index.scores[rowOf("one")] ?? [];
  const [least, most] = ["least", "most"].map((name) => (byId(name).value === "" ? null : Number(byId(name).value)));
  if (least !== null) filters.push((at) => isKnown(scores[at]) && scores[at] >= least);
  if (most !== null) filters.push((at) => isKnown(scores[at]) && scores[at] <= most);
  const metadata = byId("metadata").value;
  if (metadata) {
    const cut = metadata.lastIndexOf(":");
    const { codes } = index.attributes[metadata.slice(0, cut)];
    filters.push((at) => codes[at] === Number(metadata.slice(cut + 1)));
  }
  return filters;
}

function selectSamples() {
  const filters = sampleFilters();
  const way = byId("order").value;
  let listed = browsing.index.samples.map((_, at) => at).filter((at) => filters.every((fits) => fits(at)));
  if (way !== "file") {
    const turn = way === "gain" ? -1 : 1;
    const value = new Map(listed.map((at) => [at, difference(at)]));
    listed = listed.filter((at) => value.get(at) !== null).sort((a, b) => turn * (value.get(a) - value.get(b)) || a - b);
  }
  browsing.listed = listed;
  browsing.shown = PAGE;
  byId("score-of").textContent = `Score of ${report.groups[state.group].rows[rowOf("one")]?.label ?? "the first"}`;
  showList();
}

function listSamples() {
  selectSamples();
  writeAddress();
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
  writeAddress();
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
  const answers = sample.answers
    .map((answer, row) => ({ answer, row: group.rows[row], at: row, value: index.scores[row][at] }))
    .filter(({ answer, row }) => answer && isShown(row));
  const one = answers.find(({ at: row }) => row === rowOf("one"));
  const references = (sample.references ?? []).map(written);
  const inReference = wordSet(references);
  const inAnswer = wordSet(one?.answer.output ? [written(one.answer.output)] : []);
  const compared = (lines) => el("div", { class: "text" }, written(lines) ? sharedWords(written(lines), inReference) : "(empty)");
  if (references.length) {
    const note = inAnswer.size ? small(`underlined: words that it shares with ${one.row.label}, and answers with it`) : null;
    parts.push(el("h4", {}, "Reference", note), ...references.map((reference) => el("div", { class: "text" }, sharedWords(reference, inAnswer))));
  }
  parts.push(el("h4", {}, "Answers"), el("div", { class: "answers" }, answers.map((each) => answerCard(each, group, compared))));
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

// Word boundaries of every script where the browser knows them, else runs of letters and digits.
const SEGMENTER = "Segmenter" in Intl ? new Intl.Segmenter("en", { granularity: "word" }) : null;

/** A text in pieces: words with their folded form, and what stands between them. */
function pieces(text) {
  if (SEGMENTER) return [...SEGMENTER.segment(text)].map(({ segment, isWordLike }) => ({ text: segment, word: isWordLike ? segment.toLowerCase() : null }));
  return text.split(/([\p{L}\p{N}]+)/u).map((piece, at) => ({ text: piece, word: at % 2 ? piece.toLowerCase() : null }));
}

const wordSet = (texts) => new Set(texts.flatMap(pieces).map(({ word }) => word).filter(Boolean));

/** A text whose words are marked if they are among some others. */
function sharedWords(text, words) {
  if (!words.size) return text;
  return pieces(text).map((piece) => (piece.word && words.has(piece.word) ? el("mark", {}, piece.text) : piece.text));
}

function answerCard({ answer, row, at, value }, group, text) {
  const flags = Object.entries(answer.flags).filter(([, amount]) => amount).map(([name, amount]) => (amount === 1 ? name : `${name} ${amount}`));
  return el(
    "div",
    { class: "card" },
    el("p", {}, el("span", { class: "letter" }, row.letter), " ", el("strong", {}, breakable(row.label))),
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
  const lent = seen.filter((record) => record.rows.every((row) => group.rows[row].history === "shuffled")).length;
  const facts = [`${seen.length} shown with any answer`, lent ? `${lent} of them another user's, for the shuffled control` : "", `the user has ${sample.history}`];
  const title = el("h4", {}, "Records", small(facts.filter(Boolean).join("; ")));
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
