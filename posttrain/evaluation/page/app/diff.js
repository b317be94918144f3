// What the second attempt changed: a diff over atoms (words, numbers, whole formulas), by jsdiff.

const LEAST_ALIKE = 0.4;

// Two lists of booleans, true where an atom is not in the other text; null for texts with little in common, where all would be marked.
const differing = (first, second) => {
  const texts = [first, second].map((side) => side.map((atom) => atom.text));
  const parts = diffArrays(...texts, { maxEditLength: 3000 });
  if (!parts) return null;
  const marks = [[], []];
  let common = 0;
  for (const part of parts) {
    if (!part.added && !part.removed) common += 2 * part.value.filter((text) => text.trim()).length;
    for (const [side, own] of [[0, !part.added], [1, !part.removed]]) if (own) marks[side].push(...part.value.map(() => Boolean(part.added || part.removed)));
  }
  const total = texts.flat().filter((text) => text.trim()).length;
  if (total && common / total < LEAST_ALIKE) return null;
  return [joined(first, marks[0]), joined(second, marks[1])];
};

// Changed atoms with no word between them read better as one mark than as several.
const joined = (side, marks) => {
  const all = [...marks];
  for (let i = 1; i < side.length; i++) {
    if (marks[i] || !marks[i - 1]) continue;
    let end = i, between = "";
    while (end < side.length && !marks[end] && between.length <= 2) between += side[end++].text;
    if (end < side.length && marks[end] && /^[^\p{L}\p{N}\n]{1,2}$/u.test(between)) all.fill(true, i, end);
  }
  return all;
};

// Nodes for a text's atoms; runs of code stand in a block, runs of changes in one mark.
const marked = (side, marks, kind) => {
  const nodes = [];
  let block = null, mark = null;
  side.forEach((atom, i) => {
    if (Boolean(atom.code) !== Boolean(block)) {
      mark = null;
      block = atom.code ? el("span", { class: "code" }) : null;
      if (block) nodes.push(block);
    }
    const into = (node) => (block ? block.append(node) : nodes.push(node));
    if (marks?.[i] && !mark) into((mark = el("mark", { class: kind })));
    if (!marks?.[i]) mark = null;
    for (const node of shown(atom)) mark ? mark.append(node) : into(node);
  });
  return nodes;
};
