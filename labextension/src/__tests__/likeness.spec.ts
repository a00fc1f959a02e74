import { LeaseColours } from '../colours';
import { areCardsAlike, areOverviewsAlike, areRowsAlike } from '../likeness';
import { ICard, IOverview, IRow, Overviews } from '../overview';
import { device, entry, facts, GIB, holder, lease, VIEW } from './fakes';

/** Something else of the same kind. */
function other(value: unknown): unknown {
  switch (typeof value) {
    case 'number':
      return value + 1;
    case 'boolean':
      return !value;
    case 'string':
      return `${value}!`;
    default:
      return Array.isArray(value) ? [...value, { pid: 1 }] : { usage: 'why' };
  }
}

/** The fields of an object whose change alone `isAlike` does not mind. */
function figuresOf<T extends object>(
  item: T,
  isAlike: (changed: T) => boolean
): string[] {
  return Object.keys(item)
    .filter(name =>
      isAlike({ ...item, [name]: other(item[name as keyof T]) } as T)
    )
    .sort();
}

describe('what is alike', () => {
  let overview: IOverview;
  let card: ICard;
  let row: IRow;

  beforeEach(() => {
    const known = facts([device('0', { leases: [lease('a')] })], [holder('a')]);
    overview = new Overviews(new LeaseColours()).next(known, VIEW);
    [card] = overview.cards;
    [row] = card.rows;
  });

  it('are rows that differ in what their figures show, and in nothing else', () => {
    expect(figuresOf(row, changed => areRowsAlike(row, changed))).toEqual([
      'end_s',
      'peak_bytes',
      'scale_bytes',
      'used_bytes',
      'utilization_percent'
    ]);
  });

  it('are not rows of which one shows the state in place of the utilisation, or no peak', () => {
    expect(areRowsAlike(row, { ...row, utilization_percent: null })).toBe(
      false
    );
    expect(areRowsAlike(row, { ...row, peak_bytes: null })).toBe(false);
  });

  it('are cards of which the devices differ in figures alone', () => {
    const figures = figuresOf(card.device, changed =>
      areCardsAlike(card, { ...card, device: changed })
    );
    expect(figures).toEqual([
      'available_bytes',
      'leases',
      'memory_free_bytes',
      'memory_used_bytes',
      'power_watts',
      'reserved_bytes',
      'temperature_celsius',
      'utilization_percent'
    ]);
  });

  it('are cards of which the rows are', () => {
    const rows = [{ ...row, used_bytes: GIB }];
    expect(areCardsAlike(card, { ...card, rows })).toBe(true);
    const near = [{ ...row, condition: 'near-cap' as const }];
    expect(areCardsAlike(card, { ...card, rows: near })).toBe(false);
    expect(areCardsAlike(card, { ...card, rows: [] })).toBe(false);
    expect(areCardsAlike(card, { ...card, hiddenRows: 1 })).toBe(false);
  });

  it('are overviews that differ in what is in use, of which the cards are', () => {
    const figures = figuresOf(overview, changed =>
      areOverviewsAlike(overview, { ...changed, cards: overview.cards })
    );
    expect(figures).toEqual([
      'cards',
      'memory_bytes',
      'memory_used_bytes',
      'time'
    ]);
    const cards = [{ ...card, hiddenRows: 1 }];
    expect(areOverviewsAlike(overview, { ...overview, cards })).toBe(false);
    expect(areOverviewsAlike(overview, { ...overview, cards: [] })).toBe(false);
  });

  it('are not overviews of different moments while somebody waits', () => {
    const before = { ...overview, waiting: [entry('a')] };
    expect(areOverviewsAlike(before, { ...before })).toBe(true);
    expect(areOverviewsAlike(before, { ...before, time: 10_001 })).toBe(false);
  });
});
