// Line charts with names at the ends of the lines, drawn for the width that there is, so that text keeps its size.
"use strict";

(globalThis.Play ??= {}).chart = (() => {
  const { h } = Play.dom;
  const HEIGHT = 250;
  const LINE = 15; // pixels between two names

  // Heights of names, pushed apart from above to below and back, so that none covers another.
  function apart(heights, bottom) {
    const placed = heights.map((height, i) => ({ height, i })).sort((a, b) => a.height - b.height);
    for (let i = 1; i < placed.length; i++)
      placed[i].height = Math.max(placed[i].height, placed[i - 1].height + LINE);
    for (let i = placed.length - 1, limit = bottom; i >= 0; i--, limit -= LINE)
      limit = placed[i].height = Math.min(placed[i].height, limit);
    return placed.sort((a, b) => a.i - b.i).map(({ height }) => height);
  }

  // Draws series {name, short, colour, dash, points: [[x, y], ...]} along axes {min, max, ticks, text, label}.
  function lines(element, { title, series, x, y, cursor }) {
    const width = Math.max(element.clientWidth, 280);
    const narrow = width < 520;
    const right = width - (narrow ? 100 : 200);
    const [left, top, bottom] = [46, 26, HEIGHT - 40];
    const across = (value) => left + ((value - x.min) / (x.max - x.min)) * (right - left);
    const up = (value) => bottom - ((value - y.min) / (y.max - y.min)) * (bottom - top);
    const svg = h("svg", { width, height: HEIGHT, role: "img", "aria-label": title });
    svg.append(h("text", { x: 0, y: 13 }, y.label));
    for (const tick of y.ticks)
      svg.append(
        h("line", { x1: left, x2: right, y1: up(tick), y2: up(tick), class: "play-grid" }),
        h("text", { x: left - 6, y: up(tick) + 4, "text-anchor": "end" }, y.text(tick))
      );
    const below = (place, y, text) => svg.append(h("text", { x: place, y, "text-anchor": "middle" }, text));
    for (const tick of x.ticks) below(across(tick), bottom + 16, x.text(tick));
    below((left + right) / 2, bottom + 34, x.label);
    if (cursor !== undefined)
      svg.append(h("line", { x1: across(cursor), x2: across(cursor), y1: top, y2: bottom, class: "play-cursor" }));
    const drawn = series.filter(({ points }) => points.length);
    const ends = drawn.map(({ points }) => up(points.at(-1)[1]));
    const heights = apart(ends, bottom);
    drawn.forEach(({ name, short, colour, dash, points }, i) => {
      const path = points.map(([a, b], k) => `${k ? "L" : "M"}${across(a).toFixed(1)} ${up(b).toFixed(1)}`).join("");
      const end = across(points.at(-1)[0]);
      svg.append(
        h("path", { d: path, stroke: colour, "stroke-dasharray": dash || "none", class: "play-line" }),
        h("path", { d: `M${end} ${ends[i]}L${right + 8} ${heights[i]}h8`, stroke: colour, class: "play-leader" }),
        h("text", { x: right + 20, y: heights[i] + 4 }, narrow ? short || name : name)
      );
    });
    element.replaceChildren(svg);
  }

  return { lines };
})();
