"use strict";
// Graphs of the last minutes, and a timeline. Both are plain SVG that is changed in place.

const SVG = "http://www.w3.org/2000/svg";
const SPAN_MS = 5 * 60 * 1000;

function shape(parent, name, attributes, text) {
  const e = document.createElementNS(SVG, name);
  place(e, attributes);
  if (text !== undefined) e.textContent = text;
  if (parent) parent.append(e);
  return e;
}

function place(e, attributes) {
  for (const [k, v] of Object.entries(attributes)) setAttribute(e, k, v);
}

// nice returns a round number that is at least v, for the top of an axis.
function nice(v) {
  if (!(v > 0)) return 1;
  const p = 10 ** Math.floor(Math.log10(v));
  return [1, 2, 5, 10].map(f => f * p).find(x => x >= v);
}

// short formats a number in a few characters.
function short(v) {
  if (v === undefined || v === null || Number.isNaN(v)) return "–";
  if (v >= 1e6) return (v / 1e6).toFixed(1) + "M";
  if (v >= 1e4) return (v / 1e3).toFixed(1) + "k";
  if (v >= 100 || Number.isInteger(v)) return String(Math.round(v));
  return v >= 10 ? v.toFixed(1) : v.toFixed(2);
}

// path returns the line of a series. A value that is null is a gap. A point between two gaps is
// drawn as a dot: a line of length 0 with round ends.
function path(points, value, x, y) {
  let d = "", pen = false;
  for (const p of points) {
    const v = value(p);
    if (v === null || v === undefined) { pen = false; continue; }
    d += `${pen ? "L" : "M"}${x(p.at).toFixed(1)} ${y(v).toFixed(1)}${pen ? "" : "h0"}`;
    pen = true;
  }
  return d;
}

// Graph draws series of the samples. A series has a name and a function that returns its value.
class Graph {
  constructor(id, title, series) {
    this.svg = $(`graph-${id}`);
    this.now = $(`now-${id}`);
    this.title = title;
    this.series = series;
    this.grid = [0, 0.5, 1].map(part => ({
      part, line: shape(this.svg, "line", { class: "grid" }), text: shape(this.svg, "text", { "text-anchor": "end" }),
    }));
    this.from = shape(this.svg, "text", {}, "5 min ago");
    this.to = shape(this.svg, "text", { "text-anchor": "end" }, "now");
    this.cuts = shape(this.svg, "g", {});
    this.lines = series.map((_, i) => shape(this.svg, "path", { class: `line s${i}` }));
    this.legend = series.map((s, i) => this.addLegend(s.name, i));
  }

  addLegend(name, i) {
    const mark = document.createElement("i"), text = document.createElement("span");
    mark.className = `s${i}`;
    this.now.append(mark, text);
    return text;
  }

  // draw shows the samples. cuts holds the times of takeovers.
  draw(samples, cuts, now) {
    const w = this.svg.clientWidth || 300, h = this.svg.clientHeight || 120;
    const left = 36, top = 6, bottom = h - 14;
    const values = samples.flatMap(p => this.series.map(s => s.of(p))).filter(v => v !== null && v !== undefined);
    const max = nice(Math.max(...values, 0));
    const x = at => left + (w - left) * (1 - (now - at) / SPAN_MS);
    const y = v => bottom - (bottom - top) * v / max;
    setAttribute(this.svg, "viewBox", `0 0 ${w} ${h}`);
    for (const g of this.grid) {
      place(g.line, { x1: left, x2: w, y1: y(max * g.part), y2: y(max * g.part) });
      place(g.text, { x: left - 5, y: y(max * g.part) + 3 });
      setText(g.text, short(max * g.part));
    }
    place(this.from, { x: left, y: h - 2 });
    place(this.to, { x: w, y: h - 2 });
    reconcile(this.cuts, cuts.filter(at => at > now - SPAN_MS), at => at, () => shape(null, "line", { class: "cut" }),
      (line, at) => place(line, { x1: x(at), x2: x(at), y1: top, y2: bottom }));
    this.series.forEach((s, i) => setAttribute(this.lines[i], "d", path(samples, s.of, x, y)));
    this.describe(samples.at(-1));
  }

  // describe shows the latest values beside the title, and for those who do not see the picture.
  describe(last) {
    const texts = this.series.map(s => `${s.name} ${last ? short(s.of(last)) : "–"}`);
    texts.forEach((text, i) => setText(this.legend[i], text));
    setAttribute(this.svg, "aria-label", `${this.title}, graph of the last five minutes, now: ${texts.join(", ")}`);
  }
}

// MARKS are the shapes of the timeline. The legend in the page has the same.
const MARKS = {
  start: "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
  takeover: "M0-7L7 0L0 7L-7 0z",
  death: "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
  error: "M-5-5H5V5H-5z",
};

// drawTimeline draws marks {key, at, kind, label} from the first one until now.
function drawTimeline(svg, marks, now) {
  const w = svg.clientWidth || 600, h = svg.clientHeight || 56, mid = 22;
  setAttribute(svg, "viewBox", `0 0 ${w} ${h}`);
  place($("timeline-axis"), { x1: 0, x2: w, y1: mid, y2: mid });
  place($("timeline-from"), { x: 0, y: h - 6 });
  place($("timeline-to"), { x: w, y: h - 6 });
  const from = Math.min(...marks.map(m => m.at), now - 60000);
  setText($("timeline-from"), marks.length === 0 ? "no takeovers or deaths yet" : clock(from));
  const x = at => 8 + (w - 16) * (at - from) / (now - from);
  // Small marks are drawn last, so that large ones do not hide them.
  const order = [...marks].sort((a, b) => (a.kind === "death") - (b.kind === "death"));
  reconcile($("timeline-marks"), order, m => m.key, createMark,
    (e, m) => setAttribute(e, "transform", `translate(${x(m.at).toFixed(1)} ${mid})`));
  setAttribute(svg, "aria-label", `Timeline of ${marks.length} starts, takeovers, deaths and errors. The table below lists them.`);
}

function createMark(m) {
  const e = shape(null, "path", { class: `mark-${m.kind}`, d: MARKS[m.kind] });
  shape(e, "title", {}, m.label);
  return e;
}
