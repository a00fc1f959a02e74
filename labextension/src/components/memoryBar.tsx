import { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { readableAmount } from '../amount';
import { ISegment } from '../overview';
import { useServices } from './services';

export interface IMemoryBarProps {
  readonly segments: readonly ISegment[];
  /** The device's memory; null where it is unknown. */
  readonly memory_bytes: number | null;
  readonly used_bytes: number | null;
}

/**
 * A device's memory: one segment for each lease, filled as far as it is used and tinted as far as it is reserved, then
 * what others hold; the rest is free.
 */
export const MemoryBar = React.memo(
  ({ segments, memory_bytes, used_bytes }: IMemoryBarProps): JSX.Element => {
    const { trans } = useServices();
    const extent = segments.reduce(
      (all, { extent_bytes }) => all + extent_bytes,
      0
    );
    const whole = Math.max(memory_bytes ?? 0, extent, 1);
    const description = described(segments, memory_bytes, used_bytes, trans);
    return (
      <div
        className="jp-gpu-Bar"
        role="img"
        aria-label={description.join(' ')}
        title={description.join('\n')}
      >
        {segments.map(segment => (
          <Segment key={segment.key} segment={segment} whole_bytes={whole} />
        ))}
      </div>
    );
  }
);

const Segment = React.memo(
  ({
    segment,
    whole_bytes
  }: {
    segment: ISegment;
    whole_bytes: number;
  }): JSX.Element => {
    const { kind, colour, used_bytes, extent_bytes } = segment;
    const reserves = extent_bytes > used_bytes;
    return (
      <span
        className="jp-gpu-Bar-segment"
        data-kind={kind}
        data-series={colour || undefined}
        data-reserves={reserves || undefined}
        style={{ width: percent(extent_bytes, whole_bytes) }}
      >
        {reserves && (
          <span
            className="jp-gpu-Bar-used"
            style={{ width: percent(used_bytes, extent_bytes) }}
          />
        )}
      </span>
    );
  }
);

function percent(part: number, whole: number): string {
  return `${((100 * part) / whole).toFixed(2)}%`;
}

/** The bar in words, a sentence for each part. */
function described(
  segments: readonly ISegment[],
  memory_bytes: number | null,
  used_bytes: number | null,
  trans: TranslationBundle
): string[] {
  const whole =
    memory_bytes === null
      ? trans.__('%1 in use.', readableAmount(used_bytes))
      : trans.__(
          '%1 of %2 in use.',
          readableAmount(used_bytes),
          readableAmount(memory_bytes)
        );
  return [
    whole,
    ...segments.map(({ kind, label, used_bytes, extent_bytes }) => {
      const used = readableAmount(used_bytes);
      if (kind === 'foreign') {
        return trans.__("%1 by processes that are not Jupyter's.", used);
      }
      if (kind === 'unattributed') {
        return trans.__('%1 that no process accounts for.', used);
      }
      return extent_bytes > used_bytes
        ? trans.__(
            '%1 by %2, which has reserved %3.',
            used,
            label,
            readableAmount(extent_bytes)
          )
        : trans.__('%1 by %2.', used, label);
    })
  ];
}
