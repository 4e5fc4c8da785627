// The pointer on a diagram: move, zoom, look and click.

import { byId, formatTime, make } from "viewer/base.js";
import { headline } from "viewer/panels.js";
import { GUTTER } from "viewer/paint.js";

const REACH = 9;

export class Pointer {
  constructor(app, stage, number) {
    this.app = app;
    this.stage = stage;
    this.number = number;
    const { canvas } = stage;
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointerleave", () => this.#hide());
  }

  #at(event) {
    const box = this.stage.canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top + this.stage.scroll.scrollTop };
  }

  #wheel(event) {
    event.preventDefault();
    const { x } = this.#at(event);
    const lines = event.deltaMode === 1 ? 16 : 1;
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      this.app.pan(((event.deltaX || event.deltaY) * lines) / 1200);
      return;
    }
    const time = this.stage.painter.timeAt(x) - this.stage.offset;
    this.app.zoom(Math.exp(event.deltaY * lines * 0.0016), time);
  }

  #down(event) {
    this.app.active = this.number;
    this.start = { ...this.#at(event), from: this.app.view.from, to: this.app.view.to, moved: false };
    this.stage.canvas.setPointerCapture(event.pointerId);
    this.#hide();
  }

  #move(event) {
    const at = this.#at(event);
    if (!this.start) {
      this.#look(at, event);
      return;
    }
    const { from, to, x } = this.start;
    if (Math.abs(at.x - x) > 3) this.start.moved = true;
    if (!this.start.moved) return;
    const by = ((at.x - x) / (this.stage.painter.width - GUTTER)) * (to - from);
    this.app.show(from - by, to - by);
  }

  #up(event) {
    const { start } = this;
    this.start = null;
    if (!start || start.moved) return;
    const at = this.#at(event);
    const { app } = this;
    app.changed("chrome");
    const hit = this.hit(at);
    if (hit?.operation) {
      app.chooseOperation(hit.operation);
      return;
    }
    app.view.tab = "event";
    if (hit?.event !== undefined) app.go(hit.event);
    else if (at.x > GUTTER) app.goTime(this.stage.painter.timeAt(at.x) - this.stage.offset);
  }

  /** What is at a place: an event, an arrow, an operation, or a band. */
  hit({ x, y }) {
    const { painter, history, run } = this.stage;
    if (x < GUTTER) return null;
    const time = painter.timeAt(x);
    const lane = painter.layout.lanes.find((one) => y >= one.top && y < one.top + one.height);
    if (lane) {
      const event = this.#nearest(lane, x, time);
      const isNear = event >= 0 && Math.abs(painter.x(run.at[event]) - x) < REACH;
      if (isNear && (lane.kind !== "server" || Math.abs(y - lane.middle) < 14)) return { event };
    }
    const arrow = painter.arrows.nearest(x, y, 6);
    if (arrow >= 0) return { event: arrow };
    if (!lane) return null;
    const operation = history.operationsOf[lane.node].find((one) =>
      one.from <= time && time <= (one.to ?? history.end));
    if (operation) return { operation };
    const bands = [...history.bandsOf[lane.node].values()].flatMap(({ bands }) => bands)
      .filter((one) => one.from <= time && time <= one.to);
    return bands.length ? { bands } : null;
  }

  /** Rare events win over others that are as near. */
  #nearest(lane, x, time) {
    const { painter, history, run } = this.stage;
    const rare = history.marks.filter((event) =>
      run.node[event] === lane.node && Math.abs(painter.x(run.at[event]) - x) < REACH);
    return rare.length ? rare[0] : history.nearest(lane.node, time);
  }

  #look(at, event) {
    const hit = this.hit(at);
    const { run, history } = this.stage;
    const text = hit?.event !== undefined
      ? `${headline(history, hit.event)} · ${formatTime(run.at[hit.event], run.clock, 1000)}`
      : hit?.operation ? `${hit.operation.text}: ${hit.operation.outcome}`
        : hit?.bands?.map((band) => band.text).join("; ");
    this.stage.canvas.style.cursor = hit && !hit.bands ? "pointer" : "default";
    if (!text) {
      this.#hide();
      return;
    }
    let tip = byId("tip");
    if (!tip) {
      tip = make("div", { id: "tip" });
      document.body.append(tip);
    }
    tip.textContent = text;
    tip.hidden = false;
    tip.style.left = `${Math.min(event.clientX + 12, innerWidth - 350)}px`;
    tip.style.top = `${event.clientY + 16}px`;
  }

  #hide() {
    const tip = byId("tip");
    if (tip) tip.hidden = true;
  }
}
