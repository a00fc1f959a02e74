import * as React from 'react';

import { ISeries } from '../rest';
import { ISparklineShape, sparkline } from '../sparkline';

/** The last two minutes. */
export const SPARKLINE: ISparklineShape = {
  width: 64,
  height: 16,
  span_s: 120,
  steps: 48
};

export interface ISparklineProps {
  readonly series: ISeries | null;
  readonly column: 'memory' | 'utilization';
  /** The value at the upper edge. */
  readonly top: number;
  /** The step at the right edge. */
  readonly end: number;
}

/** A small line without numbers; what it shows stands next to it in figures, so it is hidden from screen readers. */
export function Sparkline({
  series,
  column,
  top,
  end
}: ISparklineProps): JSX.Element {
  const { width, height } = SPARKLINE;
  const paths = series
    ? sparkline({ t: series.t, values: series[column] }, top, end, SPARKLINE)
    : null;
  return (
    <svg
      className="jp-gpu-Sparkline"
      viewBox={`0 0 ${width} ${height}`}
      preserveAspectRatio="none"
      aria-hidden="true"
    >
      {paths && <path className="jp-gpu-Sparkline-area" d={paths.area} />}
      {paths && <path className="jp-gpu-Sparkline-line" d={paths.line} />}
    </svg>
  );
}
