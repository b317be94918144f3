// The packed data of the page: base64, gzip, JSON. Each chunk is unpacked once, when it is first asked for.

const unpack = async (id) => {
  const packed = byId(id);
  if (!packed) return null;
  const raw = atob(packed.textContent), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
};

const cache = new Map();
const once = (id) => cache.get(id) ?? cache.set(id, unpack(id)).get(id);

// The item's place: [chunk, index in it].
const placeOf = (index, item) => {
  let chunk = 0;
  while (item >= index.chunks[chunk]) item -= index.chunks[chunk++];
  return [chunk, item];
};

const detailsOf = async (index, item) => {
  const [chunk, at] = placeOf(index, item);
  return (await once(`chunk${chunk}`))[at];
};

const tokensOf = async (index, item) => {
  const [chunk, at] = placeOf(index, item);
  return (await once(`tokens${chunk}`))?.[at];
};

// All that can be searched of every item, in lower case, made chunk by chunk so that the page stays alive.
const searchable = async (index, progress) => {
  const texts = [];
  for (let chunk = 0; chunk < index.chunks.length; chunk++) {
    for (const item of await once(`chunk${chunk}`)) {
      const told = item.attempts.flatMap((a) => [a.text, a.answer ?? "", a.why ?? "", a.rule ?? ""]);
      texts.push([index.id[texts.length], item.question, item.reference, ...told].join("\n").toLowerCase());
    }
    progress(texts.length);
    if (chunk % 4 === 3) await new Promise((go) => setTimeout(go));
  }
  return texts;
};
