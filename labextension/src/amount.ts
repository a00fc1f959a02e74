/** Amounts of memory as people read and write them, in the same words as the server's. */

/** Bytes in each unit: IEC names are binary, SI names decimal. */
const UNITS: { readonly [unit: string]: number } = {
  TiB: 2 ** 40,
  TB: 1e12,
  GiB: 2 ** 30,
  GB: 1e9,
  MiB: 2 ** 20,
  MB: 1e6,
  KiB: 2 ** 10,
  KB: 1e3,
  B: 1
};

const READABLE_UNITS = ['TiB', 'GiB', 'MiB', 'KiB'] as const;

const AMOUNT = /^(\d{1,30}(?:\.\d{1,30})?)\s*([A-Za-z]+)$/;

/** The word for what is not known. */
export const UNKNOWN = '–';

/** Bytes in one of the units. */
export function unitBytes(unit: string): number {
  return UNITS[unit];
}

/** An amount for people: binary units, two or three significant digits, such as `3.2 GiB`. */
export function readableAmount(bytes: number | null): string {
  if (bytes === null) {
    return UNKNOWN;
  }
  const unit = readableUnit(bytes);
  return `${readableNumber(bytes, unit)} ${unit}`;
}

/**
 * Two amounts in the unit of the larger, such as `3.2 / 8 GiB`. The first has always as many decimals, so that it does
 * not jump while it changes.
 */
export function pairOfAmounts(
  part: number | null,
  whole: number | null
): string {
  if (whole === null) {
    return readableAmount(part);
  }
  const unit = readableUnit(Math.max(part ?? 0, whole));
  return `${steadyNumber(part, unit)} / ${readableNumber(whole, unit)} ${unit}`;
}

/** The bytes that a text such as `8GiB` or `1.5 GB` means; null where it means none. */
export function parseAmount(text: string): number | null {
  const match = AMOUNT.exec(text.trim());
  const unit =
    match &&
    Object.keys(UNITS).find(
      name => name.toLowerCase() === match[2].toLowerCase()
    );
  if (!match || !unit) {
    return null;
  }
  const bytes = Math.floor(Number(match[1]) * UNITS[unit]);
  return bytes >= 1 ? bytes : null;
}

/** The unit in which an amount is best read. */
export function readableUnit(bytes: number): string {
  return READABLE_UNITS.find(unit => Math.abs(bytes) >= UNITS[unit]) ?? 'B';
}

/** An amount as a number of units, without a needless decimal. */
export function readableNumber(bytes: number, unit: string): string {
  const number = bytes / UNITS[unit];
  const digits = Math.abs(number) < 100 && !Number.isInteger(number) ? 1 : 0;
  return number.toFixed(digits).replace(/\.0$/, '');
}

function steadyNumber(bytes: number | null, unit: string): string {
  if (bytes === null) {
    return UNKNOWN;
  }
  const number = bytes / UNITS[unit];
  return number === 0 || number >= 100 ? number.toFixed(0) : number.toFixed(1);
}
