// Starting up: theme, charts at once, the reader when its data has arrived, keys.

const KEYS = [["j", "k", "next and previous episode"], ["/", "search"], ["f", "go to the filters"], ["d", "mark what differs, or not"], ["r", "formulas rendered, or as written"], ["t", "light or dark"], ["Esc", "close, leave the search, clear the filters"], ["?", "this list"]];

const stored = (value) => {
  try {
    return value === undefined ? localStorage.getItem("posttrain-theme") : localStorage.setItem("posttrain-theme", value);
  } catch {
    return null; // a page opened from disk may have no storage
  }
};
const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
if (["light", "dark"].includes(stored())) document.documentElement.dataset.theme = stored();

const builds = drawAll();
const recolour = () => builds.forEach((build) => build());
const switchTheme = () => {
  document.documentElement.dataset.theme = dark() ? "light" : "dark";
  stored(document.documentElement.dataset.theme);
  recolour();
};
byId("theme").addEventListener("click", switchTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);
document.fonts?.ready.then(recolour);

const help = el("dialog", { "aria-label": "Keyboard shortcuts" }, el("h2", {}, "Keys"),
  el("dl", {}, KEYS.flatMap((keys) => [el("dt", {}, keys.slice(0, -1).map((key) => el("kbd", {}, key))), el("dd", {}, keys.at(-1))])),
  el("button", { type: "button", class: "step", on: { click: () => help.close() } }, "Close"));
document.body.append(help);
byId("help").addEventListener("click", () => help.showModal());

let read = null;
const acts = {
  j: () => read?.go(1),
  k: () => read?.go(-1),
  "/": () => (read?.root.scrollIntoView({ block: "start" }), read?.search.focus({ preventScroll: true }), read?.search.select()),
  f: () => (read?.root.scrollIntoView({ block: "start" }), read?.chips[0]?.button.focus({ preventScroll: true })),
  d: () => ((view.diff = !view.diff), read?.redraw()),
  r: () => ((view.rendered = !view.rendered), read?.redraw()),
  t: switchTheme,
  "?": () => help.showModal(),
};
const escape = () => {
  if (document.activeElement === read?.search && read.search.value === "") return read.list.focus({ preventScroll: true });
  if (read?.isOpen()) return read.close();
  return read?.reset();
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
  const typing = event.target.matches?.("input, select, textarea");
  if (event.key === "Escape") return void escape();
  if (typing || !acts[event.key]) return;
  event.preventDefault();
  acts[event.key]();
});

const start = async () => {
  const root = byId("reader");
  if (!root) return;
  if (!globalThis.DecompressionStream) return void (root.firstElementChild.textContent = "This browser cannot unpack the episodes; any of 2023 or later can.");
  read = reader(await once("index"), root);
  for (const ribbon of document.querySelectorAll(".ribbon")) {
    const pick = () => read.pick(ribbon.dataset.model, ribbon.dataset.flow);
    ribbon.addEventListener("click", pick);
    ribbon.addEventListener("keydown", (event) => ["Enter", " "].includes(event.key) && (event.preventDefault(), pick()));
  }
  document.documentElement.dataset.ready = "yes";
};
document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", start) : start();
