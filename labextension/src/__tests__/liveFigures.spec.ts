import { LiveFigures } from '../liveFigures';

interface IItem {
  readonly key: string;
  readonly used: number;
}

const item = (key: string, used: number): IItem => ({ key, used });

describe('LiveFigures', () => {
  let figures: LiveFigures<IItem>;

  beforeEach(() => {
    figures = new LiveFigures(({ key }) => key);
  });

  it('tells of what there is, and of each that is newer', () => {
    const told: number[] = [];
    figures.show([item('a', 1), item('b', 2)]);
    figures.watch('a', ({ used }) => told.push(used));
    figures.show([item('a', 3), item('b', 2)]);
    expect(told).toEqual([1, 3]);
  });

  it('is silent about what is the same object still, or gone', () => {
    const told: number[] = [];
    const steady = item('a', 1);
    figures.show([steady]);
    figures.watch('a', ({ used }) => told.push(used));
    figures.show([steady]);
    figures.show([]);
    expect(told).toEqual([1]);
    expect(figures.get('a')).toBeUndefined();
  });

  it('tells of what comes after it is asked for, and comes back', () => {
    const told: number[] = [];
    const steady = item('a', 1);
    figures.watch('a', ({ used }) => told.push(used));
    figures.show([steady]);
    figures.show([]);
    figures.show([steady]);
    expect(told).toEqual([1, 1]);
  });

  it('tells several, and none that does not listen any more', () => {
    const told: string[] = [];
    figures.show([item('a', 1)]);
    const end = figures.watch('a', () => told.push('first'));
    figures.watch('a', () => told.push('second'));
    end();
    end();
    figures.show([item('a', 2)]);
    expect(told).toEqual(['first', 'second', 'second']);
  });
});
