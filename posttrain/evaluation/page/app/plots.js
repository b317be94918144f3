// The page's charts, drawn by uPlot from plain series. The legend above a chart reads the values under the pointer; arrow keys move it.

const heightOf = (figure) => (figure.closest(".few") ? 290 : 220);
const whole = (value) => (Math.abs(value) >= 1000 ? count(Math.round(value)) : String(+value.toPrecision(6)));
const told = (value, unit) => {
  if (value === null || value === undefined) return "–";
  return unit === "percent" ? (100 * value).toFixed(1) : Math.abs(value) >= 100 ? value.toFixed(0) : String(+value.toPrecision(3));
};

// uPlot's series, data and bands of a plot: a band is two invisible series around its line.
const layers = (plot) => {
  const series = [{}], data = [plot.x], bands = [];
  for (const each of plot.series) {
    const stroke = colour(each.colour);
    if (each.low.length) {
      bands.push({ series: [series.length + 1, series.length], fill: colour(each.colour, 0.14) });
      series.push({ stroke: "transparent", points: { show: false }, spanGaps: true }, { stroke: "transparent", points: { show: false }, spanGaps: true });
      data.push(each.low, each.high);
    }
    const plain = { label: each.name, stroke, width: 2, spanGaps: true, points: { show: false }, shown: each };
    const kinds = {
      thin: { stroke: colour(each.colour, 0.4), width: 1 },
      dots: each.name ? { width: 0, points: { show: true, size: 7, width: 1.5, fill: stroke, stroke: colour("paper") } } : { width: 0, points: { show: true, size: 4, width: 0, fill: colour(each.colour, 0.55) } },
      "joined dots": { points: { show: true, size: 7, width: 1.5, fill: stroke, stroke: colour("paper") } },
      dashed: { width: 1.5, dash: [6, 4] },
      bars: { width: 0, fill: colour(each.colour, 0.85), paths: uPlot.paths.bars({ size: [0.86, 100] }) },
    };
    series.push({ ...plain, ...(kinds[each.mark] ?? {}) });
    data.push(each.y);
  }
  return { series, data, bands };
};

// Lines across and upright with their names, drawn over the grid and behind the series; a name has a rim of paper, so that no line strikes it.
const notes = (plot) => (u) => {
  const { ctx, bbox } = u, scale = devicePixelRatio;
  ctx.save();
  ctx.font = `${11.5 * scale}px Inter, sans-serif`;
  ctx.fillStyle = colour("soft");
  ctx.strokeStyle = colour("soft", 0.75);
  ctx.setLineDash([3 * scale, 4 * scale]);
  ctx.lineWidth = scale;
  const line = (x1, y1, x2, y2) => (ctx.beginPath(), ctx.moveTo(x1, y1), ctx.lineTo(x2, y2), ctx.stroke());
  const word = (text, x, y) => {
    ctx.save();
    ctx.setLineDash([]);
    ctx.lineWidth = 4 * scale;
    ctx.lineJoin = "round";
    ctx.strokeStyle = colour("paper");
    ctx.strokeText(text, x, y);
    ctx.restore();
    ctx.fillText(text, x, y);
  };
  for (const [x, name] of plot.marks) {
    const at = u.valToPos(x, "x", true);
    if (at > bbox.left + 2 && at < bbox.left + bbox.width) line(at, bbox.top, at, bbox.top + bbox.height);
    if (at > bbox.left + bbox.width) continue;
    ctx.textAlign = "left";
    word(name, Math.max(at, bbox.left) + 5 * scale, bbox.top + 11 * scale);
  }
  if (plot.level) {
    const at = u.valToPos(plot.level[0], "y", true);
    line(bbox.left, at, bbox.left + bbox.width, at);
    ctx.textAlign = "right";
    word(plot.level[1], bbox.left + bbox.width - 2 * scale, at - 5 * scale);
  }
  ctx.restore();
};

const optionsOf = (plot, width, height, read, group) => {
  const grid = { stroke: colour("rule"), width: 1 }, font = "12px Inter, sans-serif", stroke = colour("soft");
  const labels = new Map(plot.ticks), bars = plot.series.some((each) => each.mark === "bars");
  const [first, last] = [plot.x[0], plot.x.at(-1)];
  const room = bars ? (plot.x[1] - plot.x[0]) / 2 : plot.ticks.length ? 0.04 * (last - first) || 0.5 : 0;
  const fits = (u, splits) => {
    let end = -Infinity;
    return splits.map((x) => {
      const label = labels.get(x) ?? "", half = 3.6 * label.length + 4, at = u.valToPos(x, "x");
      if (at - half < end) return "";
      end = at + half;
      return label;
    });
  };
  const xAxis = { stroke, font, grid: { show: false }, ticks: { stroke: colour("edge"), size: 4 }, size: 24, gap: 3, label: plot.x_name, labelSize: 17, labelFont: font, labelGap: 0 };
  if (plot.ticks.length) Object.assign(xAxis, { splits: plot.ticks.map(([x]) => x), values: fits });
  else xAxis.values = (u, splits) => splits.map(whole);
  return {
    width, height, legend: { show: false }, ...layers(plot), data: undefined,
    cursor: { sync: group ? { key: group } : undefined, y: false, drag: { x: true, y: false }, points: { size: 8, width: 2, fill: (u, i) => colour(u.series[i].shown?.colour ?? "soft", u.series[i].shown ? 1 : 0), stroke: (u, i) => colour("paper", u.series[i].shown ? 1 : 0) } },
    scales: { x: { time: false, range: (u, low, high) => (low === first && high === last ? [low - room, high + room] : [low, high]) }, y: { range: plot.bounds ? () => plot.bounds : undefined } },
    axes: [xAxis, { stroke, font, grid, ticks: { show: false }, size: 46, gap: 6, values: (u, splits) => splits.map((y) => (plot.unit === "percent" ? whole(+(100 * y).toFixed(4)) : whole(y))) }],
    hooks: { drawAxes: [notes(plot)], setCursor: [(u) => read(u.cursor.idx)] },
  };
};

// The last value of each series, which the legend shows when nobody points.
const lastOf = (each) => each.y.findLast((value) => value !== null);

const draw = (figure, plot) => {
  const named = plot.series.filter((each) => each.name);
  const values = named.map(() => el("b"));
  const where = el("span");
  const keys = named.map((each, i) => el("span", {}, el("i", { class: each.mark, style: { "--c": `var(--${each.colour})` } }), each.name, values[i]));
  const read = (at) => {
    const pointed = at !== null && at !== undefined;
    named.forEach((each, i) => {
      const value = pointed ? each.y[at] : plot.series[0].mark === "bars" ? null : lastOf(each);
      const band = pointed && each.low.length && value !== null ? ` (${told(each.low[at], plot.unit)} to ${told(each.high[at], plot.unit)})` : "";
      values[i].textContent = value === null && !pointed ? "" : told(value, plot.unit) + band;
    });
    const tick = pointed && (new Map(plot.ticks).get(plot.x[at]) ?? whole(plot.x[at]));
    where.textContent = pointed ? `${plot.x_name} ${tick}` : "";
  };
  const holder = el("div", { class: "canvas", tabindex: "0", role: "img", "aria-label": spoken(plot, named) });
  figure.append(el("div", { class: "keys" }, keys, where), holder);
  let u = null;
  const build = () => {
    u?.destroy();
    const options = optionsOf(plot, holder.clientWidth, heightOf(figure), read, plot.group && `group ${plot.group}`);
    u = new uPlot(options, layers(plot).data, holder);
    read(null);
  };
  const step = (by) => {
    const at = Math.min(plot.x.length - 1, Math.max(0, (u.cursor.idx ?? (by > 0 ? -1 : plot.x.length)) + by));
    u.setCursor({ left: u.valToPos(plot.x[at], "x"), top: 10 });
  };
  holder.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) (event.preventDefault(), step(by));
  });
  holder.addEventListener("blur", () => u.setCursor({ left: -10, top: -10 }));
  build();
  new ResizeObserver(() => holder.clientWidth && u.width !== holder.clientWidth && u.setSize({ width: holder.clientWidth, height: heightOf(figure) })).observe(holder);
  return build;
};

// What a chart says, for those who cannot see it.
const spoken = (plot, named) => {
  const ends = named.map((each) => {
    const values = each.y.filter((value) => value !== null);
    return `${each.name} from ${told(values[0], plot.unit)} to ${told(values.at(-1), plot.unit)}`;
  });
  return `${plot.title}, over ${plot.x_name}: ${ends.join("; ")}. Arrow keys read values.`;
};

const drawAll = () => {
  const all = JSON.parse(byId("plots").textContent);
  return [...document.querySelectorAll(".plot")].map((figure) => draw(figure, all[figure.dataset.section][figure.dataset.plot]));
};
