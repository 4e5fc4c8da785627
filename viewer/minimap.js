// The whole run in a strip: how much happened, who led, what was wrong, and which part is in view.

import { lowerBound } from "viewer/base.js";
import { GUTTER } from "viewer/paint.js";

export class Minimap {
  constructor(canvas, stage, onMove) {
    this.canvas = canvas;
    this.stage = stage;
    this.context = canvas.getContext("2d");
    const move = (event) => {
      const box = canvas.getBoundingClientRect();
      const share = (event.clientX - box.left - GUTTER) / (box.width - GUTTER);
      onMove(share * stage.history.end - stage.offset);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      move(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.buttons & 1) move(event);
    });
  }

  paint(view, theme, width) {
    const height = 44;
    const ratio = globalThis.devicePixelRatio || 1;
    const key = `${width} ${theme.paper} ${ratio}`;
    if (this.key !== key) {
      this.key = key;
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      this.base = new OffscreenCanvas(this.canvas.width, this.canvas.height);
      const context = this.base.getContext("2d");
      context.scale(ratio, ratio);
      this.#base(context, theme, width, height);
    }
    const { context } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(this.base, 0, 0);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const x = (time) =>
      GUTTER + ((time + this.stage.offset) / this.stage.history.end) * (width - GUTTER);
    const [from, to] = [Math.max(x(view.from), GUTTER), Math.min(x(view.to), width)];
    context.fillStyle = theme.paper;
    context.globalAlpha = 0.6;
    context.fillRect(GUTTER, 0, from - GUTTER, height);
    context.fillRect(to, 0, width - to, height);
    context.globalAlpha = 1;
    context.strokeStyle = theme.select;
    context.lineWidth = 1.5;
    context.strokeRect(from, 1, Math.max(to - from, 3), height - 2);
    context.fillRect(x(view.now), 0, 1, height);
    this.#violations(context, theme, x, height);
  }

  #base(context, theme, width, height) {
    const { run, history } = this.stage;
    const wide = width - GUTTER;
    const x = (time) => GUTTER + (time / history.end) * wide;
    context.fillStyle = theme.lane;
    context.fillRect(0, 0, width, height);
    context.fillStyle = theme.soft;
    context.font = `11px ${theme.font}`;
    context.textBaseline = "middle";
    context.fillText("whole run", 12, height / 2);
    context.fillStyle = theme.fault;
    context.globalAlpha = 0.16;
    for (const band of run.bands) {
      context.fillRect(x(band.from), 0, Math.max(x(band.to) - x(band.from), 1), height);
    }
    context.globalAlpha = 0.8;
    context.fillStyle = theme.answer;
    let from = 0;
    for (let pixel = 0; pixel < wide; pixel++) {
      const to = lowerBound(run.at, ((pixel + 1) / wide) * history.end, from);
      const size = to > from ? Math.min(2 + Math.log2(to - from) * 2.6, height - 14) : 0;
      context.fillRect(GUTTER + pixel, height - size, 1, size);
      from = to;
    }
    context.globalAlpha = 1;
    context.fillStyle = theme.leader;
    for (const server of history.servers) {
      if (!server) continue;
      const { spans } = server;
      for (let place = 0; place < spans.from.length; place++) {
        if (spans.role[place] !== 3 || spans.power[place] === 1) continue;
        const left = x(spans.from[place]);
        context.fillRect(left, 3, Math.max(x(spans.to[place]) - left - 1, 1), 4);
      }
    }
  }

  #violations(context, theme, x, height) {
    context.fillStyle = theme.violation;
    for (const violation of this.stage.run.violations) {
      context.fillRect(x(violation.at - this.stage.offset) - 1.5, 0, 3, height);
    }
  }
}
