// The list of items with its filters and search; only the rows in sight exist.

const ROW = 58;
const FLAG_LABEL = { changed: "answer changed", copied: "text copied", truncated: "truncated", unscored: "not graded", disagree: "graders disagree" };
const FLOW = { kept: "kept", fixed: "fixed", broken: "broken", same: "still wrong", other: "still wrong" };

const reader = (index, root) => {
  const num = index.id.length, program = new Set();
  index.sampled = index.sample.some((sample) => sample > 0);
  const state = { query: "", model: "", group: "", outcome: "", flags: new Set(), chosen: null, at: -1, found: [], texts: null };
  const flagBits = Object.fromEntries(index.flags.map((name, i) => [name, 1 << i]));
  const codes = index.outcomes.map(([key]) => key);

  const search = el("input", { type: "search", placeholder: "Search texts, answers, ids  ( / )", "aria-label": "Search episodes", autocomplete: "off", spellcheck: "false" });
  const select = (name, label, options) => {
    const box = el("select", { "aria-label": label, on: { change: () => { state[name] = box.value; refresh(); } } }, el("option", { value: "" }, label), options.map((option, i) => el("option", { value: i }, visible(option))));
    return box;
  };
  const models = select("model", "All models", index.models), groups = select("group", "All groups", index.groups.map((group) => group || "no group"));
  const chip = (kind, key, label, dot) => {
    const number = el("b");
    const press = () => {
      if (kind === "outcome") state.outcome = state.outcome === key ? "" : key;
      else if (!state.flags.delete(key)) state.flags.add(key);
      refresh();
    };
    const button = el("button", { type: "button", class: "chip", "aria-pressed": "false", "data-filter": key, on: { click: press } }, dot && el("span", { class: "dot", style: { "--c": `var(--${dot})` } }), label, number);
    return { kind, key, button, number };
  };
  const usedFlags = index.flags.filter((name) => index.flag.some((bits) => bits & flagBits[name]) && (index.labels[0].length > 1 || !["changed", "copied"].includes(name)));
  const chips = [...index.outcomes.map(([key, label]) => chip("outcome", key, label, OUTCOME_COLOUR[key])), ...usedFlags.map((name) => chip("flag", name, FLAG_LABEL[name]))];

  const tally = el("span", { role: "status" }), clear = el("button", { type: "button", on: { click: () => reset() } }, "clear filters");
  const space = el("div", { class: "space" }), list = el("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": "Episodes" }, space);
  const pane = el("div", { class: "episode", tabindex: "0", role: "region", "aria-label": "Episode" });
  const panes = el("div", { class: "panes" }, el("div", { class: "side" }, el("div", { class: "tally" }, tally, clear), list), pane);
  root.replaceChildren(el("div", { class: "filters", role: "search" }, search, index.models.length > 1 && models, index.groups.length > 1 && groups, el("div", { class: "chips" }, chips.map((each) => each.button))), panes);

  // Which items pass all filters but those of one kind, so that each chip can count what it would leave.
  const passes = (i, but) => {
    if (state.model !== "" && index.model[i] !== +state.model) return false;
    if (state.group !== "" && index.group[i] !== +state.group) return false;
    if (but !== "outcome" && state.outcome && codes[index.outcome[i]] !== state.outcome) return false;
    for (const flag of state.flags) if (flag !== but && !(index.flag[i] & flagBits[flag])) return false;
    return !state.words?.length || !state.texts || state.words.every((word) => state.texts[i].includes(word));
  };
  const all = Array.from({ length: num }, (_, i) => i);

  const refresh = () => {
    const kept = state.found[state.at];
    state.found = all.filter((i) => passes(i));
    for (const each of chips) {
      const pressed = each.kind === "outcome" ? state.outcome === each.key : state.flags.has(each.key);
      each.button.setAttribute("aria-pressed", String(pressed));
      const counted = all.filter((i) => passes(i, each.kind === "outcome" ? "outcome" : each.key) && (each.kind === "outcome" ? codes[index.outcome[i]] === each.key : index.flag[i] & flagBits[each.key]));
      each.number.textContent = count(counted.length);
    }
    const left = index.all > num ? ` (${count(index.all)} on disk)` : "";
    tally.textContent = state.found.length === num ? `${count(num)} episodes${left}` : `${count(state.found.length)} of ${count(num)}${left}`;
    clear.hidden = state.found.length === num && !state.query;
    models.value = state.model;
    groups.value = state.group;
    space.style.height = `${state.found.length * ROW}px`;
    state.at = kept === undefined ? -1 : state.found.indexOf(kept);
    if (state.at < 0) list.scrollTop = 0;
    open(Math.max(0, state.at), { quiet: true });
  };

  const paint = () => {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4), last = Math.min(state.found.length, first + Math.ceil(list.clientHeight / ROW) + 9);
    space.replaceChildren(...state.found.slice(first, last).map((item, k) => row(item, first + k)));
    list.setAttribute("aria-activedescendant", byId(`row${state.at}`) ? `row${state.at}` : "");
  };
  const row = (item, at) => {
    const [before, after] = pairOf(index, item).map((k) => index.answer[item][k] ?? statusOf(index, item, k).replaceAll("_", " "));
    const sample = index.sampled ? ` · ${index.sample[item]}` : "";
    const second = index.head[item] || index.models[index.model[item]];
    return el("div", { class: "row", role: "option", id: `row${at}`, "aria-selected": String(at === state.at), "aria-posinset": at + 1, "aria-setsize": state.found.length, style: { top: `${at * ROW}px` }, on: { click: () => open(at, { enter: true }) } },
      el("div", {}, dotOf(index, item), el("span", { class: "id", title: outcomeOf(index, item) }, visible(index.id[item] + sample)), el("span", { class: "change" }, visible(before === after ? before : `${before} → ${after}`))),
      el("p", {}, visible(second)));
  };

  let turn = 0;
  const open = async (at, { quiet = false, enter = false, item = null } = {}) => {
    if (item !== null) at = state.found.indexOf(item);
    const shown = item ?? state.found[at], mine = ++turn;
    state.at = at;
    if (enter) panes.classList.add("open");
    if (!quiet && at >= 0) reveal(at);
    paint();
    if (shown === undefined) return void pane.replaceChildren(el("p", { class: "waiting" }, "No episode passes these filters."));
    const details = await detailsOf(index, shown);
    if (mine !== turn) return;
    const place = at >= 0 ? `${count(at + 1)} of ${count(state.found.length)}` : "outside the filters";
    const redraw = (chosen = state.chosen) => { state.chosen = chosen; drawn(); };
    const drawn = () => {
      const top = pane.scrollTop;
      pane.replaceChildren(...episode(index, shown, details, { chosen: state.chosen, program: Boolean(details.tests), go, place, redraw }).flat(Infinity).filter(Boolean));
      pane.scrollTop = top;
      highlight(pane, state.words);
    };
    state.redraw = redraw;
    drawn();
    pane.scrollTop = 0;
    if (!quiet) history.replaceState(null, "", `#episode-${shown}`);
  };
  const reveal = (at) => {
    const top = at * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  };
  const go = (by, item = null) => {
    if (item !== null) return open(-1, { item, enter: panes.classList.contains("open") });
    if (by === null) return panes.classList.remove("open");
    const to = Math.min(state.found.length - 1, Math.max(0, state.at + by));
    return open(to, {});
  };
  const reset = () => {
    Object.assign(state, { query: "", model: "", group: "", outcome: "", words: [] });
    state.flags.clear();
    search.value = "";
    refresh();
  };

  let asked = 0;
  const seek = async () => {
    state.query = search.value;
    state.words = [...state.query.toLowerCase().matchAll(/"([^"]+)"|(\S+)/g)].map((m) => m[1] ?? m[2]);
    const mine = ++asked;
    if (state.words.length) {
      const texts = state.texts ?? (state.reading ??= searchable(index, (done) => done < num && (tally.textContent = `Reading ${count(done)} of ${count(num)}…`)));
      state.texts = await texts;
    }
    if (mine === asked) refresh();
  };
  let wait = 0;
  search.addEventListener("input", () => { clearTimeout(wait); wait = setTimeout(seek, 120); });
  search.addEventListener("keydown", (event) => { if (event.key === "Enter") { clearTimeout(wait); seek().then(() => list.focus()); } });
  list.addEventListener("scroll", paint, { passive: true });
  list.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8, Home: -Infinity, End: Infinity }[event.key];
    if (by) (event.preventDefault(), go(by));
    if (event.key === "Enter") (panes.classList.add("open"), pane.focus());
  });
  new ResizeObserver(paint).observe(list);

  const pick = (model, flow) => {
    reset();
    Object.assign(state, { model: index.models.length > 1 ? String(model) : "", outcome: FLOW[flow] });
    if (flow === "other") state.flags.add("changed");
    refresh();
    root.scrollIntoView({ block: "start" });
    list.focus({ preventScroll: true });
  };
  refresh();
  const linked = /^#episode-(\d+)$/.exec(location.hash);
  if (linked && +linked[1] < num) open(-1, { item: +linked[1], quiet: false });
  return { go, pick, reset, search, chips, list, pane, close: () => go(null), isOpen: () => panes.classList.contains("open"), redraw: () => state.redraw?.(), root };
};

// Marks what was searched for, without touching the nodes.
const highlight = (pane, sought) => {
  if (!globalThis.Highlight) return;
  const ranges = [], walker = document.createTreeWalker(pane, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node && sought?.length; node = walker.nextNode()) {
    const text = node.data.toLowerCase();
    if (text.length !== node.data.length) continue;
    for (const word of sought) for (let i = text.indexOf(word); i >= 0; i = text.indexOf(word, i + word.length)) {
      const range = new Range();
      range.setStart(node, i);
      range.setEnd(node, i + word.length);
      ranges.push(range);
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
};
