import * as React from 'react';

import { ISeries } from '../rest';
import { SPARKLINE, sparkline } from '../sparkline';

export interface ISparklineProps {
  readonly series: ISeries | null;
  readonly column: 'memory' | 'utilization';
  /** The value at the upper edge. */
  readonly top: number;
  /** The moment at the right edge. */
  readonly end_s: number;
}

/**
 * A small line without numbers; what it shows stands next to it in figures, so it is hidden from screen readers.
 *
 * It is drawn anew when a step of time is over, or the scale is another: the newest value is in the figures anyway.
 */
export const Sparkline = React.memo(
  ({ series, column, top, end_s }: ISparklineProps): JSX.Element => {
    const { width, height } = SPARKLINE;
    return (
      <svg
        className="jp-gpu-Sparkline"
        viewBox={`0 0 ${width} ${height}`}
        preserveAspectRatio="none"
        aria-hidden="true"
      >
        {series && (
          <path
            d={sparkline(
              { t: series.t, values: series[column] },
              top,
              end_s,
              SPARKLINE
            )}
          />
        )}
      </svg>
    );
  }
);
