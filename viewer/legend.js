// A short legend: what each sign of the diagram means.

import { make } from "viewer/base.js";

const WIDE = 30;
const HIGH = 14;

/** The legend in these colours. */
export function legend(theme) {
  const line = (color, alpha = 1) => (context) => {
    context.globalAlpha = alpha;
    context.strokeStyle = color;
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(2, 2);
    context.lineTo(28, 12);
    context.stroke();
  };
  const box = (fill, height) => (context) => {
    context.fillStyle = fill;
    context.fillRect(0, (HIGH - height) / 2, WIDE, height);
  };
  const band = (kind, alpha) => (context) => {
    context.globalAlpha = alpha;
    context.fillStyle = theme.patterns[kind];
    context.fillRect(0, 0, WIDE, HIGH);
  };
  const rows = [
    ["leads", box(theme.leader, 12)],
    ["campaigns", box(theme.election, 7)],
    ["entries", line(theme.append)],
    ["votes", line(theme.election)],
    ["clients", line(theme.client)],
    ["heartbeats, answers", line(theme.answer, 0.7)],
    ["lost message", lost(theme)],
    ["client operation ◆ effect", operation(theme)],
    ["down", band("crash", 0.5)],
    ["stands still", band("pause", 0.8)],
    ["cut off", band("partition", 0.8)],
    ["links held back", band("link", 0.8)],
    ["disk trouble", band("disk", 0.8)],
    ["clock wrong", band("clock", 0.8)],
    ["rule broken", box(theme.violation, 14)],
    ["fault from the plan", fault(theme)],
  ];
  return make("ul", {}, ...rows.map(([text, draw]) => make("li", {}, sample(draw), text)));
}

function sample(draw) {
  const ratio = globalThis.devicePixelRatio || 1;
  const canvas = make("canvas", { width: WIDE * ratio, height: HIGH * ratio, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  draw(context);
  return canvas;
}

const lost = (theme) => (context) => {
  context.strokeStyle = theme.fault;
  context.lineWidth = 1.3;
  context.beginPath();
  for (const [x1, y1, x2, y2] of [[3, 2, 9, 5], [13, 7, 19, 10], [16, 7, 22, 13], [16, 13, 22, 7]]) {
    context.moveTo(x1, y1);
    context.lineTo(x2, y2);
  }
  context.stroke();
};

const operation = (theme) => (context) => {
  context.fillStyle = theme.client;
  context.globalAlpha = 0.3;
  context.fillRect(0, 1, WIDE, 12);
  context.globalAlpha = 1;
  context.fillStyle = theme.ink;
  context.beginPath();
  context.moveTo(15, 3);
  context.lineTo(19, 7);
  context.lineTo(15, 11);
  context.lineTo(11, 7);
  context.fill();
};

const fault = (theme) => (context) => {
  context.fillStyle = theme.fault;
  context.beginPath();
  context.moveTo(15, 2);
  context.lineTo(20, 12);
  context.lineTo(10, 12);
  context.fill();
};
