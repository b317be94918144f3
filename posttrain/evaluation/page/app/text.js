// Model text as pieces that are shown: words, code tokens, formulas, and characters that would hide or reorder what stands around them.

const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffc\u{e0000}-\u{e0fff}]/gu;
const WORD = /[\p{L}\p{M}_]+|\p{N}+|\s+|./gsu;
const SPECIAL = /```(\w*)[^\S\n]*\n([\s\S]*?)(?:```|$)|(\[asy\][\s\S]{1,6000}?\[\/asy\])|\$\$([\s\S]{1,4000}?)\$\$|\\\[([\s\S]{1,4000}?)\\\]|\\\(([\s\S]{1,2000}?)\\\)|(\\begin\{((?:align|alignat|aligned|equation|gather|cases|array|[pbvBV]?matrix)\*?)\}[\s\S]{1,4000}?\\end\{\8\})|(?<![\\$\w])\$(?=[^\s$])((?:[^$\\\n]|\\.){1,1000}?)(?<=\S)\$(?!\d)|\\boxed(?=\{)/g;
const MOST_TEX = 3000;

// Strings and, in place of invisible characters, their names.
const visible = (text) => {
  const parts = [];
  let done = 0;
  for (const match of text.matchAll(HIDDEN)) {
    const code = match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    parts.push(text.slice(done, match.index), el("span", { class: "ctl", title: "an invisible character" }, `U+${code}`));
    done = match.index + match[0].length;
  }
  return [...parts, text.slice(done)].filter((part) => part !== "");
};

// Where a brace that opens at `start` closes; -1 if it does not.
const closing = (text, start) => {
  let depth = 0;
  for (let i = start; i < Math.min(text.length, start + MOST_TEX); i++) {
    if (text[i] === "\\") i++;
    else if (text[i] === "{") depth++;
    else if (text[i] === "}" && --depth === 0) return i;
  }
  return -1;
};

// [{kind: "text" | "code" | "drawing" | "math", text, tex, display}], whose texts joined are the text. A drawing is Asymptote's source.
const segments = (text) => {
  const found = [];
  let done = 0;
  const push = (start, end, segment) => {
    if (start > done) found.push({ kind: "text", text: text.slice(done, start) });
    found.push({ ...segment, text: text.slice(start, end) });
    done = end;
  };
  SPECIAL.lastIndex = 0;
  for (let m = SPECIAL.exec(text); m; m = SPECIAL.exec(text)) {
    const [all, , code, drawing, dollars, square, round, environment, , dollar] = m;
    const end = m.index + all.length;
    if (code !== undefined) push(m.index, end, { kind: "code" });
    else if (drawing) push(m.index, end, { kind: "drawing" });
    else if (all === "\\boxed") {
      const close = closing(text, end);
      if (close < 0) continue;
      push(m.index, close + 1, { kind: "math", tex: text.slice(m.index, close + 1) });
      SPECIAL.lastIndex = close + 1;
    } else push(m.index, end, { kind: "math", tex: dollars ?? square ?? round ?? environment ?? dollar, display: !(round ?? dollar) });
  }
  if (done < text.length) found.push({ kind: "text", text: text.slice(done) });
  return found;
};

const words = (text, scope) => (text.match(WORD) ?? []).map((word) => ({ text: word, scope }));

// Code as words with the highlighter's scopes, read off its tree; never through markup.
const codeWords = (text) => {
  if (!globalThis.hljs) return words(text);
  const walk = (node, scope) => (typeof node === "string" ? words(node, scope) : node.children.flatMap((child) => walk(child, node.scope ?? scope)));
  try {
    return walk(hljs.highlight(text, { language: "python", ignoreIllegals: true })._emitter.rootNode);
  } catch {
    return words(text);
  }
};

// The atoms of a text: what a diff compares and a mark covers. `program`: all of it is code unless it has fences of its own.
const atoms = (text, { program = false, rendered = true } = {}) => {
  if (program && !text.includes("```")) return codeWords(text).map((atom) => ({ ...atom, code: true }));
  return segments(text).flatMap((segment) => {
    if (segment.kind === "code") return codeWords(segment.text).map((atom) => ({ ...atom, code: true }));
    if (segment.kind === "drawing") return words(segment.text).map((atom) => ({ ...atom, code: true }));
    if (segment.kind === "math" && rendered && globalThis.katex && segment.tex.length <= MOST_TEX) return [{ text: segment.text, tex: segment.tex, display: segment.display }];
    return words(segment.text);
  });
};

const formula = (tex, display, source) => {
  const node = el("span", { title: source.slice(0, 300) });
  try {
    katex.render(tex, node, { displayMode: Boolean(display), throwOnError: true, trust: false, strict: "ignore", maxSize: 8, maxExpand: 300, output: "html" });
    node.prepend(el("span", { class: "hidden" }, ...visible(source)));
  } catch {
    node.replaceChildren(...visible(source));
  }
  return node;
};

const shown = (atom) => {
  if (atom.tex) return [formula(atom.tex, atom.display, atom.text)];
  return atom.scope ? [el("span", { class: `hljs-${atom.scope.split(".")[0]}` }, visible(atom.text))] : visible(atom.text);
};

// A short text such as a reference or an answer: rendered where it is a formula, however it is written.
const short = (text) => {
  if (globalThis.katex && text.length < 400 && /\\[a-zA-Z]|[\^_]/.test(text) && !text.includes("$")) return [formula(text, false, text)];
  return atoms(text).flatMap(shown);
};
