// The address: filters, sorting, columns and the open sample stand behind its #, so that a view can be kept and sent.
const CHOICES = ["find", "one", "other", "order", "has", "of", "least", "most", "metadata"];

/** What the page shows, as far as it is not what it opens with. */
function currentAddress() {
  const parts = new URLSearchParams();
  const put = (name, value, usual) => (value !== usual && isFilled(value) ? parts.set(name, value) : null);
  for (const name of ["task", "model", "method", "metric"]) put(name, state[name], "");
  put("group", String(state.group), String(firstGroup()));
  if (order.column) parts.set("sort", `${order.column}:${order.down ? "down" : "up"}`);
  for (const [name, isVisible] of chosenColumns) parts.append(isVisible ? "show" : "hide", name);
  for (const name of CHOICES) put(name, byId(name).value, browsing.usual[name]);
  const sample = browsing.index?.samples[browsing.current];
  put("sample", sample, browsing.usual.sample);
  return parts.toString();
}

function writeAddress() {
  if (browsing.isRestoring) return;
  const text = currentAddress();
  history.replaceState(null, "", text ? `#${text}` : location.href.split("#")[0]);
}

/** Show what the address says; a name without a value is a place on the page and leaves everything as it is. */
async function readAddress() {
  const text = location.hash.slice(1);
  if (text.startsWith("run-")) return openRun(text.slice(4));
  if (!text.includes("=")) return;
  const parts = new URLSearchParams(text);
  for (const name of ["task", "model", "method", "metric"]) {
    const field = byId(`filter-${name}`);
    field.value = parts.get(name) ?? "";
    state[name] = field.value ?? "";
  }
  const group = Number(parts.get("group") ?? firstGroup());
  state.group = group in report.groups ? group : firstGroup();
  const [column, way] = (parts.get("sort") ?? "").split(":");
  const isColumn = COLUMNS.some(({ name }) => name === column);
  Object.assign(order, { column: isColumn ? column : null, down: way === "down" });
  chosenColumns.clear();
  for (const [name, isVisible] of [["show", true], ["hide", false]]) for (const each of parts.getAll(name)) chosenColumns.set(each, isVisible);
  browsing.group = null;
  browsing.wanted = parts;
  changed();
}
