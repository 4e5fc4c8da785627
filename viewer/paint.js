// Paints the space-time diagram of one run on a canvas.
//
// What is close together is drawn together: of messages and events as many as can be told apart,
// then how many there are. Faults, elections, lost messages and violations are drawn at every zoom.

import { formatSpan, formatTime, lowerBound, upperBound } from "viewer/base.js";
import { CLASSES, } from "viewer/history.js";
import { isReceive } from "viewer/decode.js";

export const GUTTER = 148;
const AXIS = 30;
const ARROWS_MAX = 3000;
const DOTS_MAX = 6000;
const SPANS_MAX = 3000;

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
    crash: tile(4, (context, size) => {
      context.globalAlpha = 0.75;
      context.fillRect(0, 0, size, size);
    }),
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
    lanes.push({ ...lane, top, height: size[lane.kind], middle: top + size[lane.kind] / 2 });
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
    /** What was drawn where, for the pointer. */
    this.arrows = [];
  }

  resize(width, height, hidden) {
    const ratio = globalThis.devicePixelRatio || 1;
    this.layout = layout(this.stage.run, hidden, height);
    this.width = width;
    this.height = Math.max(height, this.layout.height);
    const [wide, high] = [Math.round(width * ratio), Math.round(this.height * ratio)];
    if (this.canvas.width !== wide || this.canvas.height !== high) {
      this.canvas.width = wide;
      this.canvas.height = high;
      this.canvas.style.height = `${this.height}px`;
    }
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  x(time) {
    const { from, to } = this.span;
    return GUTTER + ((time - from) / (to - from)) * (this.width - GUTTER);
  }

  timeAt(x) {
    const { from, to } = this.span;
    return from + ((x - GUTTER) / (this.width - GUTTER)) * (to - from);
  }

  paint(view, theme) {
    const { context } = this;
    const { offset } = this.stage;
    this.theme = theme;
    this.view = view;
    this.span = { from: view.from + offset, to: view.to + offset };
    this.arrows.length = 0;
    context.fillStyle = theme.paper;
    context.fillRect(0, 0, this.width, this.height);
    this.#lanes();
    context.save();
    context.beginPath();
    context.rect(GUTTER, 0, this.width - GUTTER, this.height);
    context.clip();
    this.#axis();
    this.#cone();
    for (const lane of this.layout.lanes) this.#bands(lane);
    for (const lane of this.layout.lanes) {
      if (lane.kind === "server") this.#spans(lane);
      if (lane.kind === "client") this.#operations(lane);
    }
    this.#messages();
    this.#events();
    this.#marks();
    this.#matches();
    this.#now();
    this.#divergence();
    this.#violations();
    context.restore();
    this.#labels();
  }

  #lanes() {
    const { context, theme } = this;
    this.layout.lanes.forEach((lane, place) => {
      context.fillStyle = place % 2 ? theme.paper : theme.lane;
      context.fillRect(0, lane.top, this.width, lane.height);
    });
    context.strokeStyle = theme.line;
    context.lineWidth = 1;
    context.beginPath();
    for (const lane of this.layout.lanes) {
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
    context.beginPath();
    for (let tick = Math.ceil(from / step) * step; tick <= to; tick += step) {
      const x = Math.round(this.x(tick + offset)) + 0.5;
      context.moveTo(x, AXIS - 6);
      context.lineTo(x, this.height);
      context.fillText(formatTime(tick + offset, clock, step), x + 4, AXIS / 2);
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
    for (const lane of this.layout.lanes) {
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

  #bands(lane) {
    const { context, theme } = this;
    const { from, to } = this.span;
    let row = 0;
    context.font = `italic 11px ${theme.font}`;
    context.textBaseline = "top";
    for (const band of this.stage.history.bandsOf[lane.node]) {
      if (band.to < from || band.from > to) continue;
      const x = Math.max(this.x(band.from), GUTTER - 2);
      const width = Math.max(Math.min(this.x(band.to), this.width + 2) - x, 2);
      context.globalAlpha = band.kind === "crash" ? 0.3 : 0.22;
      context.fillStyle = theme.patterns[band.kind];
      context.fillRect(x, lane.top + 1, width, lane.height - 2);
      context.globalAlpha = 0.5;
      context.fillStyle = theme.fault;
      context.fillRect(x, lane.top + 1, width, 1.5);
      context.globalAlpha = 1;
      if (width > 48) {
        const y = lane.top + 4 + (row++ % 2) * (lane.height - 20);
        this.#text(band.text, Math.max(x, GUTTER) + 4, y, width - 8, theme.fault);
      }
    }
  }

  #text(text, x, y, width, color) {
    const { context } = this;
    context.fillStyle = color;
    let shown = text;
    if (context.measureText(text).width > width) {
      const letters = Math.floor((text.length * width) / context.measureText(text).width) - 1;
      if (letters < 3) return;
      shown = `${text.slice(0, letters)}…`;
    }
    context.fillText(shown, x, y);
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
    const first = Math.max(lowerBound(times, this.span.from) - 1, 0);
    const last = upperBound(times, this.span.to);
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

  #operation(lane, operation, x1, x2) {
    const { context, theme } = this;
    const [top, height] = [lane.top + 4, lane.height - 8];
    context.fillStyle = operation.outcome === "ok" ? theme.client : theme.fault;
    context.globalAlpha *= operation.outcome === "ok" ? 0.3 : 0.25;
    context.fillRect(x1, top, x2 - x1, height);
    context.globalAlpha = Math.min(context.globalAlpha * 4, 1);
    context.strokeStyle = context.fillStyle;
    context.lineWidth = operation === this.view.operation ? 2.5 : 1;
    if (operation.outcome !== "ok") context.setLineDash([3, 3]);
    if (x2 - x1 > 3) context.strokeRect(x1 + 0.5, top + 0.5, x2 - x1 - 1, height - 1);
    context.setLineDash([]);
    if (x2 - x1 > 36) {
      this.#text(operation.text, Math.max(x1, GUTTER) + 6, lane.middle, x2 - x1 - 14, theme.ink);
    }
    if (operation.point !== null && x2 - x1 > 5) {
      diamond(context, this.x(operation.point), lane.middle, 4.5, theme.ink);
    }
  }

  /** Arrivals as arrows, by class while there is room; lost sends as broken ones. */
  #messages() {
    const { run, history, found, cone } = this.stage;
    const { theme, view } = this;
    let room = ARROWS_MAX;
    this.hiddenClasses = [];
    for (let place = 0; place < CLASSES.length; place++) {
      const { events, times, usual, slow } = history.arrivals[place];
      const first = lowerBound(times, this.span.from);
      const last = upperBound(times, this.span.to + usual);
      if (last - first > room) {
        this.hiddenClasses.push(CLASSES[place]);
        continue;
      }
      room -= last - first;
      const list = Array.from(events.subarray(first, last)).concat(
        slow.filter((event) => run.at[event] > this.span.to + usual
          && run.at[run.cause[event]] < this.span.to));
      const isShown = (event) => !found || !view.only || found.mask[event]
        || found.mask[run.cause[event]];
      const sides = view.cone && cone
        ? (event) => cone.side(event) !== null && cone.side(run.cause[event]) !== null
        : () => true;
      this.#arrows(list.filter((event) => isShown(event) && sides(event)), theme[CLASSES[place]],
        place > 3 ? 0.45 : 0.8);
      if (view.cone && cone) {
        this.#arrows(list.filter((event) => isShown(event) && !sides(event)), theme.faint, 0.35);
      }
    }
    this.#lost();
  }

  #arrows(events, color, alpha) {
    const { run } = this.stage;
    const { context } = this;
    const { byNode } = this.layout;
    context.strokeStyle = context.fillStyle = color;
    context.globalAlpha = alpha;
    context.lineWidth = 1.1;
    context.beginPath();
    const heads = events.length < 500;
    const tips = [];
    for (const event of events) {
      const send = run.cause[event];
      const [from, to] = [byNode.get(run.node[send]), byNode.get(run.node[event])];
      if (!from || !to) continue;
      const [x1, x2] = [this.x(run.at[send]), this.x(run.at[event])];
      context.moveTo(x1, from.middle);
      context.lineTo(x2, to.middle);
      if (events.length < 1500) this.arrows.push({ x1, y1: from.middle, x2, y2: to.middle, event });
      if (heads) tips.push([x1, from.middle, x2, to.middle]);
    }
    context.stroke();
    for (const [x1, y1, x2, y2] of tips) arrowHead(context, x1, y1, x2, y2);
    context.globalAlpha = 1;
  }

  #lost() {
    const { run, history, found } = this.stage;
    const { context, theme, view } = this;
    const { byNode } = this.layout;
    const first = lowerBound(history.lostTimes, this.span.from);
    const last = upperBound(history.lostTimes, this.span.to);
    const isCrowded = last - first > 600;
    const reach = isCrowded ? 5 : 18;
    let painted = new Map();
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
      if (isCrowded && painted.get(from) === Math.round(x)) continue;
      painted.set(from, Math.round(x));
      const down = to && to.middle < from.middle ? -1 : 1;
      const y = from.middle + down * (reach + 3);
      // Broken: a dash, a gap, a dash, and a cross where it ends.
      context.moveTo(x, from.middle + down * 3);
      context.lineTo(x + reach * 0.15, from.middle + down * reach * 0.4);
      context.moveTo(x + reach * 0.22, from.middle + down * reach * 0.6);
      context.lineTo(x + reach * 0.36, y);
      if (!isCrowded) {
        const end = x + reach * 0.36;
        context.moveTo(end - 3, y - 3);
        context.lineTo(end + 3, y + 3);
        context.moveTo(end - 3, y + 3);
        context.lineTo(end + 3, y - 3);
        this.arrows.push({ x1: x, y1: from.middle, x2: end, y2: y, event: send });
      }
    }
    context.stroke();
  }

  /** Every event as a dot while they can be told apart, else how many there are. */
  #events() {
    const { history } = this.stage;
    const visible = this.layout.lanes.map((lane) => {
      const times = history.timesOf[lane.node];
      return [lowerBound(times, this.span.from), upperBound(times, this.span.to)];
    });
    const count = visible.reduce((sum, [first, last]) => sum + last - first, 0);
    this.isDense = count > DOTS_MAX;
    this.layout.lanes.forEach((lane, place) => {
      const [first, last] = visible[place];
      if (lane.kind === "world") return;
      if (this.isDense) this.#density(lane, first, last);
      else this.#dots(lane, first, last);
    });
  }

  #dots(lane, first, last) {
    const { run, history, found, cone } = this.stage;
    const { context, theme, view } = this;
    const events = history.eventsOf[lane.node];
    const isFew = last - first < 400;
    const radius = isFew ? 2.6 : 1.6;
    const groups = new Map();
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
      context.beginPath();
      for (const event of list) {
        const x = this.x(run.at[event]);
        const isArrival = isReceive(run, event);
        if (isFew && !isArrival) context.rect(x - 2, lane.middle - 2, 4, 4);
        else {
          context.moveTo(x + radius, lane.middle);
          context.arc(x, lane.middle, radius, 0, 7);
        }
      }
      context.fill();
    }
  }

  #density(lane, first, last) {
    const { context, theme } = this;
    const times = this.stage.history.timesOf[lane.node];
    const bottom = lane.top + lane.height - 3;
    const room = Math.min(lane.height / 2 - 10, 22);
    if (room < 4 || lane.kind === "client") return;
    const step = 2;
    const perPixel = (this.span.to - this.span.from) / (this.width - GUTTER);
    context.fillStyle = theme.answer;
    context.globalAlpha = 0.55;
    context.beginPath();
    let from = first;
    for (let x = GUTTER; x < this.width && from < last; x += step) {
      const to = upperBound(times, this.span.from + (x + step - GUTTER) * perPixel, from, last);
      if (to > from) {
        const height = Math.min(room, 2 + Math.log2(to - from) * 2.4);
        context.rect(x, bottom - height, step, height);
      }
      from = to;
    }
    context.fill();
    context.globalAlpha = 1;
  }

  /** Rare events: shown always, with their names where there is room. */
  #marks() {
    const { run, history } = this.stage;
    const { context, theme } = this;
    const first = lowerBound(history.markTimes, this.span.from);
    const last = upperBound(history.markTimes, this.span.to);
    const painted = new Map();
    const labelled = new Map();
    context.font = `11px ${theme.font}`;
    for (let place = first; place < last; place++) {
      const event = history.marks[place];
      const lane = this.layout.byNode.get(run.node[event]);
      if (!lane) continue;
      const x = this.x(run.at[event]);
      const mark = history.markOfShape[run.shape[event]];
      const spot = `${lane.node} ${mark} ${Math.round(x)}`;
      if (painted.has(spot)) continue;
      painted.set(spot, true);
      this.#mark(lane, x, mark);
      if (lane.kind !== "world" || x < (labelled.get(lane) ?? -Infinity)) continue;
      const next = place + 1 < last ? this.x(history.markTimes[place + 1]) : this.width;
      const what = run.fields[run.shape[event]]?.[0]?.[run.row[event]];
      const text = run.strings[what] ?? run.shapes[run.shape[event]].kind;
      if (next - x > 50) {
        context.textBaseline = "middle";
        this.#text(text, x + 7, lane.middle, next - x - 12, theme.soft);
        labelled.set(lane, x + 40);
      }
    }
  }

  #mark(lane, x, mark) {
    const { context, theme } = this;
    const y = lane.middle;
    const color = {
      leader: theme.leader, election: theme.election, trouble: theme.ink, down: theme.ink,
      start: theme.client, snapshot: theme.snapshot, fault: theme.fault, members: theme.members,
    }[mark];
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
    const { run, found } = this.stage;
    if (!found) return;
    const { context, theme } = this;
    const painted = new Set();
    context.strokeStyle = theme.match;
    context.lineWidth = 2;
    const first = lowerBound(found.events, this.stage.history.eventAt(this.span.from));
    const last = upperBound(found.events, this.stage.history.eventAt(this.span.to));
    context.beginPath();
    for (let place = first; place < last; place++) {
      const event = found.events[place];
      const lane = this.layout.byNode.get(run.node[event]);
      if (!lane) continue;
      const x = Math.round(this.x(run.at[event]));
      const spot = x * 65536 + lane.node;
      if (painted.has(spot)) continue;
      painted.add(spot);
      context.moveTo(x, lane.middle - 13);
      context.lineTo(x, lane.middle - 8);
    }
    context.stroke();
  }

  /** The moment that the panels speak of, and the selected event. */
  #now() {
    const { run, event } = this.stage;
    const { context, theme, view } = this;
    const x = this.x(view.now + this.stage.offset);
    context.strokeStyle = theme.select;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(x, AXIS - 8);
    context.lineTo(x, this.height);
    context.stroke();
    context.fillStyle = theme.select;
    context.beginPath();
    context.moveTo(x - 5, AXIS - 10);
    context.lineTo(x + 5, AXIS - 10);
    context.lineTo(x, AXIS - 3);
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
    context.fillText("the runs part here", x + 5, AXIS + 2);
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
      context.moveTo(x, AXIS - 12);
      context.lineTo(x, this.height);
      context.stroke();
      context.font = `600 12px ${theme.font}`;
      context.textBaseline = "middle";
      const text = violation.check;
      const width = context.measureText(text).width + 14;
      const left = x + width > this.width ? x - width : x;
      context.fillRect(left, 2, width, 20);
      context.fillStyle = theme.paper;
      context.fillText(text, left + 7, 12.5);
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
    for (const lane of this.layout.lanes) {
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
    context.fillText(`${formatSpan(span, run.clock)} in view`, 12, AXIS / 2);
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

function arrowHead(context, x1, y1, x2, y2) {
  const length = Math.hypot(x2 - x1, y2 - y1) || 1;
  const [dx, dy] = [(x2 - x1) / length, (y2 - y1) / length];
  const [x, y] = [x2 - dx * 3, y2 - dy * 3];
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(x - dx * 7 - dy * 3, y - dy * 7 + dx * 3);
  context.lineTo(x - dx * 7 + dy * 3, y - dy * 7 - dx * 3);
  context.fill();
}

/** The nearest of 1, 2, 5, 10, … that is not below. */
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1e-9)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least * 0.999);
}
