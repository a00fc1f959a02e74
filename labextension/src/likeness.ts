/** What is the same as before, and what differs in figures alone, which come to the page by themselves. */

import { JSONExt, ReadonlyPartialJSONValue } from '@lumino/coreutils';

import { ICard, IOverview, IRow } from './overview';
import { IDevice } from './rest';

const ROW_FIGURES: ReadonlySet<keyof IRow> = new Set([
  'used_bytes',
  'utilization_percent',
  'peak_bytes',
  'end_s',
  'scale_bytes'
] as const);

const DEVICE_FIGURES: ReadonlySet<keyof IDevice> = new Set([
  'memory_used_bytes',
  'memory_free_bytes',
  'available_bytes',
  'reserved_bytes',
  'utilization_percent',
  'temperature_celsius',
  'power_watts',
  // What is drawn of them is in the rows.
  'leases'
] as const);

const OVERVIEW_FIGURES: ReadonlySet<keyof IOverview> = new Set([
  'time',
  'cards',
  'memory_used_bytes',
  'memory_bytes'
] as const);

/** Where there is room for one of the two only: the utilisation of a kernel that computes, the state of any other. */
export function briefly(row: IRow): 'utilization' | 'state' {
  // One that executes no cell may compute all the same, in a thread or a process of its own.
  const computes =
    row.condition === 'busy' ||
    (row.condition === 'idle' && (row.utilization_percent ?? 0) > 0);
  return computes && row.utilization_percent !== null ? 'utilization' : 'state';
}

/** Whether two rows differ in their figures alone. */
export function areRowsAlike(a: IRow, b: IRow): boolean {
  return (
    a === b ||
    (briefly(a) === briefly(b) &&
      (a.peak_bytes === null) === (b.peak_bytes === null) &&
      haveSame(a, b, ROW_FIGURES))
  );
}

/** Whether two cards differ in figures alone, their own and their rows'. */
export function areCardsAlike(a: ICard, b: ICard): boolean {
  return (
    a === b ||
    (a.hiddenRows === b.hiddenRows &&
      a.rows.length === b.rows.length &&
      a.rows.every((row, i) => areRowsAlike(row, b.rows[i])) &&
      haveSame(a.device, b.device, DEVICE_FIGURES))
  );
}

/** Whether two overviews differ in figures alone, their own and their cards'. */
export function areOverviewsAlike(a: IOverview, b: IOverview): boolean {
  return (
    // Whoever waits has waited longer each second.
    (a.time === b.time || !b.waiting.length) &&
    a.cards.length === b.cards.length &&
    a.cards.every((card, i) => areCardsAlike(card, b.cards[i])) &&
    haveSame(a, b, OVERVIEW_FIGURES)
  );
}

/**
 * Whether two objects of one kind have the same in all fields.
 *
 * @param except - the fields that do not count
 */
export function haveSame<T extends object>(
  a: T,
  b: T,
  except?: ReadonlySet<keyof T>
): boolean {
  for (const name in a) {
    if (
      !Object.is(a[name], b[name]) &&
      !except?.has(name) &&
      !JSONExt.deepEqual(
        a[name] as ReadonlyPartialJSONValue,
        b[name] as ReadonlyPartialJSONValue
      )
    ) {
      return false;
    }
  }
  return true;
}
