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
    return (
      <div
        className="jp-gpu-Bar"
        role="img"
        aria-label={total(memory_bytes, used_bytes, trans)}
        onMouseEnter={event => {
          // Put together only for whoever wants to read it: it changes every second.
          event.currentTarget.title = [
            total(memory_bytes, used_bytes, trans),
            ...segments.map(segment => part(segment, trans))
          ].join('\n');
        }}
      >
        {segments.map(segment => (
          <Segment
            key={segment.key}
            kind={segment.kind}
            colour={segment.colour}
            extent={steps(segment.extent_bytes, whole)}
            used={steps(segment.used_bytes, whole)}
          />
        ))}
      </div>
    );
  }
);

const Segment = React.memo(
  ({
    kind,
    colour,
    extent,
    used
  }: {
    kind: ISegment['kind'];
    colour: number;
    /** In steps of the bar. */
    extent: number;
    used: number;
  }): JSX.Element => (
    <span
      className="jp-gpu-Bar-segment"
      data-kind={kind}
      data-series={colour || undefined}
      data-reserves={extent > used || undefined}
      style={{ width: `${(100 * extent) / STEPS}%` }}
    >
      {extent > used && (
        <span
          className="jp-gpu-Bar-used"
          style={{ width: `${((100 * used) / extent).toFixed(1)}%` }}
        />
      )}
    </span>
  )
);

/** A bar's steps, finer than which nobody sees a change: a page draws nothing for less than one. */
const STEPS = 400;

function steps(bytes: number, whole_bytes: number): number {
  return Math.round((STEPS * bytes) / whole_bytes);
}

function total(
  memory_bytes: number | null,
  used_bytes: number | null,
  trans: TranslationBundle
): string {
  return memory_bytes === null
    ? trans.__('%1 in use.', readableAmount(used_bytes))
    : trans.__(
        '%1 of %2 in use.',
        readableAmount(used_bytes),
        readableAmount(memory_bytes)
      );
}

/** A segment in words. */
function part(
  { kind, label, used_bytes, extent_bytes }: ISegment,
  trans: TranslationBundle
): string {
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
}
