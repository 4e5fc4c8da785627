// The viewer: puts a page's runs on the stage and connects what is clicked and typed to what is shown.

import { byId, clamp, formatCount, formatTime, lowerBound, make } from "viewer/base.js";
import { align } from "viewer/compare.js";
import { coneOf } from "viewer/cone.js";
import { decodeText } from "viewer/decode.js";
import { find, step } from "viewer/find.js";
import { History } from "viewer/history.js";
import { helpList, listen } from "viewer/keys.js";
import { legend } from "viewer/legend.js";
import { read, write } from "viewer/link.js";
import { Live, isLive } from "viewer/live.js";
import { Minimap } from "viewer/minimap.js";
import { Painter, Theme, layout } from "viewer/paint.js";
import { eventPanel, headline, keyPanel, logsPanel, operationPanel } from "viewer/panels.js";
import { Pointer } from "viewer/pointer.js";
import { tableView } from "viewer/table.js";

const LOG_ROWS = 60;
/** What times are of. */
const CLOCKS = { virtual: "virtual time", wall: "real time", logical: "in causal order" };
const PLAY_SHARE_PER_SECOND = 0.08;

/** One run on the page, with where it is looked at. */
class Stage {
  constructor(run) {
    this.run = run;
    this.history = new History(run);
    /** Added to the common time gives this run's. */
    this.offset = 0;
    this.parting = null;
    this.event = -1;
    this.found = null;
    this.cone = null;
    this.canvas = make("canvas", { role: "img", "aria-label": `Space-time diagram of ${run.title}; the table view (t) says the same in words` });
    this.strip = make("canvas", { class: "minimap", "aria-hidden": "true" });
    this.whole = make("div", { class: "whole" }, this.canvas);
    this.scroll = make("div", { class: "scroll" }, this.whole);
    this.element = make("div", { class: "stage" },
      make("div", { class: "name" }, run.title), this.scroll, this.strip);
    this.painter = new Painter(this.canvas, this);
  }
}

export class App {
  constructor(runs) {
    this.view = {
      from: 0, to: 1, now: 0, isSelected: false, query: "", only: false, cone: false,
      hidden: new Set(), key: "", tab: "event", table: false, operation: null, logs: true,
      logsBack: 0, speed: 1,
    };
    this.active = 0;
    this.stages = [];
    this.live = null;
    this.dirty = new Set();
    this.playing = null;
    this.themeName = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    this.#connect();
    this.setRuns(runs);
    this.restore(read(location.hash));
    addEventListener("hashchange", () => {
      if (location.hash !== this.written) this.restore(read(location.hash));
    });
  }

  get stage() {
    return this.stages[this.active];
  }

  get end() {
    return Math.max(...this.stages.map((stage) => stage.history.end - stage.offset));
  }

  get begin() {
    return Math.min(...this.stages.map((stage) => -stage.offset));
  }

  setRuns(runs) {
    this.part = null;
    this.violationAt = undefined;
    this.stages = runs.map((run) => new Stage(run));
    this.active = 0;
    if (this.stages.length === 2) this.part = align(this.stages);
    byId("diagrams").replaceChildren(...this.stages.map((stage) => stage.element));
    for (const [number, stage] of this.stages.entries()) {
      stage.minimap = new Minimap(stage.strip, stage, (time) => this.center(time));
      stage.pointer = new Pointer(this, stage, number);
      stage.scroll.addEventListener("scroll", () => this.changed("view"));
    }
    this.view.from = this.begin;
    this.view.to = this.end + (this.end - this.begin) * 0.02;
    this.#describe();
    this.resize();
    const first = this.stages.findIndex((stage) => stage.run.violations.length > 0);
    if (this.part != null) this.partingEvent();
    else if (first >= 0) this.nextViolation();
    else this.goTime(this.end);
    // The key leads to the first one still.
    this.violationAt = undefined;
  }

  /** The run has gone on, or went back: the view goes with its end if that was in view. */
  replaceRun(run, now) {
    const [stage] = this.stages;
    const { view } = this;
    const wasEnd = this.end;
    const isFollowed = !view.isSelected && (wasEnd <= view.to || view.now >= wasEnd);
    stage.run = run;
    stage.history = new History(run);
    stage.history.end = Math.max(now, 1);
    stage.found = find(stage.history, view.query);
    stage.minimap.key = null;
    const isNewLayout = stage.painter.layout.lanes.length !== run.nodes.length - view.hidden.size;
    this.#describe();
    if (isNewLayout) this.resize();
    else stage.painter.layout = layout(run, view.hidden, stage.scroll.clientHeight);
    if (stage.event >= run.count) view.isSelected = false;
    if (isFollowed || view.now > this.end) {
      view.now = this.end;
      view.isSelected = false;
      const span = Math.min(Math.max(view.to - view.from, 3e8), 2e9);
      this.show(this.end - span * 0.92, this.end + span * 0.08);
    }
    if (!view.isSelected) this.#settle();
    this.#refreshCone();
    this.changed("view", "moment", "panel", "chrome");
  }

  // What is shown.

  restore(link) {
    const { view } = this;
    if (link.theme) this.themeName = link.theme;
    this.setTheme(this.themeName);
    view.hidden = new Set((link.hidden ?? "").split(",").filter(Boolean));
    view.only = link.only;
    view.key = link.key ?? "";
    view.tab = link.tab ?? "event";
    view.table = link.table;
    if (link.stage !== undefined && this.stages[link.stage]) this.active = link.stage;
    this.search(link.query ?? "");
    byId("search").value = view.query;
    byId("only").checked = view.only;
    if (link.event !== undefined && link.event < this.stage.run.count) this.go(link.event, false);
    else if (link.now !== undefined) this.goTime(link.now);
    view.cone = link.cone;
    this.#refreshCone();
    if (link.from !== undefined && link.to > link.from) this.show(link.from, link.to);
    this.changed("view", "moment", "panel", "chrome");
  }

  /** Marks parts of the page to be made anew in the next frame. */
  changed(...parts) {
    for (const part of parts) this.dirty.add(part);
    if (this.request) return;
    this.request = requestAnimationFrame(() => {
      this.request = null;
      this.render();
    });
  }

  render() {
    const { dirty } = this;
    this.dirty = new Set();
    const began = performance.now();
    if (!this.view.table) {
      for (const stage of this.stages) {
        stage.painter.paint(this.view, this.colors);
        stage.minimap.paint(this.view, this.colors, this.width);
      }
    }
    this.paintTime = performance.now() - began;
    if (dirty.has("moment")) this.#moment();
    if (dirty.has("panel") || dirty.has("moment")) this.#panel();
    if (dirty.has("chrome")) this.#chrome();
    this.#link();
  }

  resize() {
    const box = byId("diagrams").getBoundingClientRect();
    this.width = Math.max(box.width, 300);
    for (const stage of this.stages) {
      const { clientHeight, clientWidth } = stage.scroll;
      if (clientWidth > 0) stage.painter.resize(clientWidth, clientHeight, this.view.hidden);
      stage.strip.style.height = "44px";
    }
    this.changed("view");
  }

  setTheme(name) {
    this.themeName = name;
    document.documentElement.dataset.theme = name;
    this.colors = new Theme(document.documentElement);
    byId("legend").replaceChildren(legend(this.colors));
    this.changed("view");
  }

  #describe() {
    const { run } = this.stages[0];
    const title = this.stages.map((stage) => stage.run.title).join("  ·  against  ·  ");
    byId("title").textContent = title;
    document.title = `${title} · kvraft`;
    byId("about").replaceChildren(
      `${run.nodes.filter((node) => node.kind === "server").length} servers, `,
      `${run.nodes.filter((node) => node.kind === "client").length} clients, `,
      `${formatCount(run.count)} events, ${CLOCKS[run.clock]}`,
      ...(run.command ? [" · ", make("code", { title: "makes this run again" }, run.command)] : []),
      run.version ? ` · ${run.version}` : "");
    const truncated = this.stages.map((stage) => stage.run.truncated).filter(Boolean);
    byId("truncated").hidden = truncated.length === 0;
    byId("truncated").textContent = `This recording is not whole: ${truncated.join("; ")}.`;
    const broken = this.#violations();
    const verdict = byId("verdict");
    // Of what was not simulated nobody has judged whether it is clean.
    verdict.hidden = broken.length === 0 && run.seed === null;
    verdict.className = broken.length ? "broken" : "clean";
    verdict.textContent = broken.length ? `⚠ ${broken[0].violation.check}: jump`
      : this.live ? "✓ no rule is broken so far" : "✓ no rule was broken";
    verdict.title = broken.length ? broken[0].violation.text : "";
    const kinds = [...new Set(this.stages.flatMap(({ run: { shapes } }) => shapes.map((shape) => shape.kind)))];
    byId("suggestions").replaceChildren(...kinds.sort().map((kind) =>
      make("option", { value: `kind:${kind}` })));
  }

  #violations() {
    return this.stages.flatMap((stage, number) =>
      stage.run.violations.map((violation) => ({ violation, number, stage })));
  }

  #chrome() {
    const { view } = this;
    byId("cone").setAttribute("aria-pressed", view.cone);
    byId("table").setAttribute("aria-pressed", view.table);
    byId("table-host").hidden = !view.table;
    byId("diagrams").hidden = view.table;
    byId("diagrams").style.display = view.table ? "none" : "";
    byId("logs-host").style.display = view.logs ? "" : "none";
    for (const name of ["event", "key", "filter", "live"]) {
      byId(`tab-${name}`).setAttribute("aria-selected", view.tab === name);
    }
    const { found } = this.stage;
    byId("found").textContent = found
      ? `${formatCount(found.events.length)} match${found.events.length === 1 ? "" : "es"}` : "";
    this.stages.forEach((stage, number) =>
      stage.element.classList.toggle("active", this.stages.length > 1 && number === this.active));
    for (const stage of this.stages) {
      stage.element.querySelector(".name").hidden = this.stages.length === 1;
    }
  }

  #moment() {
    const { run, event, offset } = this.stage;
    const time = this.view.now + offset;
    byId("moment").textContent =
      `${formatTime(time, run.clock, 1000)} · event ${formatCount(Math.max(event, 0))}`;
    const share = (this.view.now - this.begin) / (this.end - this.begin);
    byId("scrub").value = String(Math.round(share * 10000));
    byId("scrub").setAttribute("aria-valuetext", formatTime(time, run.clock, 1e6));
    if (this.view.logs) this.#logs();
    if (this.view.table) this.#table();
  }

  #logs() {
    const { table, newest, to } = logsPanel(this.stage, LOG_ROWS, this.view.logsBack, this.view.key);
    this.view.logsBack = clamp(this.view.logsBack, 0, Math.max(newest - 1, 0));
    this.logsAt = to;
    byId("logs").replaceChildren(table);
  }

  #table() {
    byId("table-host").replaceChildren(tableView(this.stage, (event) => this.go(event)));
    byId("table-host").querySelector("tr.selected")?.scrollIntoView({ block: "nearest" });
  }

  #panel() {
    const { view, stage } = this;
    const go = (event) => this.go(event);
    const goTime = (time) => this.goTime(time - stage.offset);
    const choose = (key) => this.chooseKey(key);
    const parts = {
      event: () => (view.operation
        ? operationPanel(stage, view.operation, goTime, choose) : eventPanel(stage, go, choose)),
      key: () => keyPanel(stage, view.key, choose, goTime, (operation) => this.chooseOperation(operation, false)),
      filter: () => this.#filterPanel(),
      live: () => this.live?.panel() ?? [],
    };
    // A button that is made anew between press and release is not clicked.
    const { dataset } = byId("panel");
    const key = view.tab === "live" && this.live ? this.live.key() : "";
    if (key !== "" && dataset.key === key) return;
    dataset.key = key;
    const extra = view.tab === "event" ? this.#verdictParts() : [];
    byId("panel").replaceChildren(...(parts[view.tab] ?? parts.event)(), ...extra);
  }

  /** Verdicts over the whole run belong to no event: they are said when their moment is shown. */
  #verdictParts() {
    const { run, event } = this.stage;
    return run.violations.filter((one) => one.event === null && event >= run.count - 1).map((violation) =>
      make("div", { class: "violation", role: "alert" },
        make("strong", {}, violation.check), make("p", {}, violation.text)));
  }

  #filterPanel() {
    const { view } = this;
    const groups = ["server", "client", "coordinator", "world"].map((kind) => {
      const names = [...new Set(this.stages.flatMap(({ run }) =>
        run.nodes.filter((node) => node.kind === kind).map((node) => node.name)))];
      if (names.length === 0) return null;
      return make("fieldset", {}, make("legend", {}, `${kind}s`), ...names.map((name) => {
        const box = make("input", { type: "checkbox", checked: !view.hidden.has(name),
          onchange: () => this.toggleNode(name) });
        return make("label", {}, box, ` ${name}`);
      }));
    });
    const word = (text) => make("button", { type: "button", class: "link", onclick: () => {
      byId("search").value = text;
      this.search(text);
    } }, text);
    const { run } = this.stage;
    const kinds = [...new Set(run.shapes.map((shape) => shape.kind))].sort();
    return [
      make("h2", {}, "Lanes"), ...groups.filter(Boolean),
      make("h2", {}, "Find"),
      make("p", { class: "links" }, ...["is:rare", "fate:lost", "-kind:Heartbeat"].map(word)),
      make("p", { class: "links" }, ...kinds.map((kind) => word(`kind:${kind}`))),
    ];
  }

  #link() {
    const { view } = this;
    clearTimeout(this.linking);
    this.linking = setTimeout(() => {
      const link = {
        from: Math.round(view.from), to: Math.round(view.to),
        event: view.isSelected ? this.stage.event : null,
        now: view.isSelected ? null : Math.round(view.now),
        query: view.query, only: view.only, cone: view.cone, hidden: [...view.hidden].join(","),
        key: view.key, tab: view.tab === "event" ? "" : view.tab, table: view.table,
        theme: this.themeName, stage: this.active === 0 ? "" : this.active,
      };
      this.written = write(link);
      history.replaceState(null, "", this.written);
    }, 120);
  }

  // Moments and events.

  /** Selects an event of the active run, and brings it into view. */
  go(event, isShown = true) {
    const { stage, view } = this;
    if (event < 0 || event >= stage.run.count) return;
    view.operation = null;
    view.isSelected = true;
    view.logsBack = 0;
    view.now = stage.run.at[event] - stage.offset;
    this.#settle();
    stage.event = event;
    if (isShown) this.#bringIntoView();
    this.#refreshCone();
    byId("live").textContent = `${headline(stage.history, event)}, ${stage.history.name(stage.run.node[event])}`;
    this.changed("view", "moment", "panel");
  }

  /** Every run shows its state at this moment. */
  goTime(time) {
    const { view } = this;
    view.now = clamp(time, this.begin, this.end);
    view.isSelected = false;
    view.operation = null;
    view.logsBack = 0;
    this.#settle();
    this.#bringIntoView();
    this.#refreshCone();
    this.changed("view", "moment", "panel");
  }

  #settle() {
    for (const stage of this.stages) stage.event = stage.history.eventAt(this.view.now + stage.offset);
  }

  #bringIntoView() {
    const { view } = this;
    const margin = (view.to - view.from) * 0.05;
    if (view.now < view.from + margin || view.now > view.to - margin) this.center(view.now);
  }

  #refreshCone() {
    const { view, stage } = this;
    for (const one of this.stages) one.cone = null;
    if (view.cone && view.isSelected && stage.event >= 0) stage.cone = coneOf(stage.run, stage.event);
  }

  show(from, to) {
    const whole = this.end - this.begin;
    const least = this.stage.run.clock === "logical" ? 4 : 2000;
    const span = clamp(to - from, Math.min(least, whole), whole * 1.1);
    const middle = (from + to) / 2;
    const begin = clamp(middle - span / 2, this.begin - span * 0.5, this.end - span * 0.5);
    this.view.from = begin;
    this.view.to = begin + span;
    this.changed("view");
  }

  center(time) {
    const span = this.view.to - this.view.from;
    this.show(time - span / 2, time + span / 2);
  }

  zoom(factor, around = this.view.now) {
    const { from, to } = this.view;
    const fixed = around < from || around > to ? (from + to) / 2 : around;
    this.show(fixed - (fixed - from) * factor, fixed + (to - fixed) * factor);
  }

  pan(share) {
    const span = this.view.to - this.view.from;
    this.show(this.view.from + span * share, this.view.to + span * share);
  }

  // Actions, by the names that `keys` knows.

  help() {
    const dialog = byId("help");
    if (dialog.open) dialog.close();
    else dialog.showModal();
  }

  nextViolation() {
    const all = this.#violations();
    if (all.length === 0) return;
    this.violationAt = this.violationAt === undefined ? 0 : (this.violationAt + 1) % all.length;
    const { violation, number, stage } = all[this.violationAt];
    this.active = number;
    const around = Math.min((this.end - this.begin) / 2, stage.run.clock === "logical" ? 40 : 2e8);
    this.show(violation.at - stage.offset - around, violation.at - stage.offset + around / 3);
    const event = violation.event ?? stage.history.eventAt(violation.at);
    this.view.tab = "event";
    if (event >= 0) this.go(event);
    this.changed("chrome");
  }

  focusSearch() {
    byId("search").focus();
    byId("search").select();
  }

  search(query) {
    this.view.query = query;
    for (const stage of this.stages) stage.found = find(stage.history, query);
    this.changed("view", "panel", "chrome", "moment");
  }

  #match(forward) {
    const { found, event } = this.stage;
    if (found && found.events.length > 0) this.go(step(found, event, forward));
  }

  nextMatch() { this.#match(true); }
  previousMatch() { this.#match(false); }

  toggleOnly() {
    this.view.only = !this.view.only;
    byId("only").checked = this.view.only;
    this.changed("view");
  }

  toggleCone() {
    this.view.cone = !this.view.cone;
    if (this.view.cone && !this.view.isSelected) this.go(this.stage.event);
    this.#refreshCone();
    this.changed("view", "chrome");
  }

  nextEvent() { this.go(Math.min(this.stage.event + 1, this.stage.run.count - 1)); }
  previousEvent() { this.go(Math.max(this.stage.event - 1, 0)); }
  firstEvent() { this.go(0); }
  lastEvent() { this.go(this.stage.run.count - 1); }
  nextHere() { this.#here(1); }
  previousHere() { this.#here(-1); }

  #here(by) {
    const { run, history, event } = this.stage;
    if (event < 0) return;
    const events = history.eventsOf[run.node[event]];
    const place = lowerBound(events, event) + by;
    if (place >= 0 && place < events.length) this.go(events[place]);
  }

  nextMark() { this.#mark(1); }
  previousMark() { this.#mark(-1); }

  #mark(by) {
    const { marks } = this.stage.history;
    const place = by > 0 ? lowerBound(marks, this.stage.event + 1) : lowerBound(marks, this.stage.event) - 1;
    if (place >= 0 && place < marks.length) this.go(marks[place]);
  }

  follow() {
    const { run, history, event } = this.stage;
    if (event < 0) return;
    if (history.arrival[event] >= 0) this.go(history.arrival[event]);
    else if (run.cause[event] >= 0) this.go(run.cause[event]);
  }

  zoomIn() { this.zoom(0.6); }
  zoomOut() { this.zoom(1 / 0.6); }
  panLeft() { this.pan(-0.2); }
  panRight() { this.pan(0.2); }

  frame() {
    const reach = this.stage.run.clock === "logical" ? 20 : 2e7;
    this.show(this.view.now - reach, this.view.now + reach);
  }

  whole() {
    this.show(this.begin, this.end + (this.end - this.begin) * 0.02);
  }

  play() {
    if (this.playing) {
      cancelAnimationFrame(this.playing);
      this.playing = null;
    } else {
      if (this.view.now >= this.end) this.goTime(this.view.from);
      let before = performance.now();
      const advance = (now) => {
        const span = this.view.to - this.view.from;
        const by = ((now - before) / 1000) * span * PLAY_SHARE_PER_SECOND * this.view.speed;
        before = now;
        this.playing = requestAnimationFrame(advance);
        this.goTime(this.view.now + by);
        if (this.view.now >= this.end) this.play();
      };
      this.playing = requestAnimationFrame(advance);
    }
    byId("play").textContent = this.playing ? "❚❚" : "▶";
  }

  faster() { this.view.speed = Math.min(this.view.speed * 2, 64); }
  slower() { this.view.speed = Math.max(this.view.speed / 2, 1 / 64); }

  #tab(name) {
    this.view.tab = name;
    this.changed("panel", "chrome");
  }

  tabEvent() { this.#tab("event"); }
  tabKey() { this.#tab("key"); }
  tabFilter() { this.#tab("filter"); }
  tabLive() { if (this.live) this.#tab("live"); }

  liveRun() { this.live?.runOrPause(); }
  liveStep() { this.live?.step(); }
  liveSkip() { this.live?.skip(); }
  liveBranch() { this.live?.branch(); }
  liveSave() { this.live?.save(); }

  chooseKey(key) {
    this.view.key = key;
    this.view.tab = "key";
    this.changed("view", "panel", "moment", "chrome");
  }

  chooseOperation(operation, isPanel = true) {
    this.view.operation = operation;
    if (isPanel) this.view.tab = "event";
    this.changed("view", "panel", "chrome");
  }

  toggleNode(name) {
    const { hidden } = this.view;
    if (!hidden.delete(name)) hidden.add(name);
    this.resize();
    this.changed("view");
  }

  toggleLogs() {
    this.view.logs = !this.view.logs;
    this.changed("chrome", "moment");
    requestAnimationFrame(() => this.resize());
  }

  logsBack() {
    this.view.logsBack += LOG_ROWS / 2;
    this.changed("moment");
  }

  logsForth() {
    this.view.logsBack = Math.max(this.view.logsBack - LOG_ROWS / 2, 0);
    this.changed("moment");
  }

  toggleTable() {
    this.view.table = !this.view.table;
    this.changed("chrome", "moment", "view");
    requestAnimationFrame(() => this.resize());
  }

  otherRun() {
    if (this.stages.length < 2) return;
    this.active = 1 - this.active;
    this.changed("view", "moment", "panel", "chrome");
  }

  partingEvent() {
    if (this.part == null) return;
    const { run } = this.stage;
    const event = Math.min(this.part, run.count - 1);
    this.go(event);
    const reach = run.clock === "logical" ? 30 : 1e8;
    this.show(this.view.now - reach, this.view.now + reach);
  }

  theme() {
    this.setTheme(this.themeName === "dark" ? "light" : "dark");
  }

  async copyLink() {
    const address = location.href;
    try {
      await navigator.clipboard.writeText(address);
      byId("live").textContent = "The address is copied.";
    } catch {
      prompt("The address of this view:", address);
    }
  }

  escape() {
    if (document.activeElement === byId("search")) {
      byId("search").blur();
      return;
    }
    this.view.isSelected = false;
    this.view.operation = null;
    this.#refreshCone();
    this.changed("view", "panel");
  }

  openOther() {
    byId("file").click();
  }

  /** Compares with the run in another page. */
  async compareWith(file) {
    const page = new DOMParser().parseFromString(await file.text(), "text/html");
    const data = page.querySelector("script[type='application/x-kvraft-run']");
    if (!data) {
      byId("live").textContent = "That file has no run in it.";
      return;
    }
    this.setRuns([this.stages[0].run, await decodeText(data.textContent)]);
    this.search(this.view.query);
    this.changed("view", "moment", "panel", "chrome");
  }

  #connect() {
    listen(this);
    byId("keys").replaceChildren(helpList());
    for (const button of document.querySelectorAll("[data-action]")) {
      button.addEventListener("click", () => this[button.dataset.action]());
    }
    for (const button of document.querySelectorAll("[data-live]")) {
      button.addEventListener("click", () => this.live[button.dataset.live]());
    }
    byId("verdict").addEventListener("click", () => this.nextViolation());
    byId("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.search(byId("search").value);
      this.nextMatch();
    });
    byId("search").addEventListener("input", () => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.search(byId("search").value), 150);
    });
    byId("only").addEventListener("change", () => this.toggleOnly());
    byId("scrub").addEventListener("input", (event) => {
      this.goTime(this.begin + (Number(event.target.value) / 10000) * (this.end - this.begin));
    });
    byId("file").addEventListener("change", (event) => this.compareWith(event.target.files[0]));
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      const [file] = event.dataTransfer.files;
      if (file) this.compareWith(file);
    });
    addEventListener("resize", () => this.resize());
  }
}

async function start() {
  const began = performance.now();
  const data = [...document.querySelectorAll("script[type='application/x-kvraft-run']")];
  const runs = await Promise.all(data.map((element) => decodeText(element.textContent)));
  for (const element of data) element.textContent = "";
  const app = new App(runs.slice(0, 2));
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  app.opened = performance.now() - began;
  if (isLive()) {
    app.live = new Live(app);
    app.tabLive();
    await app.live.opened;
  }
  return app;
}

/** For whoever drives the page: resolves when the first frame is painted. */
globalThis.viewer = start();
