// What happened before an event and because of it: its causal cone.
//
// Happened-before is the order of each node's own events and the arrow from every send to its
// arrivals. So a cone is one event for each node: the last that is before, the first that is after.

/** For each node, its last event that happened before `event`; -1 if none did. */
export function past(run, event) {
  const bound = new Int32Array(run.nodes.length).fill(-1);
  bound[run.node[event]] = event;
  for (let one = event; one >= 0; one--) {
    if (one > bound[run.node[one]]) continue;
    const cause = run.cause[one];
    if (cause >= 0 && cause > bound[run.node[cause]]) bound[run.node[cause]] = cause;
  }
  return bound;
}

/** For each node, its first event that `event` happened before; Infinity if there is none. */
export function future(run, event) {
  const bound = new Float64Array(run.nodes.length).fill(Infinity);
  bound[run.node[event]] = event;
  for (let one = event + 1; one < run.count; one++) {
    const cause = run.cause[one];
    const node = run.node[one];
    if (cause >= 0 && cause >= bound[run.node[cause]] && one < bound[node]) bound[node] = one;
  }
  return bound;
}

/** The cone of an event. */
export function coneOf(run, event) {
  const before = past(run, event);
  const after = future(run, event);
  return {
    event, before, after,
    /** "past", "future", or null for what is concurrent. */
    side(other) {
      const node = run.node[other];
      if (other <= before[node]) return "past";
      if (other >= after[node]) return "future";
      return null;
    },
  };
}
