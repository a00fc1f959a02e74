import { TranslationBundle } from '@jupyterlab/translation';

const MINUTE_S = 60;
const HOUR_S = 60 * MINUTE_S;
const DAY_S = 24 * HOUR_S;

/** A duration for people, no finer than they care for: `45 s`, `12 min`, `3 h`, `2 d`. */
export function readableDuration(
  seconds: number,
  trans: TranslationBundle
): string {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < MINUTE_S) {
    return trans.__('%1 s', whole);
  }
  if (whole < HOUR_S) {
    return trans.__('%1 min', Math.floor(whole / MINUTE_S));
  }
  if (whole < DAY_S) {
    return trans.__('%1 h', Math.floor(whole / HOUR_S));
  }
  return trans.__('%1 d', Math.floor(whole / DAY_S));
}
