import { ISeries } from './rest';

/** How a sparkline is drawn, in the units of its view box. */
export interface ISparklineShape {
  readonly width: number;
  readonly height: number;
  /** The time that it spans, in seconds. */
  readonly span_s: number;
  /** The number of points that the span is divided into. */
  readonly steps: number;
}

/** The last two minutes. */
export const SPARKLINE: ISparklineShape = {
  width: 64,
  height: 16,
  span_s: 120,
  steps: 24
};

/** How far outside the view box its sides and its bottom run, where they are not seen. */
const OUTSIDE = 3;

/**
 * A series of values as the points of an SVG polygon: the line, and around the area below it; empty where there is
 * nothing to draw. The parts of a line with gaps are joined below the view box.
 *
 * @param top - the value at the upper edge
 * @param end_s - the moment at the right edge, as `edgeAt` tells it
 */
export function sparkline(
  series: Pick<ISeries, 't'> & { readonly values: readonly (number | null)[] },
  top: number,
  end_s: number,
  shape: ISparklineShape
): string {
  const values = byStep(series, end_s, shape);
  if (!values || !(top > 0)) {
    return '';
  }
  const { width, height, steps } = shape;
  const x = (step: number) => round((width * step) / (steps - 1));
  const y = (value: number) =>
    round(height - Math.min(1, Math.max(0, value / top)) * height);
  const bottom = height + OUTSIDE;
  const points: string[] = [];
  let start = -1;
  for (let step = 0; step <= steps; step++) {
    const value = step < steps ? values[step] : null;
    if (value !== null) {
      if (start < 0) {
        start = step;
        const left = step === 0 ? -OUTSIDE : x(step);
        points.push(`${left},${bottom}`, `${left},${y(value)}`);
      }
      points.push(`${x(step)},${y(value)}`);
    } else if (start >= 0) {
      const right = step === steps ? width + OUTSIDE : x(step - 1);
      points.push(`${right},${y(values[step - 1]!)}`, `${right},${bottom}`);
      start = -1;
    }
  }
  return points.join(' ');
}

/**
 * Where the step ends that a moment lies in, in seconds since the epoch: what is at the right edge until it is over.
 *
 * @param phase_s - how much later than at a round moment steps end, so that not all lines move on at once
 */
export function edgeAt(
  time_s: number,
  shape: ISparklineShape,
  phase_s = 0
): number {
  const step_s = shape.span_s / shape.steps;
  return (Math.floor((time_s - phase_s) / step_s) + 1) * step_s + phase_s;
}

/** The last value in each step; where a step has none, the one before, if that is not too old. */
function byStep(
  series: { t: readonly number[]; values: readonly (number | null)[] },
  end_s: number,
  { span_s, steps }: ISparklineShape
): (number | null)[] | null {
  const values = new Array<number | null>(steps).fill(null);
  const begin_s = end_s - span_s;
  let filled = -1;
  let any = false;
  for (let i = lastBefore(series.t, begin_s); i < series.t.length; i++) {
    const step = Math.floor(((series.t[i] - begin_s) * steps) / span_s);
    if (step >= steps) {
      break;
    }
    if (step < 0) {
      values[0] = series.values[i];
      filled = 0;
      continue;
    }
    if (filled >= 0 && step - filled <= CARRIED_STEPS) {
      values.fill(values[filled], filled, step);
    }
    values[step] = series.values[i];
    filled = step;
    any ||= series.values[i] !== null;
  }
  if (filled >= 0 && steps - 1 - filled <= CARRIED_STEPS) {
    values.fill(values[filled], filled);
  }
  return any || values[0] !== null ? values : null;
}

/** For so many steps without a value the one before is drawn on; a longer silence is a gap. */
const CARRIED_STEPS = 3;

/** The place of the last moment before `from_s`, or of the first of all. */
function lastBefore(t: readonly number[], from_s: number): number {
  let low = 0;
  let high = t.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (t[middle] < from_s) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return Math.max(0, low - 1);
}

function round(number: number): number {
  return Math.round(number * 10) / 10;
}
