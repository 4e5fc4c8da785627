// Sorted times that are looked up again and again: by a table of where each stretch of time begins,
// made once, so that a look-up costs the same few steps however many times there are.

import { lowerBound, upperBound } from "viewer/base.js";

const STRETCHES_MAX = 1 << 16;

export class Times {
  /** Of a sorted array of times that are not below zero. */
  constructor(times) {
    this.times = times;
    this.length = times.length;
    const count = Math.min(Math.max(times.length >> 1, 1), STRETCHES_MAX);
    const last = times.length === 0 ? 0 : times[times.length - 1];
    this.scale = last > 0 ? count / last : 0;
    this.count = count;
    /** How many times lie in earlier stretches; the last stretch has the latest time. */
    this.before = new Uint32Array(count + 2);
    let place = 0;
    for (let stretch = 1; stretch <= count; stretch++) {
      while (place < times.length && times[place] * this.scale < stretch) place++;
      this.before[stretch] = place;
    }
    this.before[count + 1] = times.length;
  }

  /** Place of the first time that is not below `value`. */
  lower(value) {
    if (!(value > 0)) return 0;
    const stretch = Math.floor(value * this.scale);
    if (stretch > this.count) return this.length;
    return lowerBound(this.times, value, this.before[stretch], this.before[stretch + 1]);
  }

  /** Place of the first time that is above `value`. */
  upper(value) {
    if (value < 0) return 0;
    const stretch = Math.floor(value * this.scale);
    if (stretch > this.count) return this.length;
    return upperBound(this.times, value, this.before[stretch], this.before[stretch + 1]);
  }
}
