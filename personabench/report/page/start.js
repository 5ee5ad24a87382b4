// Wiring: filters and choices to what they change.
function chosenGroup() {
  const groups = shownGroups();
  if (!groups.some((group) => group.id === state.group)) state.group = groups.length ? groups[0].id : 0;
  for (const select of document.querySelectorAll(".group-choice"))
    options(select, (groups.length ? groups : report.groups).map((group) => [String(group.id), groupName(group)]), String(state.group));
}

function start() {
  const unique = (values) => [...new Set(values)].map((value) => [value, value]);
  options(byId("filter-task"), [["", "all"], ...unique(report.groups.map((group) => group.task))], "");
  options(byId("filter-model"), [["", "all"], ...unique(report.groups.map((group) => group.model))], "");
  options(byId("filter-metric"), [["", "each task's own"], ...unique(report.groups.flatMap((group) => group.metrics.map((each) => each.name)))], "");
  const runs = report.runs.length;
  const tasks = new Set(report.groups.map((group) => group.task)).size;
  byId("made").textContent = `${runs} runs on ${tasks} task${tasks === 1 ? "" : "s"} · made ${report.made} with personabench ${report.version}`;
  watchers.push(chosenGroup, showWords, showTable, showFigures, showRuns, openGroup);
  for (const name of ["task", "model", "method", "metric"])
    byId(`filter-${name}`).addEventListener("input", (event) => {
      state[name] = event.target.value;
      changed();
    });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const select of document.querySelectorAll(".group-choice"))
    select.addEventListener("input", () => {
      state.group = Number(select.value);
      chosenGroup();
      showFigures();
      openGroup();
    });
  for (const name of ["find", "one", "other", "order"]) byId(name).addEventListener("input", listSamples);
  byId("more").addEventListener("click", () => {
    browsing.shown += PAGE;
    showList();
  });
  byId("ratings").addEventListener("click", saveRatings);
  byId("theme").addEventListener("click", () => {
    const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
    const root = document.documentElement;
    root.dataset.theme = (root.dataset.theme || (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
  });
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) showFigures();
    width = window.innerWidth;
  });
  window.addEventListener("hashchange", openRun);
  showProtocol();
  changed();
  openRun();
}

start();
