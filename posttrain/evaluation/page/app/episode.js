// One item in full: question, reference, two of its attempts side by side, why each was graded so, and its prompts as text and as tokens.

const OUTCOME_COLOUR = { kept: "kept", fixed: "fixed", broken: "broken", "still wrong": "other" };
const TONE = { correct: "good", wrong: "bad", no_answer: "bad", timeout: "bad", limit: "bad", crash: "bad" };
const view = { diff: true, rendered: true };

const statusOf = (index, item, k) => index.statuses[index.status[item][k]];
const toneOf = (status) => TONE[status] ?? "";
const verdictOf = (status) => {
  const sign = status === "correct" ? "✓ " : toneOf(status) ? "✗ " : "";
  return el("span", { class: `verdict ${toneOf(status)}` }, sign + status.replaceAll("_", " "));
};
const dotOf = (index, item) => el("span", { class: "dot", style: { "--c": `var(--${OUTCOME_COLOUR[index.outcomes[index.outcome[item]]?.[0]] ?? "paper"})` } });
const outcomeOf = (index, item) => index.outcomes[index.outcome[item]]?.[1] ?? "not graded";
const wrap = (k, length) => (k < 0 ? length + k : k);

// The two attempts that are compared, by number, however many there are.
const pairOf = (index, item, chosen) => (chosen ?? index.compared).map((k) => Math.min(wrap(k, index.status[item].length), index.status[item].length - 1));

const episode = (index, item, details, { chosen, program, go, place, redraw, query }) => {
  const pair = pairOf(index, item, chosen), attempts = pair.map((k) => details.attempts[k]);
  const sides = attempts.map((a) => atoms(a.text, { program, rendered: view.rendered }));
  const same = attempts[0].text === attempts[1].text;
  const marks = view.diff && pair[0] !== pair[1] && !same ? differing(...sides) : undefined;
  const body = [
    question(details, program),
    tools(index, item, { pair, marks, same, redraw }),
    el("div", { class: "attempts" }, pair.map((k, side) => attempt(index, item, k, attempts[side], marked(sides[side], marks?.[side], side ? "ins" : "del"), program))),
    siblings(index, item, go),
    prompts(index, item),
  ];
  return [head(index, item, details, place, go), ...body];
};

const head = (index, item, details, place, go) =>
  el("div", { class: "top" },
    el("button", { type: "button", class: "step back", on: { click: () => go(null) } }, "‹ List"),
    el("span", { class: "badge" }, dotOf(index, item), outcomeOf(index, item)),
    el("strong", {}, visible(index.id[item])),
    index.models.length > 1 && el("span", {}, visible(index.models[index.model[item]])),
    index.groups[index.group[item]] && el("span", {}, visible(index.groups[index.group[item]])),
    details.edit !== null && el("span", {}, `edit ratio ${details.edit.toFixed(2)}`),
    el("span", { class: "steps" },
      el("button", { type: "button", class: "step", "aria-label": "Previous", title: "Previous (k)", on: { click: () => go(-1) } }, "↑"),
      el("button", { type: "button", class: "step", "aria-label": "Next", title: "Next (j)", on: { click: () => go(1) } }, "↓"),
      el("span", {}, place)));

const question = (details, program) => [
  details.question && el("div", { class: "block" }, el("h3", {}, "Question"), el("div", { class: `said${program ? " code" : ""}` }, marked(atoms(details.question, { program, rendered: view.rendered })))),
  details.tests
    ? el("details", { class: "block" }, el("summary", {}, "Tests of ", el("code", {}, visible(details.reference))), el("div", { class: "said code" }, marked(codeWords(details.tests))))
    : details.reference && el("div", { class: "block" }, el("h3", {}, "Reference"), el("div", { class: "said" }, short(details.reference))),
];

const toggle = (name, label, title, redraw) =>
  el("button", { type: "button", class: "toggle", "aria-pressed": String(view[name]), title, on: { click: () => { view[name] = !view[name]; redraw(); } } }, label);

const tools = (index, item, { pair, marks, same, redraw }) => {
  const labels = index.labels[index.model[item]];
  const choose = (side) => labels.length > 2 && el("select", { class: "step", "aria-label": side ? "Right attempt" : "Left attempt", on: { change: (event) => redraw(pair.map((k, i) => (i === side ? +event.target.value : k))) } },
    labels.map((label, k) => el("option", { value: k, selected: k === pair[side] }, label)));
  const said = same ? "The two texts are the same." : marks === null ? "Little in common: nothing is marked." : marks && [el("span", { class: "del-key" }, "dropped"), " ", el("span", { class: "ins-key" }, "written anew")];
  return el("div", { class: "tools" }, choose(0), choose(1), el("span", { class: "gap" }, said || ""), toggle("diff", "Diff", "Mark what differs (d)", redraw), globalThis.katex && toggle("rendered", "Formulas", "Rendered or as written (r)", redraw));
};

const attempt = (index, item, k, details, nodes, program) => {
  const label = index.labels[index.model[item]][k], status = statusOf(index, item, k);
  const facts = [details.tokens && `${count(details.tokens)} tokens`, details.cut && "stopped by the length limit", details.given && "given, not sampled", details.more && `${count(details.more)} more characters not shown`];
  return el("section", { class: "attempt", "aria-label": label },
    el("div", { class: "line" }, el("h3", {}, label), verdictOf(status), facts.filter(Boolean).map((fact) => el("span", {}, fact))),
    el("div", { class: `said${program ? " code" : ""}`, "data-attempt": k }, nodes.length ? nodes : el("span", { class: "hidden" }, "no text")),
    why(details, status, program));
};

const why = (details, status, program) => {
  const code = (text) => el("code", {}, visible(text));
  const rows = [
    ["Answer", details.answer ? details.answer.trim() !== details.text.trim() && !program && short(details.answer) : status === "no_answer" ? "none found" : null],
    ["Rule", details.rule && visible(details.rule)],
    ["Reference read as", details.gold && code(details.gold)],
    ["Answer read as", details.pred && code(details.pred)],
    ["Why", details.why && visible(details.why)],
    ["Note", details.note && visible(details.note)],
    ...(details.second ?? []).map(([grader, said]) => [grader, [verdictOf(said), toneOf(said) && toneOf(status) && toneOf(said) !== toneOf(status) ? " – disagrees" : ""]]),
  ];
  const told = rows.filter(([, value]) => value);
  return told.length > 0 && el("dl", { class: "why" }, told.flatMap(([name, value]) => [el("dt", {}, visible(name)), el("dd", {}, value)]));
};

const siblings = (index, item, go) => {
  const twins = (index.twins ??= Map.groupBy(index.id.keys(), (i) => index.id[i])).get(index.id[item]).slice(0, 24);
  const name = (i) => [index.models.length > 1 && index.models[index.model[i]], index.sampled && `${index.sampling} ${index.sample[i]}`].filter(Boolean).join(", ");
  const signs = (i) => pairOf(index, i).map((k) => (statusOf(index, i, k) === "correct" ? "✓" : toneOf(statusOf(index, i, k)) ? "✗" : "·")).join(" → ");
  return twins.length > 1 && el("div", { class: "siblings" }, "The same problem", twins.map((i) => el("button", { type: "button", "aria-current": i === item && "true", on: { click: () => go(null, i) } }, visible(name(i)), " ", el("span", { class: toneOf(statusOf(index, i, pairOf(index, i)[1])) }, signs(i)))));
};

// Prompts are unpacked when somebody asks.
const prompts = (index, item) => {
  if (!byId("tokens0")) return null;
  const labels = index.labels[index.model[item]];
  const fill = async (event) => {
    const box = event.target;
    if (!box.open || box.dataset.filled) return;
    box.dataset.filled = "yes";
    const [turns, tables] = [await tokensOf(index, item), await once("pieces")];
    const pieces = tables?.[index.model[item]];
    if (!turns) return void box.append(el("p", { class: "prose" }, "The tokens of this episode were left out to keep the page small."));
    if (!pieces) box.append(el("p", { class: "prose" }, "The model’s tokenizer was not found when this page was made, so there are ids alone."));
    turns.forEach(([text, prompt, sampled], k) => box.append(...prompt_(labels[k], k, text, prompt, sampled, pieces)));
  };
  return el("details", { class: "more", on: { toggle: fill } }, el("summary", {}, "Prompts and tokens"));
};

const prompt_ = (label, k, text, prompt, sampled, pieces) => {
  const list = (ids) => el("div", { class: "tokens" }, ids.map((id) => el("span", { class: "tok", title: `id ${id}` }, pieces ? visible((pieces[id] ?? "?").replaceAll("\n", "⏎\n")) : "", el("sub", {}, String(id)))));
  const block = (name, ids) => el("details", {}, el("summary", {}, `${name}, ${count(ids.length)} tokens`), list(ids));
  return [
    el("h3", {}, k ? `${label}: what its prompt adds` : `${label}: its prompt`),
    text !== null && el("div", { class: "said code" }, visible(text)),
    block("The prompt as tokens", prompt),
    block("The answer as tokens", sampled),
  ].filter(Boolean);
};
