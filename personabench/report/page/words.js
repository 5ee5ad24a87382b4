// What differs, in sentences made beside the statistics; and how the numbers were made.
function showWords() {
  const groups = shownGroups();
  byId("sentences").replaceChildren(
    ...groups.map((group) =>
      el(
        "section",
        { class: "card" },
        el("h3", {}, groupName(group)),
        el("p", { class: "quiet" }, `${counted(group.n, "sample")} of ${counted(group.users, "user")} · ${group.source}`),
        el("ul", {}, group.words.map((sentence) => el("li", {}, sentence))),
        group.notes.length ? el("details", {}, el("summary", {}, "Notes of the table"), el("ul", {}, group.notes.map((note) => el("li", {}, note)))) : null,
      ),
    ),
  );
}

function showProtocol() {
  const lines = [
    "Rows are compared only within one task, split, data, task options, decoding and model, and only on samples that both have.",
    "The unit of chance is the user: users are drawn, flipped and swapped with all their samples.",
    `Intervals are 95 %, expanded percentile intervals from at least ${count(report.draws)} resamples of users, seed 0. ` +
      "Metrics such as RMSE and macro-F1 are computed again on each.",
    "p is of a two-sided sign-flip permutation test on users, corrected after Holm over all pairs of a table on its primary metric; " +
      "rows against their own shuffled selves are a family of their own. Other metrics have intervals but no tests.",
    "A row carries the letters of the rows that it beats at a corrected p of at most 0.05; ★ marks rows that beat at least one " +
      "other and that no row beats.",
    "Numbers have as many decimal places as the median interval of their metric justifies; point at one for all of them.",
    "Gains are positive if the row is better, also for metrics where lower is better (↓).",
    "Made worse is the share of users whose own score is lower than without any history.",
    "Own − shuffled is the gain over the same method that was given another user's history: what is personal. " +
      "Over trivial is the gain over the best rule that calls no model.",
    "Several seeds of a run are averaged sample by sample; their standard deviation (sd) is beside the mean.",
    "Tokens/query are those of the calls at question time; tokens/user are those spent once to know a user. " +
      "Calls answered from the cache count at what they cost when they were made.",
    "Records count as used when the beginning of their text is in a prompt of the sample or of its user's state.",
  ];
  byId("statistics").replaceChildren(...lines.map((line) => el("li", {}, line)));
}
