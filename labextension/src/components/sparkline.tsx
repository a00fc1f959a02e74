import * as React from 'react';

import { IRow } from '../overview';
import { SPARKLINE, sparkline } from '../sparkline';
import { IUsageHistory } from '../tokens';
import { useFigures } from './figure';
import { Figures, useServices } from './services';

export interface ISparklineProps {
  /** The row whose memory it shows. */
  readonly of: string;
}

/**
 * A small line without numbers; what it shows stands next to it in figures, so it is hidden from screen readers.
 *
 * It is drawn anew when a step of time is over, or the scale is another: the newest value is in the figures anyway.
 */
export const Sparkline = React.memo(({ of }: ISparklineProps): JSX.Element => {
  const { history } = useServices();
  const { rows } = React.useContext(Figures);
  const line = React.useRef<SVGPolygonElement>(null);
  const draw = React.useMemo(() => {
    let drawn = '';
    return (row: IRow) => {
      const scale = `${row.end_s} ${row.scale_bytes}`;
      if (drawn !== scale) {
        const points = pointsOf(row, history);
        line.current!.setAttribute('points', points);
        drawn = points && scale;
      }
    };
  }, [history]);
  useFigures(rows, of, draw);
  const { width, height } = SPARKLINE;
  return (
    <svg
      className="jp-gpu-Sparkline"
      viewBox={`0 0 ${width} ${height}`}
      preserveAspectRatio="none"
      aria-hidden="true"
    >
      <polygon ref={line} />
    </svg>
  );
});

function pointsOf(row: IRow, history: IUsageHistory): string {
  const series = row.kernelId ? history.kernel(row.kernelId, row.uuid) : null;
  return series
    ? sparkline(
        { t: series.t, values: series.memory },
        row.scale_bytes ?? 0,
        row.end_s,
        SPARKLINE
      )
    : '';
}
