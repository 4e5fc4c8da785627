// A run that goes on while it is looked at: commands to the program that runs it, and its answers.
//
// One command is under way at a time; "look" asks for what is new as soon as the last is painted.

import { byId, formatTime, make } from "viewer/base.js";
import { decodeBytes } from "viewer/decode.js";

const SPEEDS = [[0.0001, "1/10 000"], [0.001, "1/1000"], [0.01, "1/100"], [0.1, "1/10"], [1, "1"], [10, "10"]];

/** Whether the page was served by a program that still runs. */
export const isLive = () => document.querySelector("meta[name=kvraft-live]") !== null;

export class Live {
  constructor(app) {
    this.app = app;
    this.status = { now: 0, running: false, speed: 0.1, ending: null, error: null, done: [] };
    this.waiting = [];
    this.chosen = new Set();
    /** Answers so far: for whoever drives the page. */
    this.answers = 0;
    byId("live-bar").hidden = false;
    byId("tab-live").hidden = false;
    byId("live-speed").replaceChildren(...SPEEDS.map(([value, text]) =>
      make("option", { value, selected: value === 0.1 }, `${text} × real time`)));
    byId("live-speed").addEventListener("change", (event) =>
      this.tell({ do: "speed", speed: Number(event.target.value) }));
    this.opened = new Promise((done) => { this.onOpen = done; });
    this.socket = new WebSocket(`ws://${location.host}/live`);
    this.socket.binaryType = "arraybuffer";
    this.socket.addEventListener("open", () => this.tell({ do: "look" }));
    this.socket.addEventListener("message", ({ data }) => this.#heard(data));
    this.socket.addEventListener("close", () => {
      this.status = { ...this.status, running: false, ending: "the program has ended" };
      this.show();
    });
  }

  /** Sends a command after those before it are answered. */
  tell(command) {
    this.waiting.push(command);
    if (!this.isAsking) this.#next();
  }

  #next() {
    const command = this.waiting.shift();
    this.isAsking = command !== undefined;
    if (this.isAsking) this.socket.send(JSON.stringify(command));
  }

  async #heard(data) {
    if (typeof data === "string") {
      this.status = JSON.parse(data);
      if (this.status.plan === null) return;
      this.#save(this.status.plan);
    } else {
      this.app.replaceRun(await decodeBytes(data), this.status.now);
    }
    this.answers += 1;
    this.show();
    this.onOpen();
    requestAnimationFrame(() => {
      if (this.status.running && this.waiting.length === 0) this.waiting.push({ do: "look" });
      this.#next();
    });
  }

  /** Keeps the plan in a file. */
  #save(plan) {
    this.saved = plan;
    const address = URL.createObjectURL(new Blob([plan], { type: "text/plain" }));
    make("a", { href: address, download: "live.plan" }).click();
    URL.revokeObjectURL(address);
  }

  runOrPause() { this.tell({ do: this.status.running ? "pause" : "run" }); }
  step() { this.tell({ do: "step" }); }
  skip() { this.tell({ do: "until", at: Math.round(this.status.now + 1e7) }); }
  save() { this.tell({ do: "plan" }); }
  fault(text) { this.tell({ do: "fault", text }); }

  /** Goes on from the moment that is looked at: what was done after it is undone. */
  branch() {
    this.tell({ do: "back", at: Math.max(Math.round(this.app.view.now), 0) });
  }

  show() {
    const { running, ending, error, now } = this.status;
    byId("live-run").textContent = running ? "❚❚ Pause" : "▶ Run";
    byId("live-now").textContent = `live at ${formatTime(now, "virtual", 1000)}`;
    byId("live-says").textContent = error ?? ending ?? "";
    byId("live-says").className = error || ending ? "says" : "";
    this.app.changed("panel");
  }

  /** Changes when the panel has something else to say. */
  key() {
    const { run, history } = this.app.stages[0];
    const servers = run.nodes.flatMap((node, number) => {
      if (node.kind !== "server") return [];
      const { role, term, power } = history.state(number, run.count - 1);
      return [`${node.name} ${role} ${term} ${power}`];
    });
    return `${servers.join(";")}|${this.status.done.join(";")}`;
  }

  /** The panel: every server with what can be done to it, and what was done. */
  panel() {
    const { run, history } = this.app.stages[0];
    const last = run.count - 1;
    const act = (text, fault, title) => make("button", { type: "button", title: title ?? fault,
      "data-fault": fault, onclick: () => this.fault(fault) }, text);
    const rows = run.nodes.flatMap((node, number) => {
      if (node.kind !== "server") return [];
      const id = node.name.replace(/^\D+/, "");
      const state = history.state(number, last);
      const box = make("input", { type: "checkbox", "aria-label": `${node.name} on one side`,
        checked: this.chosen.has(id),
        onchange: (event) => this.chosen[event.target.checked ? "add" : "delete"](id) });
      const how = state.power === "up" ? `${state.role}, term ${state.term}` : state.power;
      return [make("fieldset", { class: "server" }, make("legend", {}, `${node.name} · ${how}`), box,
        state.power === "down" ? act("Start", `restart ${id}`) : act("Crash", `crash ${id}`),
        state.power === "paused" ? act("Resume", `resume ${id}`) : act("Pause", `pause ${id}`),
        act("Isolate", `partition isolate ${id}`, "cut it off from the other servers"),
        act("Cut off", `disconnect ${id}`, "cut it off from everybody"),
        act("Connect", `reconnect ${id}`))];
    });
    const split = make("button", { type: "button", id: "live-split", onclick: () => {
      if (this.chosen.size > 0) this.fault(`partition split ${[...this.chosen].join(",")}`);
    } }, "Part the ticked from the others");
    const line = make("input", { type: "text", id: "live-line", spellcheck: "false",
      placeholder: "any fault of a plan: slow 2 10", "aria-label": "a fault of a plan" });
    const form = make("form", { class: "links", onsubmit: (event) => {
      event.preventDefault();
      this.fault(line.value);
    } }, line, make("button", {}, "Do it"));
    const done = this.status.done.map((text) => make("li", {}, make("code", {}, text)));
    return [
      make("h2", {}, "Servers, now"), ...rows,
      make("p", { class: "links" }, split, act("Heal all links", "heal")), form,
      make("h2", {}, "What was done"),
      done.length ? make("ol", { class: "done" }, ...done)
        : make("p", { class: "hint" }, "Nothing yet. What you click becomes an item of the plan."),
    ];
  }
}
