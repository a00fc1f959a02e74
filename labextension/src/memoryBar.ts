import { ISegment } from './overview';

/** A bar's steps, finer than which nobody sees a change: a page draws nothing for less than one. */
const STEPS = 400;

/** What separates a segment from the one before, and the least that is drawn of a segment's use, in pixels. */
const GAP_PX = 1;
const LEAST_PX = 2;

/** How a reservation's end, which is where the cap is, is marked, in pixels. */
const MARK_PX = 2;

const GROUND = 'var(--jp-layout-color2)';
const GAP = 'var(--jp-layout-color1)';
/** Below the gradient lies what foreign memory looks like. */
const FOREIGN = 'transparent';
const UNATTRIBUTED = 'var(--jp-layout-color3)';

/**
 * A device's memory as one CSS gradient: for each segment its colour as far as it is used, the tint of it as far as it
 * is reserved, a mark at the reservation's end, and a gap before the next; what is left is the ground.
 *
 * One background rather than an element for each part, since a background that changes is painted anew, and elements
 * have the page laid out anew.
 *
 * @param memory_bytes - the device's memory; null where it is unknown, and the segments fill the bar
 */
export function memoryGradient(
  segments: readonly ISegment[],
  memory_bytes: number | null
): string {
  const extent_bytes = segments.reduce((all, one) => all + one.extent_bytes, 0);
  const whole_bytes = Math.max(memory_bytes ?? 0, extent_bytes, 1);
  const stops: string[] = [];
  let begin = 0;
  let bytes = 0;
  for (const segment of segments) {
    // From the sum, so that the places of many small ones do not drift.
    const used = place(bytes + segment.used_bytes, whole_bytes);
    bytes += segment.extent_bytes;
    const end = place(bytes, whole_bytes);
    const colour = colourOf(segment);
    const gap_px = begin > 0 ? GAP_PX : 0;
    if (gap_px) {
      stops.push(`${GAP} ${begin}% calc(${begin}% + ${gap_px}px)`);
    }
    // A stop that lies before the one before it counts as lying there: a part too narrow pushes what follows.
    if (segment.used_bytes > 0) {
      stops.push(
        `${colour} 0 max(${used}%, calc(${begin}% + ${gap_px + LEAST_PX}px))`
      );
    }
    if (end > used) {
      const mark = `calc(${end}% - ${MARK_PX}px)`;
      stops.push(
        `var(--gpu-tint-${segment.colour}) 0 ${mark}`,
        `${colour} 0 ${end}%`
      );
    }
    begin = end;
  }
  stops.push(`${GROUND} 0 100%`);
  return `linear-gradient(to right, ${stops.join(', ')})`;
}

function colourOf({ kind, colour }: ISegment): string {
  switch (kind) {
    case 'lease':
      return `var(--gpu-series-${colour})`;
    case 'foreign':
      return FOREIGN;
    case 'unattributed':
      return UNATTRIBUTED;
  }
}

/** Where so many bytes end, in percent. */
function place(bytes: number, whole_bytes: number): number {
  return (100 * Math.round((STEPS * bytes) / whole_bytes)) / STEPS;
}
