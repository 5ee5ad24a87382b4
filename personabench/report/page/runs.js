// Provenance: all that identifies a run and all that it counted.
function plainly(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (Array.isArray(value)) return value.map(plainly).join(" | ") || "–";
  if (typeof value === "object") return Object.entries(value).map(([name, each]) => `${name}: ${typeof each === "object" && each !== null ? `(${plainly(each)})` : plainly(each)}`).join(", ") || "–";
  return String(value);
}

function showRuns() {
  const groups = new Set(shownGroups().map((group) => group.id));
  const all = report.runs.filter((run) => groups.has(run.group) && isShown(run));
  byId("provenance").replaceChildren(
    ...all.map((run) => {
      const facts = el("dl");
      const fold = el(
        "details",
        { id: `run-${run.run}`, class: "run" },
        el("summary", {}, el("code", {}, run.run), ` ${run.label}${run.run === run.row ? "" : `, seed ${run.facts.seed}`} on ${groupName(report.groups[run.group])}`),
        facts,
      );
      fold.addEventListener("toggle", () => {
        if (fold.open && !facts.childElementCount)
          for (const [name, value] of Object.entries(run.facts))
            facts.append(el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, plainly(value)));
      });
      return fold;
    }),
  );
}

function openRun(run) {
  const fold = byId(`run-${run}`);
  if (!fold) return;
  fold.open = true;
  fold.scrollIntoView();
}
