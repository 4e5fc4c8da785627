// The keyboard: every key, what it does, and the help that says so.

import { make } from "viewer/base.js";

/** Key, name of the action in `app`, what it does. */
export const KEYS = [
  ["?", "help", "show or hide this help"],
  ["v", "nextViolation", "jump to the first violation, then to the next"],
  ["/", "focusSearch", "search: kind:Append node:server1 term:3 key:k2 fate:lost, or any text"],
  ["n", "nextMatch", "next match"],
  ["N", "previousMatch", "previous match"],
  ["o", "toggleOnly", "show only what matches"],
  ["c", "toggleCone", "highlight what happened before and because of the selected event"],
  ["ArrowRight", "nextEvent", "next event"],
  ["ArrowLeft", "previousEvent", "previous event"],
  ["ArrowDown", "nextHere", "next event of the same node"],
  ["ArrowUp", "previousHere", "previous event of the same node"],
  ["m", "nextMark", "next rare event: fault, election, crash, start"],
  ["M", "previousMark", "previous rare event"],
  ["Enter", "follow", "follow the message: from its send to its arrival, or back"],
  ["w", "zoomIn", "zoom in"],
  ["s", "zoomOut", "zoom out"],
  ["a", "panLeft", "move left"],
  ["d", "panRight", "move right"],
  ["f", "frame", "bring the selected event into view, close up"],
  ["0", "whole", "see the whole run"],
  ["Home", "firstEvent", "first event"],
  ["End", "lastEvent", "last event"],
  [" ", "play", "play, pause"],
  [".", "faster", "play faster"],
  [",", "slower", "play slower"],
  ["1", "tabEvent", "panel: the selected event"],
  ["2", "tabKey", "panel: the history of a key"],
  ["3", "tabFilter", "panel: what is shown"],
  ["4", "tabLive", "panel: what can be done to a live run"],
  ["r", "liveRun", "live: run, pause"],
  ["e", "liveStep", "live: one event more"],
  ["E", "liveSkip", "live: ten milliseconds more"],
  ["b", "liveBranch", "live: go on from the moment that is looked at"],
  ["P", "liveSave", "live: save what was done as a plan"],
  ["l", "toggleLogs", "show or hide the logs of all servers"],
  ["[", "logsBack", "earlier entries of the logs"],
  ["]", "logsForth", "later entries of the logs"],
  ["t", "toggleTable", "table instead of diagram, for reading line by line"],
  ["x", "otherRun", "the other run, when two are compared"],
  ["p", "partingEvent", "where two runs part"],
  ["k", "theme", "light, dark"],
  ["y", "copyLink", "copy the address of exactly this view"],
  ["Escape", "escape", "close help, leave the search, clear the selection"],
];

const SHOWN = { " ": "space", ArrowRight: "→", ArrowLeft: "←", ArrowDown: "↓", ArrowUp: "↑" };

/** Handles keys for `app`; those typed into a field are the field's, but for Escape. */
export function listen(app) {
  const actions = new Map(KEYS.map(([key, action]) => [key, action]));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isField = event.target.matches("input, select, textarea");
    if (isField && event.key !== "Escape") return;
    // A focused button has its own meaning for these two.
    if (event.target.matches("button, summary") && (event.key === "Enter" || event.key === " ")) return;
    const action = actions.get(event.key);
    if (!action) return;
    event.preventDefault();
    app[action]();
  });
}

export function helpList() {
  return make("dl", { class: "keys" }, ...KEYS.flatMap(([key, , text]) =>
    [make("dt", {}, make("kbd", {}, SHOWN[key] ?? key)), make("dd", {}, text)]));
}
