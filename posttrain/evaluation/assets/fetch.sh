#!/usr/bin/env bash
# Makes the files of this folder again from the npm registry: bash posttrain/evaluation/assets/fetch.sh
# Versions are pinned here and nowhere else; README.md beside this file names the licences.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init --yes > package.log
npm install --silent --save-exact uplot@1.6.32 katex@0.19.1 highlight.js@11.12.0 diff@9.0.0 @fontsource-variable/inter@5.3.0 esbuild@0.28.2

bundle() { npx esbuild --bundle --minify --format=iife --target=es2022 --charset=utf8 --log-level=warning "$@"; }
cat > highlight.js <<'JS'
import hljs from "highlight.js/lib/core";
import python from "highlight.js/lib/languages/python";
hljs.registerLanguage("python", python);
globalThis.hljs = hljs;
JS
echo 'import { diffArrays } from "diff"; globalThis.diffArrays = diffArrays;' > diff.js
echo 'import uPlot from "uplot"; globalThis.uPlot = uPlot;' > uplot.js
echo 'import katex from "katex"; globalThis.katex = katex;' > katex.js
for name in highlight diff uplot katex; do bundle "$name.js" > "$here/$name.js"; done

# Styles with their fonts as data, woff2 alone: every browser that opens the page reads it.
node - "$here" <<'JS'
const { readFileSync, writeFileSync } = require("fs");
const [here, modules] = [process.argv[2], "node_modules"];
const font = (path) => `url(data:font/woff2;base64,${readFileSync(path).toString("base64")}) format("woff2")`;
const katex = readFileSync(`${modules}/katex/dist/katex.min.css`, "utf8");
const source = /src:url\((fonts\/[^)]+\.woff2)\) format\("woff2"\)[^;}]*/g;
writeFileSync(`${here}/katex.css`, katex.replace(source, (_, path) => `src:${font(`${modules}/katex/dist/${path}`)}`));
writeFileSync(`${here}/uplot.css`, readFileSync(`${modules}/uplot/dist/uPlot.min.css`, "utf8"));
const inter = font(`${modules}/@fontsource-variable/inter/files/inter-latin-wght-normal.woff2`);
writeFileSync(`${here}/inter.css`, `@font-face{font-family:Inter;font-weight:100 900;font-display:swap;src:${inter}}\n`);
JS

mkdir -p "$here/licences"
for name in uplot katex highlight.js diff @fontsource-variable/inter; do
  cp node_modules/"$name"/LICENSE* "$here/licences/$(basename "$name").txt"
done
ls -l "$here"
