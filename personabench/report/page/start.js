// Wiring: filters and choices to what they change.
function chosenGroup() {
  const groups = shownGroups();
  if (!groups.some((group) => group.id === state.group)) state.group = (groups.find((group) => group.has_samples) ?? groups[0] ?? report.groups[0]).id;
  for (const select of document.querySelectorAll(".group-choice"))
    options(select, (groups.length ? groups : report.groups).map((group) => [String(group.id), groupName(group)]), String(state.group));
}

/** Whether a filter offers a choice at all; one that does not only takes room. */
function fillFilter(name, usual, values) {
  const distinct = [...new Set(values)];
  options(byId(`filter-${name}`), [["", usual], ...distinct.map((value) => [value, value])], "");
  byId(`filter-${name}`).parentElement.hidden = distinct.length < 2;
}

function showTitle() {
  const runs = report.runs.length;
  const published = report.groups.flatMap((group) => group.rows).filter((row) => row.published).length;
  const tasks = new Set(report.groups.map((group) => group.task)).size;
  const counts = [counted(runs, "run"), published ? `(${published} published)` : "", `on ${counted(tasks, "task")}`].filter(Boolean).join(" ");
  byId("made").textContent = `${counts} · made ${report.made} with personabench ${report.version}`;
}

function wireFilters() {
  fillFilter("task", "all", report.groups.map((group) => group.task));
  fillFilter("model", "all", report.groups.map((group) => group.model));
  fillFilter("metric", "each task's own", report.groups.flatMap((group) => group.metrics.map((each) => each.name)));
  for (const name of ["task", "model", "method", "metric"])
    byId(`filter-${name}`).addEventListener("input", (event) => {
      state[name] = event.target.value;
      changed();
      writeAddress();
    });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
}

function wireBrowser() {
  for (const select of document.querySelectorAll(".group-choice"))
    select.addEventListener("input", () => {
      state.group = Number(select.value);
      chosenGroup();
      showFigures();
      openGroup().then(writeAddress);
    });
  for (const name of CHOICES) byId(name).addEventListener("input", listSamples);
  byId("more").addEventListener("click", () => {
    browsing.shown += PAGE;
    showList();
  });
  byId("ratings").addEventListener("click", saveRatings);
}

function wireWindow() {
  byId("theme").addEventListener("click", () => {
    const dark = window.matchMedia("(prefers-color-scheme: dark)").matches;
    const root = document.documentElement;
    root.dataset.theme = (root.dataset.theme || (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
  });
  // A place on the page is no view: links to it leave the address as it is.
  for (const link of document.querySelectorAll("#contents a"))
    link.addEventListener("click", (event) => {
      event.preventDefault();
      document.querySelector(link.getAttribute("href")).scrollIntoView();
    });
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) {
      showMatrix();
      showFigures();
    }
    width = window.innerWidth;
  });
  // On paper nothing can be unfolded or scrolled.
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("#words > details:not([open])")];
    for (const fold of folded) fold.open = true;
    isPrinting = true;
    showMatrix();
  });
  window.addEventListener("afterprint", () => {
    for (const fold of folded) fold.open = false;
    isPrinting = false;
    showMatrix();
  });
  window.addEventListener("hashchange", readAddress);
}

function start() {
  showTitle();
  wireFilters();
  wireBrowser();
  wireWindow();
  watchers.push(chosenGroup, showMatrix, showWords, showTable, showFigures, showRuns, openGroup);
  showProtocol();
  state.group = firstGroup();
  if (location.hash.includes("=")) readAddress();
  else changed();
  if (location.hash.startsWith("#run-")) readAddress();
}

start();
