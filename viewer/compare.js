// Two runs beside each other: where they part.

import { fieldsOf, isReceive, kindOf } from "viewer/decode.js";

/** Number of the first event that differs; null when the two are the same. */
export function parting(left, right) {
  const count = Math.min(left.count, right.count);
  for (let event = 0; event < count; event++) {
    if (!isEqual(left, right, event)) return event;
  }
  return left.count === right.count ? null : count;
}

function isEqual(left, right, event) {
  return left.at[event] === right.at[event]
    && left.nodes[left.node[event]].name === right.nodes[right.node[event]].name
    && left.cause[event] === right.cause[event]
    && kindOf(left, event) === kindOf(right, event)
    && (isReceive(left, event) || hasEqualFields(left, right, event));
}

function hasEqualFields(left, right, event) {
  const [mine, other] = [fieldsOf(left, event), fieldsOf(right, event)];
  return mine.length === other.length
    && mine.every(([name, value], place) => name === other[place][0] && value === other[place][1]);
}

/**
 * Aligns two stages at the first event that differs: that event is at the same place in both, even
 * if their clocks differ there.
 */
export function align(stages) {
  const [left, right] = stages;
  const event = parting(left.run, right.run);
  if (event === null) return null;
  const at = (run) => (run.count === 0 ? 0 : run.at[Math.min(event, run.count - 1)]);
  left.offset = 0;
  right.offset = at(right.run) - at(left.run);
  left.parting = at(left.run);
  right.parting = at(right.run);
  return event;
}
