"use strict";
// Graphs of the last minutes, and a timeline. Both are plain SVG.

const SVG = "http://www.w3.org/2000/svg";
const SPAN_MS = 5 * 60 * 1000;

function shape(parent, name, attributes, text) {
  const e = document.createElementNS(SVG, name);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  parent.append(e);
  return e;
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

// Graph draws series of the last minutes. A point is {at, values}. A value that is null is a gap.
// cuts holds the times of takeovers.
class Graph {
  constructor(svg, count) {
    this.svg = svg;
    this.count = count;
    this.points = [];
  }

  add(at, values) {
    this.points.push({ at, values });
    while (this.points.length > 0 && this.points[0].at < at - SPAN_MS) this.points.shift();
  }

  draw(now, cuts) {
    const w = this.svg.clientWidth || 300, h = this.svg.clientHeight || 120;
    const left = 36, top = 6, bottom = h - 14;
    this.svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
    this.svg.replaceChildren();
    const max = nice(Math.max(...this.points.flatMap(p => p.values.filter(v => v !== null)), 0));
    const x = at => left + (w - left) * (1 - (now - at) / SPAN_MS);
    const y = v => bottom - (bottom - top) * v / max;
    for (const part of [0, 0.5, 1]) {
      shape(this.svg, "line", { class: "grid", x1: left, x2: w, y1: y(max * part), y2: y(max * part) });
      shape(this.svg, "text", { x: left - 5, y: y(max * part) + 3, "text-anchor": "end" }, short(max * part));
    }
    shape(this.svg, "text", { x: left, y: h - 2 }, "5 min ago");
    shape(this.svg, "text", { x: w, y: h - 2, "text-anchor": "end" }, "now");
    for (const at of cuts) {
      if (at > now - SPAN_MS) shape(this.svg, "line", { class: "cut", x1: x(at), x2: x(at), y1: top, y2: bottom });
    }
    for (let i = 0; i < this.count; i++) {
      let d = "", pen = false;
      for (const p of this.points) {
        const v = p.values[i];
        if (v === null || v === undefined) { pen = false; continue; }
        // A point between two gaps is drawn as a dot: a line of length 0 with round ends.
        d += `${pen ? "L" : "M"}${x(p.at).toFixed(1)} ${y(v).toFixed(1)}${pen ? "" : "h0"}`;
        pen = true;
      }
      if (d !== "") shape(this.svg, "path", { class: `line s${i}`, d });
    }
  }
}

// drawTimeline draws marks {at, kind, label} from the first one until now.
function drawTimeline(svg, marks, now) {
  const w = svg.clientWidth || 600, h = svg.clientHeight || 56, mid = 22;
  svg.setAttribute("viewBox", `0 0 ${w} ${h}`);
  svg.replaceChildren();
  shape(svg, "line", { class: "grid", x1: 0, x2: w, y1: mid, y2: mid });
  if (marks.length === 0) {
    shape(svg, "text", { x: 0, y: h - 6 }, "no takeovers or deaths yet");
    return;
  }
  const from = Math.min(marks[0].at, now - 60000);
  const x = at => 8 + (w - 16) * (at - from) / (now - from);
  // Small marks are drawn last, so that large ones do not hide them.
  for (const m of [...marks].sort((a, b) => (a.kind === "bad") - (b.kind === "bad"))) {
    const dot = shape(svg, "circle", { class: `dot-${m.kind}`, cx: x(m.at), cy: mid, r: m.kind === "bad" ? 4 : 6 });
    shape(dot, "title", {}, m.label);
  }
  shape(svg, "text", { x: 0, y: h - 6 }, new Date(from).toLocaleString());
  shape(svg, "text", { x: w, y: h - 6, "text-anchor": "end" }, "now");
}
