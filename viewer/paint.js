// Paints the space-time diagram of one run on a canvas.
//
// What is close together is drawn together: of messages and events as many as can be told apart,
// then how many there are. Faults, elections, lost messages and violations are drawn at every zoom.

import { Arrows, arrowHead } from "viewer/arrows.js";
import { formatSpan, formatTime, lowerBound, upperBound } from "viewer/base.js";
import { BANDS, isReceive } from "viewer/decode.js";
import { CLASSES } from "viewer/history.js";
import { Pixels, word } from "viewer/pixels.js";

export const GUTTER = 148;
const AXIS = 30;
const ARROWS_MAX = 1500;
const DOTS_MAX = 3000;
const SPANS_MAX = 1000;
const OPERATIONS_MAX = 60;
const MARKS_MAX = 300;
const BANDS_MAX = 16;
const NARROW = 6;
const HEADS_MAX = 150;
const WIDTHS_MAX = 5000;
const LOST_MAX = 400;
const TICKS = { leader: [-20, 8], down: [-11, 7], start: [4, 7], other: [-3, 6] };

/** Colours and patterns, read from the style sheet. */
export class Theme {
  constructor(root) {
    const style = getComputedStyle(root);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    const names = [
      "paper", "ink", "soft", "faint", "line", "lane", "leader", "election", "append", "client",
      "snapshot", "answer", "heartbeat", "other", "violation", "fault", "down", "select", "past",
      "future", "match", "members",
    ];
    for (const name of names) this[name] = color(name);
    this.font = style.fontFamily;
    this.patterns = patterns(this);
    this.words = new Map();
  }

  /** A colour, by its value, as a pixel. */
  word(color, alpha = 1) {
    let ofColor = this.words.get(color);
    if (!ofColor) this.words.set(color, (ofColor = new Map()));
    if (!ofColor.has(alpha)) ofColor.set(alpha, word(color, alpha));
    return ofColor.get(alpha);
  }
}

/** One pattern for each kind of trouble, so that colour alone says nothing. */
function patterns(theme) {
  const tile = (size, draw) => {
    const canvas = new OffscreenCanvas(size, size);
    const context = canvas.getContext("2d");
    context.strokeStyle = context.fillStyle = theme.fault;
    context.lineWidth = 1;
    draw(context, size);
    return context.createPattern(canvas, "repeat");
  };
  const stroke = (context, ...points) => {
    context.beginPath();
    for (const [x1, y1, x2, y2] of points) {
      context.moveTo(x1, y1);
      context.lineTo(x2, y2);
    }
    context.stroke();
  };
  return {
    crash: theme.fault,
    pause: tile(8, (context, size) => stroke(context, [0, size, size, 0], [-1, 1, 1, -1],
      [size - 1, size + 1, size + 1, size - 1])),
    partition: tile(8, (context, size) => stroke(context, [0, 0, size, size], [0, size, size, 0])),
    link: tile(6, (context) => context.fillRect(1, 1, 1.5, 1.5)),
    disk: tile(6, (context, size) => stroke(context, [0, 2.5, size, 2.5])),
    clock: tile(6, (context, size) => stroke(context, [2.5, 0, 2.5, size])),
  };
}

/** Where each lane is. */
export function layout(run, hidden, height) {
  const lanes = [];
  const rank = { world: 0, coordinator: 1, server: 2, client: 3 };
  const shown = run.nodes
    .map((node, number) => ({ node: number, kind: node.kind, name: node.name }))
    .filter(({ name }) => !hidden.has(name))
    .sort((left, right) => rank[left.kind] - rank[right.kind]);
  const count = (kind) => shown.filter((lane) => lane.kind === kind).length;
  const clientHeight = count("client") > 10 ? 20 : 26;
  const fixed = AXIS + 12 + count("client") * clientHeight
    + (count("world") + count("coordinator")) * 30;
  const room = (height - fixed) / Math.max(count("server"), 1);
  const serverHeight = Math.max(46, Math.min(120, room));
  let top = AXIS;
  for (const lane of shown) {
    const size = { world: 30, coordinator: 30, server: serverHeight, client: clientHeight };
    lanes.push({ ...lane, place: lanes.length, top, height: size[lane.kind], middle: top + size[lane.kind] / 2 });
    top += size[lane.kind];
  }
  return { lanes, byNode: new Map(lanes.map((lane) => [lane.node, lane])), height: top + 12 };
}

/** Paints one run. `stage` has run, history, found and cone; `view` what is to be seen of it. */
export class Painter {
  constructor(canvas, stage) {
    this.canvas = canvas;
    this.stage = stage;
    this.context = canvas.getContext("2d", { alpha: false });
    /** What cannot be told apart. */
    this.pixels = new Pixels();
    /** What was drawn where, for the pointer. */
    this.arrows = new Arrows();
    /** Events in view by their colour, made anew for each lane. */
    this.groups = new Map();
    /** Widths of texts by font. */
    this.widths = new Map();
  }

  resize(width, height, hidden) {
    const ratio = globalThis.devicePixelRatio || 1;
    this.layout = layout(this.stage.run, hidden, height);
    this.width = width;
    this.height = Math.max(height, this.layout.height);
    this.stage.whole.style.height = `${this.height}px`;
    // The canvas is as large as what is seen of it, and what is seen is painted on it.
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== wide || this.canvas.height !== high) {
      this.canvas.width = wide;
      this.canvas.height = high;
      this.canvas.style.height = `${height}px`;
    }
    this.ratio = ratio;
  }

  x(time) {
    return GUTTER + (time - this.span.from) * this.scale;
  }

  timeAt(x) {
    return this.span.from + (x - GUTTER) / this.scale;
  }

  paint(view, theme) {
    const { context } = this;
    const { offset } = this.stage;
    this.theme = theme;
    this.view = view;
    this.span = { from: view.from + offset, to: view.to + offset };
    this.scale = (this.width - GUTTER) / (view.to - view.from);
    this.arrows.count = 0;
    // What is scrolled out of sight is not painted.
    const { scrollTop, clientHeight } = this.stage.scroll;
    this.lanes = this.layout.lanes.filter((lane) =>
      lane.top + lane.height >= scrollTop && lane.top <= scrollTop + clientHeight);
    this.top = scrollTop;
    this.pixels.begin(this.canvas.width, this.canvas.height, this.ratio, scrollTop);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, -scrollTop * this.ratio);
    context.fillStyle = theme.paper;
    context.fillRect(0, scrollTop, this.width, clientHeight);
    this.#lanes();
    context.save();
    context.beginPath();
    context.rect(GUTTER, this.top, this.width - GUTTER, clientHeight);
    context.clip();
    this.#axis();
    this.#cone();
    for (const lane of this.lanes) this.#bands(lane);
    for (const lane of this.lanes) {
      if (lane.kind === "server") this.#spans(lane);
      if (lane.kind === "client") this.#operations(lane);
    }
    this.#messages();
    this.#events();
    this.#marks();
    this.#matches();
    this.pixels.put(context);
    this.#now();
    this.#divergence();
    this.#violations();
    context.restore();
    this.#labels();
  }

  #lanes() {
    const { context, theme } = this;
    for (const lane of this.lanes) {
      context.fillStyle = lane.place % 2 ? theme.paper : theme.lane;
      context.fillRect(0, lane.top, this.width, lane.height);
    }
    context.strokeStyle = theme.line;
    context.lineWidth = 1;
    context.beginPath();
    for (const lane of this.lanes) {
      if (lane.kind === "client") continue;
      context.moveTo(GUTTER, lane.middle);
      context.lineTo(this.width, lane.middle);
    }
    context.stroke();
  }

  #axis() {
    const { context, theme } = this;
    const { clock } = this.stage.run;
    const { offset } = this.stage;
    const { from, to } = this.view;
    const step = niceStep((to - from) / Math.max((this.width - GUTTER) / 130, 1));
    context.font = `11px ${theme.font}`;
    context.textBaseline = "middle";
    context.fillStyle = theme.soft;
    context.strokeStyle = theme.line;
    if (this.top > 0) {
      context.fillStyle = theme.paper;
      context.fillRect(GUTTER, this.top, this.width, AXIS);
      context.fillStyle = theme.soft;
    }
    context.beginPath();
    for (let tick = Math.ceil(from / step) * step; tick <= to; tick += step) {
      const x = Math.round(this.x(tick + offset)) + 0.5;
      context.moveTo(x, this.top + AXIS - 6);
      context.lineTo(x, this.height);
      context.fillText(formatTime(tick + offset, clock, step), x + 4, this.top + AXIS / 2);
    }
    context.globalAlpha = 0.5;
    context.stroke();
    context.globalAlpha = 1;
  }

  /** How far the causal past and future of the selected event reach into each lane. */
  #cone() {
    const { cone, run } = this.stage;
    if (!cone || !this.view.cone) return;
    const { context, theme } = this;
    for (const lane of this.lanes) {
      const before = cone.before[lane.node];
      const after = cone.after[lane.node];
      context.globalAlpha = 0.13;
      if (before >= 0) {
        context.fillStyle = theme.past;
        context.fillRect(GUTTER, lane.top, this.x(run.at[before]) - GUTTER, lane.height);
      }
      if (after !== Infinity) {
        const x = this.x(run.at[after]);
        context.fillStyle = theme.future;
        context.fillRect(x, lane.top, this.width - x, lane.height);
      }
      context.globalAlpha = 1;
    }
  }

  /** What was wrong: of each kind one shade, however much of it there is. */
  #bands(lane) {
    const { context, theme } = this;
    const labels = [];
    for (const [kind, { bands, spans }] of this.stage.history.bandsOf[lane.node]) {
      const covered = this.#covered(spans);
      if (covered.length > BANDS_MAX) {
        this.#strip(lane, kind, covered);
        continue;
      }
      const merged = this.#merged(bands);
      for (const { x1, x2, first, count } of merged) {
        const x = Math.max(x1, GUTTER - 2);
        const width = Math.max(Math.min(x2, this.width + 2) - x, 2);
        if (width < NARROW) {
          this.pixels.box(x, lane.top + 1, width, lane.height - 2, theme.word(theme.fault, 0.3));
          continue;
        }
        context.globalAlpha = 0.22;
        context.fillStyle = theme.patterns[kind];
        context.fillRect(x, lane.top + 1, width, lane.height - 2);
        context.globalAlpha = 0.5;
        context.fillStyle = theme.fault;
        context.fillRect(x, lane.top + 1, width, 1.5);
        if (width > 48) labels.push({ x, width, text: count > 1 ? `${first.text}, …` : first.text });
      }
    }
    context.globalAlpha = 1;
    context.font = `italic 11px ${theme.font}`;
    context.textBaseline = "top";
    labels.sort((left, right) => left.x - right.x);
    // Two rows; what has room in neither is said by the pointer.
    const ends = [-Infinity, -Infinity];
    for (const { x, width, text } of labels) {
      const left = Math.max(x, GUTTER) + 4;
      const row = ends.findIndex((end) => end <= left);
      if (row < 0) continue;
      const room = Math.min(width - 8, 220);
      this.#text(text, left, lane.top + 4 + row * (lane.height - 20), room, theme.fault);
      ends[row] = left + Math.min(this.#widthOf(text), room) + 6;
    }
  }

  /** Times that are covered, as pixels in view: those that touch are one. */
  #covered({ from, to }) {
    const covered = [];
    let place = lowerBound(to, this.span.from);
    while (place < from.length && from[place] <= this.span.to) {
      const x1 = this.x(from[place]);
      let x2 = Math.max(this.x(to[place]), x1 + 1);
      place += 1;
      // What begins before the next pixel belongs to it, and may reach further.
      for (;;) {
        const next = upperBound(from, this.timeAt(x2 + 1), place);
        if (next === place) break;
        place = next;
        x2 = Math.max(x2, this.x(to[place - 1]));
      }
      covered.push({ x1, x2 });
    }
    return covered;
  }

  /** Much of one kind: a line of its own within the lane. */
  #strip(lane, kind, merged) {
    const row = BANDS.indexOf(kind);
    const height = Math.max(Math.min(lane.height / 12, 5), 2);
    const top = lane.top + 2 + row * (height + 1);
    const color = this.theme.word(this.theme.fault, 0.55);
    for (const { x1, x2 } of merged) {
      const x = Math.max(x1, GUTTER);
      this.pixels.box(x, top, Math.min(x2, this.width) - x, height, color);
    }
  }

  /** Intervals in view, sorted by their begin, as pixels: those that touch are one. */
  #merged(intervals, end = Infinity) {
    const { from, to } = this.span;
    const merged = [];
    let last = null;
    for (const one of intervals) {
      if (one.from > to) break;
      if ((one.to ?? end) < from) continue;
      const [x1, x2] = [this.x(one.from), this.x(one.to ?? end)];
      if (last && x1 <= last.x2 + 1) {
        last.x2 = Math.max(last.x2, x2);
        last.count += 1;
      } else {
        last = { x1, x2: Math.max(x2, x1 + 1), first: one, count: 1 };
        merged.push(last);
      }
    }
    return merged;
  }

  #text(text, x, y, width, color) {
    const { context } = this;
    let shown = text;
    const whole = this.#widthOf(text);
    if (whole > width) {
      const letters = Math.floor((text.length * width) / whole) - 1;
      if (letters < 3) return;
      shown = `${text.slice(0, letters)}…`;
    }
    context.fillStyle = color;
    context.fillText(shown, x, y);
  }

  #widthOf(text) {
    const { context, widths } = this;
    const key = `${context.font} ${text}`;
    let width = widths.get(key);
    if (width === undefined) {
      if (widths.size > WIDTHS_MAX) widths.clear();
      width = context.measureText(text).width;
      widths.set(key, width);
    }
    return width;
  }

  /** Roles and terms of a server: thin while it follows, thick while it leads. */
  #spans(lane) {
    const { context, theme } = this;
    const { spans } = this.stage.history.servers[lane.node];
    const first = upperBound(spans.to, this.span.from);
    const end = lowerBound(spans.from, this.span.to);
    const isCrowded = end - first > SPANS_MAX;
    let painted = -1;
    context.font = `600 11px ${theme.font}`;
    context.textBaseline = "middle";
    for (let place = first; place < end; place++) {
      const x1 = Math.max(this.x(spans.from[place]), GUTTER);
      const x2 = Math.min(this.x(spans.to[place]), this.width);
      const isLeader = spans.role[place] === 3 && spans.power[place] !== 1;
      if (isCrowded && !isLeader && x2 < painted + 1) continue;
      painted = x2;
      this.#segment(lane, place, spans, x1, Math.max(x2, x1 + (isLeader ? 1.5 : 0.5)));
    }
  }

  #segment(lane, place, spans, x1, x2) {
    const { context, theme } = this;
    const role = spans.role[place];
    if (x2 - x1 < NARROW) {
      if (spans.power[place] === 1) return;
      const color = role === 3 ? theme.leader : role > 0 ? theme.election : theme.faint;
      const height = [2, 5, 8, 16][role];
      this.pixels.box(x1, lane.middle - height / 2, x2 - x1, height, theme.word(color));
      return;
    }
    if (spans.power[place] === 1) {
      context.fillStyle = theme.lane;
      context.fillRect(x1, lane.middle - 1, x2 - x1, 2);
      return;
    }
    if (role === 3) {
      context.fillStyle = theme.leader;
      context.fillRect(x1, lane.middle - 8, x2 - x1, 16);
    } else if (role > 0) {
      context.fillStyle = theme.election;
      const height = role === 2 ? 8 : 5;
      context.fillRect(x1, lane.middle - height / 2, x2 - x1, height);
    } else {
      context.fillStyle = theme.faint;
      context.fillRect(x1, lane.middle - 1, x2 - x1, 2);
    }
    const isNew = place === 0 || spans.term[place - 1] !== spans.term[place] || role === 3;
    if (!isNew || x2 - x1 < 44 || spans.term[place] === 0) return;
    if (role === 3) {
      this.#text(`leads term ${spans.term[place]}`, x1 + 6, lane.middle + 0.5, x2 - x1 - 8,
        theme.paper);
    } else if (x1 > GUTTER || role > 0) {
      this.#text(`term ${spans.term[place]}`, x1 + 4, lane.middle - 10, x2 - x1 - 8, theme.soft);
    }
  }

  #operations(lane) {
    const { context, theme } = this;
    const { operationsOf, operationTimesOf, end } = this.stage.history;
    const operations = operationsOf[lane.node];
    const times = operationTimesOf[lane.node];
    // A client asks one thing after another, so the one before the first visible may reach in.
    const first = Math.max(times.lower(this.span.from) - 1, 0);
    const last = times.upper(this.span.to);
    if (last - first > OPERATIONS_MAX) {
      this.#crowd(lane, () => operations.slice(first, last));
      return;
    }
    const key = this.view.key;
    let painted = -1;
    context.font = `11px ${theme.font}`;
    context.textBaseline = "middle";
    for (let place = first; place < last; place++) {
      const operation = operations[place];
      const x1 = Math.max(this.x(operation.from), GUTTER - 4);
      const x2 = Math.min(Math.max(this.x(operation.to ?? end), x1 + 1), this.width + 4);
      const isQuiet = operation.outcome === "ok" && operation !== this.view.operation;
      if (isQuiet && x2 < painted + 0.7) continue;
      painted = x2;
      const isOther = key && !operation.keys.includes(key);
      context.globalAlpha = isOther ? 0.2 : 1;
      this.#operation(lane, operation, x1, x2);
      context.globalAlpha = 1;
    }
  }

  /** Operations that cannot be told apart: when there was one, and which did not end well. */
  #crowd(lane, operations) {
    const { theme } = this;
    const { key, operation: chosen } = this.view;
    const merged = (list) => this.#merged(list, this.stage.history.end);
    const paint = (list, color, alpha, least) => {
      const one = theme.word(color, alpha);
      for (const { x1, x2 } of list) {
        const x = Math.max(x1, GUTTER);
        const width = Math.max(Math.min(x2, this.width) - x, least);
        this.pixels.box(x, lane.top + 5, width, lane.height - 10, one);
      }
    };
    const { all, bad } = this.stage.history.operationSpansOf[lane.node];
    paint(this.#covered(all), theme.client, key ? 0.12 : 0.4, 1);
    if (key) {
      const meant = operations().filter((one) => one.keys.includes(key));
      paint(merged(meant), theme.client, 0.6, 2);
      paint(merged(meant.filter((one) => one.outcome !== "ok")), theme.fault, 0.5, 2);
    } else {
      paint(this.#covered(bad), theme.fault, 0.5, 2);
    }
    if (chosen?.client === lane.node) paint(merged([chosen]), theme.select, 0.8, 3);
  }

  #operation(lane, operation, x1, x2) {
    const { context, theme } = this;
    const [top, height] = [lane.top + 4, lane.height - 8];
    context.fillStyle = operation.outcome === "ok" ? theme.client : theme.fault;
    // A narrow one has no border to be seen by.
    context.globalAlpha *= x2 - x1 <= 3 ? 0.9 : operation.outcome === "ok" ? 0.3 : 0.25;
    context.fillRect(x1, top, x2 - x1, height);
    context.globalAlpha = Math.min(context.globalAlpha * 4, 1);
    context.strokeStyle = context.fillStyle;
    context.lineWidth = operation === this.view.operation ? 2.5 : 1;
    if (x2 - x1 > 3) {
      const isDashed = operation.outcome !== "ok";
      if (isDashed) context.setLineDash([3, 3]);
      context.strokeRect(x1 + 0.5, top + 0.5, x2 - x1 - 1, height - 1);
      if (isDashed) context.setLineDash([]);
    }
    if (x2 - x1 > 36) {
      this.#text(operation.text, Math.max(x1, GUTTER) + 6, lane.middle, x2 - x1 - 14, theme.ink);
    }
    if (operation.point !== null && x2 - x1 > 5) {
      diamond(context, this.x(operation.point), lane.middle, 4.5, theme.ink);
    }
  }

  /** Arrivals as arrows, by class while there is room; lost sends as broken ones. */
  #messages() {
    const { theme } = this;
    const hasCone = this.view.cone && this.stage.cone !== null;
    let room = ARROWS_MAX;
    for (let place = 0; place < CLASSES.length; place++) {
      const ofClass = this.stage.history.arrivals[place];
      const first = ofClass.times.lower(this.span.from);
      const last = ofClass.times.upper(this.span.to + ofClass.usual);
      if (last - first > room) continue;
      room -= last - first;
      this.#arrows(ofClass, first, last, true, theme[CLASSES[place]], place > 3 ? 0.45 : 0.8);
      if (hasCone) this.#arrows(ofClass, first, last, false, theme.faint, 0.35);
    }
    this.#lost();
  }

  /** Messages of one class; those inside of the cone, if there is one, or those outside. */
  #arrows(ofClass, first, last, isInside, color, alpha) {
    const { context, arrows } = this;
    const { at, cause } = this.stage.run;
    context.strokeStyle = context.fillStyle = color;
    context.globalAlpha = alpha;
    // Lines of one pixel are painted one by one; wider ones of one path are slow together.
    context.lineWidth = 1;
    context.beginPath();
    const begin = arrows.count;
    for (let place = first; place < last; place++) this.#arrow(ofClass.events[place], isInside);
    const late = this.span.to + ofClass.usual;
    for (const event of ofClass.slow) {
      if (at[event] > late && at[cause[event]] < this.span.to) this.#arrow(event, isInside);
    }
    context.stroke();
    if (last - first < HEADS_MAX) arrows.from(begin, (...line) => arrowHead(context, ...line));
    context.globalAlpha = 1;
  }

  #arrow(event, isInside) {
    const { run, found, cone } = this.stage;
    const { context, view } = this;
    const { byNode } = this.layout;
    const send = run.cause[event];
    if (found && view.only && !found.mask[event] && !found.mask[send]) return;
    const isPart = !view.cone || !cone || (cone.side(event) !== null && cone.side(send) !== null);
    const [from, to] = [byNode.get(run.node[send]), byNode.get(run.node[event])];
    if (isPart !== isInside || !from || !to) return;
    const [x1, x2] = [this.x(run.at[send]), this.x(run.at[event])];
    context.moveTo(x1, from.middle);
    context.lineTo(x2, to.middle);
    this.arrows.push(x1, from.middle, x2, to.middle, event);
  }

  #lost() {
    const { run, history, found } = this.stage;
    const { context, theme, view } = this;
    const { byNode } = this.layout;
    const first = history.lostTimes.lower(this.span.from);
    const last = history.lostTimes.upper(this.span.to);
    if (last - first > LOST_MAX) {
      for (const lane of this.lanes) this.#lostOf(lane);
      return;
    }
    context.strokeStyle = theme.fault;
    context.lineWidth = 1.2;
    context.beginPath();
    for (let place = first; place < last; place++) {
      const send = history.lost[place];
      if (found && view.only && !found.mask[send]) continue;
      const from = byNode.get(run.node[send]);
      const to = byNode.get(history.target[send]);
      if (!from) continue;
      const x = this.x(run.at[send]);
      const down = to && to.middle < from.middle ? -1 : 1;
      const reach = 18;
      const y = from.middle + down * (reach + 3);
      // Broken: a dash, a gap, a dash, and a cross where it ends.
      context.moveTo(x, from.middle + down * 3);
      context.lineTo(x + reach * 0.15, from.middle + down * reach * 0.4);
      context.moveTo(x + reach * 0.22, from.middle + down * reach * 0.6);
      context.lineTo(x + reach * 0.36, y);
      const end = x + reach * 0.36;
      context.moveTo(end - 3, y - 3);
      context.lineTo(end + 3, y + 3);
      context.moveTo(end - 3, y + 3);
      context.lineTo(end + 3, y - 3);
      this.arrows.push(x, from.middle, end, y, send);
    }
    context.stroke();
  }

  /** Lost sends of one node that cannot be told apart: one tick where there are any. */
  #lostOf(lane) {
    const { history, found } = this.stage;
    const isOnly = found && this.view.only;
    const { events, times } = history.lostOf[lane.node];
    const color = this.theme.word(this.theme.fault);
    const { byNode } = this.layout;
    let place = times.lower(this.span.from);
    while (place < times.length && times.times[place] <= this.span.to) {
      const event = events[place];
      if (isOnly && !found.mask[event]) {
        place += 1;
        continue;
      }
      const x = Math.floor(this.x(times.times[place]) / 2) * 2;
      const to = byNode.get(history.target[event]);
      this.pixels.box(x, lane.middle + (to && to.middle < lane.middle ? -9 : 3), 1, 6, color);
      place = Math.max(times.lower(this.timeAt(x + 2)), place + 1);
    }
  }

  /** Every event as a dot while they can be told apart, else how many there are. */
  #events() {
    const { history, found } = this.stage;
    const shown = (lane) => (found && this.view.only ? found.of(lane.node) : history.timesOf[lane.node]);
    const visible = this.lanes.map((lane) => {
      const times = shown(lane);
      return [times.lower(this.span.from), times.upper(this.span.to)];
    });
    const count = visible.reduce((sum, [first, last]) => sum + last - first, 0);
    this.isDense = count > DOTS_MAX;
    this.lanes.forEach((lane, place) => {
      const [first, last] = visible[place];
      if (lane.kind === "world") return;
      if (this.isDense) this.#density(lane, shown(lane), first, last);
      else this.#dots(lane);
    });
  }

  #dots(lane) {
    const { run, history, found, cone } = this.stage;
    const { context, theme, view } = this;
    const times = history.timesOf[lane.node];
    const [first, last] = [times.lower(this.span.from), times.upper(this.span.to)];
    const events = history.eventsOf[lane.node];
    const isFew = last - first < 400;
    const radius = 2.6;
    const { groups } = this;
    for (const list of groups.values()) list.length = 0;
    for (let place = first; place < last; place++) {
      const event = events[place];
      if (found && view.only && !found.mask[event]) continue;
      const isFaint = view.cone && cone && cone.side(event) === null;
      const shape = run.shape[event];
      const color = isFaint ? theme.faint
        : run.cause[event] < 0 && run.fate[event] === 0 ? theme.soft
          : theme[CLASSES[history.classOfShape[shape]]];
      if (!groups.has(color)) groups.set(color, []);
      groups.get(color).push(event);
    }
    for (const [color, list] of groups) {
      context.fillStyle = color;
      if (!isFew) {
        let painted = -1;
        for (const event of list) {
          const x = Math.round(this.x(run.at[event]));
          if (x === painted) continue;
          painted = x;
          context.fillRect(x - 1, lane.middle - 1.5, 3, 3);
        }
        continue;
      }
      context.beginPath();
      for (const event of list) {
        const x = this.x(run.at[event]);
        const isArrival = isReceive(run, event);
        if (!isArrival) context.rect(x - 2, lane.middle - 2, 4, 4);
        else {
          context.moveTo(x + radius, lane.middle);
          context.arc(x, lane.middle, radius, 0, 7);
        }
      }
      context.fill();
    }
  }

  #density(lane, times, first, last) {
    const bottom = lane.top + lane.height - 3;
    const room = Math.min(lane.height / 2 - 10, 22);
    if (room < 4 || lane.kind === "client") return;
    const step = 2;
    const perPixel = (this.span.to - this.span.from) / (this.width - GUTTER);
    const color = this.theme.word(this.theme.answer, 0.55);
    let from = first;
    for (let x = GUTTER; x < this.width && from < last; x += step) {
      const to = Math.min(times.upper(this.span.from + (x + step - GUTTER) * perPixel), last);
      if (to > from) {
        const height = Math.min(room, 2 + Math.log2(to - from) * 2.4);
        this.pixels.box(x, bottom - height, step, height, color);
      }
      from = to;
    }
  }

  /** Rare events: shown always, with their names where there is room. */
  #marks() {
    const { run, history } = this.stage;
    const { context, theme } = this;
    const first = history.markTimes.lower(this.span.from);
    const last = history.markTimes.upper(this.span.to);
    if (last - first > MARKS_MAX) {
      this.#ticks();
      return;
    }
    const painted = new Map();
    const labelled = new Map();
    context.font = `11px ${theme.font}`;
    for (let place = first; place < last; place++) {
      const event = history.marks[place];
      const lane = this.layout.byNode.get(run.node[event]);
      if (!lane) continue;
      const x = this.x(run.at[event]);
      const mark = history.markOfShape[run.shape[event]];
      const of = `${lane.node} ${mark}`;
      if (painted.get(of) === Math.round(x)) continue;
      painted.set(of, Math.round(x));
      this.#mark(lane, x, mark);
      if (lane.kind !== "world" || x < (labelled.get(lane) ?? -Infinity)) continue;
      const next = place + 1 < last ? this.x(history.markTimes.times[place + 1]) : this.width;
      const what = run.fields[run.shape[event]]?.[0]?.[run.row[event]];
      const text = run.strings[what] ?? run.shapes[run.shape[event]].kind;
      if (next - x > 50) {
        context.textBaseline = "middle";
        this.#text(text, x + 7, lane.middle, next - x - 12, theme.soft);
        labelled.set(lane, x + 40);
      }
    }
  }

  /** Rare events that cannot be told apart: a tick where there are any, for each kind at a height
   * of its own, so that none covers another. */
  #ticks() {
    for (const { mark, ofNode } of this.stage.history.marksOf) {
      const [top, height] = TICKS[mark] ?? TICKS.other;
      const color = this.theme.word(this.#markColor(mark));
      for (const lane of this.lanes) {
        // Three wide: a line of one, where it is now, leaves something of it.
        this.#columns(ofNode[lane.node].times, (x) =>
          this.pixels.box(x - 1, lane.middle + top, 3, height, color));
      }
    }
  }

  /** Every column of pixels in which there are times. */
  #columns(times, paint) {
    let place = times.lower(this.span.from);
    while (place < times.length && times.times[place] <= this.span.to) {
      const x = Math.round(this.x(times.times[place]));
      paint(x);
      place = Math.max(times.lower(this.timeAt(x + 0.5)), place + 1);
    }
  }

  #markColor(mark) {
    const { theme } = this;
    return {
      leader: theme.leader, election: theme.election, trouble: theme.ink, down: theme.ink,
      start: theme.client, snapshot: theme.snapshot, fault: theme.fault, members: theme.members,
    }[mark];
  }

  #mark(lane, x, mark) {
    const { context } = this;
    const y = lane.middle;
    const color = this.#markColor(mark);
    context.strokeStyle = context.fillStyle = color;
    context.lineWidth = 2;
    context.beginPath();
    if (mark === "leader") {
      context.moveTo(x, y - 15);
      context.lineTo(x + 6, y - 10);
      context.lineTo(x, y - 5);
      context.fill();
      context.fillRect(x - 1, y - 15, 2, 26);
    } else if (mark === "down") {
      context.moveTo(x - 5, y - 5);
      context.lineTo(x + 5, y + 5);
      context.moveTo(x - 5, y + 5);
      context.lineTo(x + 5, y - 5);
      context.stroke();
    } else if (mark === "start") {
      context.moveTo(x - 4, y - 5);
      context.lineTo(x + 5, y);
      context.lineTo(x - 4, y + 5);
      context.fill();
    } else if (mark === "fault") {
      context.moveTo(x, y - 6);
      context.lineTo(x + 5, y + 4);
      context.lineTo(x - 5, y + 4);
      context.fill();
    } else {
      diamond(context, x, y, 5, color);
    }
  }

  #matches() {
    const { found } = this.stage;
    if (!found) return;
    const color = this.theme.word(this.theme.match);
    for (const lane of this.lanes) {
      this.#columns(found.of(lane.node), (x) =>
        this.pixels.box(x - 1, lane.middle - 13, 2, 5, color));
    }
  }

  /** The moment that the panels speak of, and the selected event. */
  #now() {
    const { run, event } = this.stage;
    const { context, theme, view } = this;
    const x = this.x(view.now + this.stage.offset);
    context.strokeStyle = theme.select;
    context.lineWidth = 1;
    context.beginPath();
    const top = this.top + AXIS;
    context.moveTo(x, top - 8);
    context.lineTo(x, this.height);
    context.stroke();
    context.fillStyle = theme.select;
    context.beginPath();
    context.moveTo(x - 5, top - 10);
    context.lineTo(x + 5, top - 10);
    context.lineTo(x, top - 3);
    context.fill();
    if (!view.isSelected || event < 0) return;
    const lane = this.layout.byNode.get(run.node[event]);
    if (!lane) return;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(this.x(run.at[event]), lane.middle, 8, 0, 7);
    context.stroke();
  }

  /** Where two runs part. */
  #divergence() {
    const { parting } = this.stage;
    if (parting == null) return;
    const { context, theme } = this;
    const x = this.x(parting);
    context.strokeStyle = context.fillStyle = theme.members;
    context.lineWidth = 1.5;
    context.setLineDash([6, 4]);
    context.beginPath();
    context.moveTo(x, AXIS);
    context.lineTo(x, this.height);
    context.stroke();
    context.setLineDash([]);
    context.font = `600 11px ${theme.font}`;
    context.textBaseline = "top";
    context.fillText("the runs part here", x + 5, this.top + AXIS + 2);
  }

  #violations() {
    const { run } = this.stage;
    const { context, theme } = this;
    for (const violation of run.violations) {
      const x = this.x(violation.at);
      if (x < GUTTER - 200 || x > this.width + 2) continue;
      context.strokeStyle = context.fillStyle = theme.violation;
      context.lineWidth = 2.5;
      context.beginPath();
      context.moveTo(x, this.top + AXIS - 12);
      context.lineTo(x, this.height);
      context.stroke();
      context.font = `600 12px ${theme.font}`;
      context.textBaseline = "middle";
      const text = violation.check;
      const width = context.measureText(text).width + 14;
      const left = x + width > this.width ? x - width : x;
      context.fillRect(left, this.top + 2, width, 20);
      context.fillStyle = theme.paper;
      context.fillText(text, left + 7, this.top + 12.5);
      const lane = this.layout.byNode.get(violation.nodes[0]);
      if (lane) {
        context.beginPath();
        context.arc(x, lane.middle, 9, 0, 7);
        context.lineWidth = 3;
        context.stroke();
      }
    }
  }

  #labels() {
    const { run, history, event } = this.stage;
    const { context, theme } = this;
    context.textBaseline = "middle";
    context.strokeStyle = theme.line;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(GUTTER - 0.5, AXIS);
    context.lineTo(GUTTER - 0.5, this.height);
    context.stroke();
    for (const lane of this.lanes) {
      const isTall = lane.height > 34;
      context.font = `600 12px ${theme.font}`;
      context.fillStyle = theme.ink;
      context.fillText(lane.name, 12, isTall ? lane.middle - 8 : lane.middle);
      if (lane.kind !== "server" || !isTall) continue;
      const state = history.state(lane.node, event);
      const isDown = state.power !== "up";
      context.font = `11px ${theme.font}`;
      context.fillStyle = isDown ? theme.fault
        : state.role === "leader" ? theme.leader : theme.soft;
      const role = isDown ? state.power : state.role;
      context.fillText(`${role} · term ${state.term}`, 12, lane.middle + 8);
    }
    context.font = `11px ${theme.font}`;
    context.fillStyle = theme.soft;
    const span = this.view.to - this.view.from;
    context.fillText(`${formatSpan(span, run.clock)} in view`, 12, this.top + AXIS / 2);
  }
}

function diamond(context, x, y, size, color) {
  context.fillStyle = color;
  context.beginPath();
  context.moveTo(x, y - size);
  context.lineTo(x + size, y);
  context.lineTo(x, y + size);
  context.lineTo(x - size, y);
  context.fill();
}

/** The nearest of 1, 2, 5, 10, … that is not below. */
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1e-9)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least * 0.999);
}
