/** Requests as texts (`auto`, `1:8GiB`, `0.2:all`) and as what a form with a GPU and its memory can show. */

import { parseAmount } from './amount';
import { IDevice } from './rest';

/** How much of the GPU's memory. */
export type Memory =
  | { readonly kind: 'shared' }
  | { readonly kind: 'whole' }
  /** The amount is a text such as `8GiB` or `25%`, which may be incomplete while it is typed. */
  | { readonly kind: 'reserved'; readonly amount: string };

/** One GPU, any GPU or none, and how much of it. */
export interface IChoice {
  /** `cpu`, `auto`, or a device's index. */
  readonly device: string;
  readonly memory: Memory;
}

export const CPU = 'cpu';
export const AUTO = 'auto';
export const SHARED: Memory = { kind: 'shared' };
export const WHOLE: Memory = { kind: 'whole' };

const INDEX = /^\d{1,4}(\.\d{1,4})?$/;
const UUID = /^(GPU|MIG)-/i;
const PERCENT = /^(\d{1,3}(?:\.\d{1,6})?)\s*%$/;

/**
 * What a request asks for, as far as the form can show it.
 *
 * @param devices - to find the index of a device that is named by its UUID
 * @returns null for more than one GPU, a model's name and the like
 */
export function parseChoice(
  text: string,
  devices: readonly IDevice[] = []
): IChoice | null {
  const word = text.trim();
  const colon = word.indexOf(':');
  const head = (colon < 0 ? word : word.slice(0, colon)).trim();
  const tail = colon < 0 ? null : word.slice(colon + 1).trim();
  const device = parseDevice(head, devices);
  const memory = tail === null ? SHARED : parseMemory(tail);
  if (device === null || memory === null) {
    return null;
  }
  if (device === CPU) {
    return tail === null ? { device, memory: SHARED } : null;
  }
  return { device, memory };
}

/** The text that asks for a choice. */
export function requestText({ device, memory }: IChoice): string {
  if (device === CPU || memory.kind === 'shared') {
    return device;
  }
  const amount =
    memory.kind === 'whole' ? 'all' : memory.amount.replace(/\s+/g, '');
  return `${device}:${amount}`;
}

/**
 * The bytes that an amount such as `8GiB` or `25%` is on a device.
 *
 * @returns null where the text is no amount, or a share of a device whose memory is unknown
 */
export function amountOn(
  amount: string,
  deviceBytes: number | null
): number | null {
  const percent = PERCENT.exec(amount.trim());
  if (!percent) {
    return parseAmount(amount);
  }
  const share = Number(percent[1]) / 100;
  return share > 0 && share <= 1 && deviceBytes !== null
    ? Math.floor(deviceBytes * share)
    : null;
}

/** Whether a text is an amount that the form takes. */
export function isAmount(text: string): boolean {
  return amountOn(text, 2 ** 40) !== null;
}

function parseDevice(head: string, devices: readonly IDevice[]): string | null {
  const lower = head.toLowerCase();
  if (lower === CPU || lower === 'none') {
    return CPU;
  }
  if (lower === AUTO || lower === '1x') {
    return AUTO;
  }
  if (INDEX.test(head)) {
    return head;
  }
  if (UUID.test(head)) {
    const named = devices.filter(device =>
      device.uuid.toLowerCase().startsWith(lower)
    );
    return named.length === 1 ? named[0].index : null;
  }
  return null;
}

function parseMemory(tail: string): Memory | null {
  if (tail.toLowerCase() === 'all') {
    return WHOLE;
  }
  if (tail.toLowerCase() === 'shared') {
    return SHARED;
  }
  return isAmount(tail) ? { kind: 'reserved', amount: tail } : null;
}
