import { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { readableAmount } from '../amount';
import { BarPainter } from '../memoryBar';
import { ICard, ISegment } from '../overview';
import { IDevice } from '../rest';
import { useFigures } from './figure';
import { Figures, useServices } from './services';

/**
 * A device's memory: one segment for each lease, filled as far as it is used and tinted as far as it is reserved, then
 * what others hold; the rest is free.
 */
export const MemoryBar = React.memo(
  ({ uuid }: { uuid: string }): JSX.Element => {
    const { trans, barColours } = useServices();
    const { cards } = React.useContext(Figures);
    const ref = React.useRef<HTMLCanvasElement>(null);
    const painter = React.useRef<BarPainter | null>(null);
    React.useLayoutEffect(() => {
      const made = new BarPainter(ref.current!, barColours);
      painter.current = made;
      return () => made.dispose();
    }, [barColours]);
    const draw = React.useCallback(
      ({ device, segments }: ICard) => {
        ref.current!.setAttribute('aria-label', total(device, trans));
        painter.current!.show(segments, device.memory_bytes);
      },
      [trans]
    );
    useFigures(cards, uuid, draw);
    return (
      <canvas
        ref={ref}
        className="jp-gpu-Bar"
        role="img"
        onMouseEnter={event => {
          // Put together only for whoever wants to read it: it changes every second.
          const card = cards.get(uuid);
          event.currentTarget.title = card ? inWords(card, trans) : '';
        }}
      />
    );
  }
);

/** The whole bar in words, a line for each segment. */
function inWords(
  { device, segments }: ICard,
  trans: TranslationBundle
): string {
  return [
    total(device, trans),
    ...segments.map(segment => part(segment, trans)),
    trans.__('%1 can be reserved now.', readableAmount(device.available_bytes))
  ].join('\n');
}

function total(device: IDevice, trans: TranslationBundle): string {
  const used = readableAmount(device.memory_used_bytes);
  return device.memory_bytes === null
    ? trans.__('%1 in use.', used)
    : trans.__('%1 of %2 in use.', used, readableAmount(device.memory_bytes));
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
