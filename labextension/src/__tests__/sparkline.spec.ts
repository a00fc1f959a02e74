import { edgeAt, ISparklineShape, sparkline } from '../sparkline';

const SHAPE: ISparklineShape = { width: 30, height: 10, span_s: 40, steps: 4 };

describe('edgeAt', () => {
  it('stays where it is until a step is over', () => {
    expect(edgeAt(1000, SHAPE)).toBe(1010);
    expect(edgeAt(1009.9, SHAPE)).toBe(1010);
    expect(edgeAt(1010, SHAPE)).toBe(1020);
  });

  it('moves on later by the phase', () => {
    expect(edgeAt(1002.9, SHAPE, 3)).toBe(1003);
    expect(edgeAt(1003, SHAPE, 3)).toBe(1013);
    expect(edgeAt(1003, SHAPE, 23)).toBe(1013);
  });
});

describe('sparkline', () => {
  const drawn = (t: number[], values: (number | null)[], end_s = 1040) =>
    sparkline({ t, values }, 10, end_s, SHAPE);

  it('draws the last value of each step, beyond both sides', () => {
    expect(drawn([1001, 1009, 1010, 1025, 1039], [1, 2, 5, 7, 10])).toBe(
      'M-3 13L-3 8L0 8L10 5L20 3L30 0L33 0L33 13'
    );
  });

  it('begins with what was before the first step', () => {
    expect(drawn([990, 1012], [4, 4])).toBe(
      'M-3 13L-3 6L0 6L10 6L20 6L30 6L33 6L33 13'
    );
  });

  it('leaves a gap where a value was unknown', () => {
    expect(drawn([1001, 1011, 1021, 1031], [5, null, 5, 5])).toBe(
      'M-3 13L-3 5L0 5L0 5L0 13M20 13L20 5L20 5L30 5L33 5L33 13'
    );
  });

  it('draws nothing where nothing is known, or there is no scale', () => {
    expect(drawn([], [])).toBe('');
    expect(drawn([1001], [null])).toBe('');
    expect(sparkline({ t: [1001], values: [1] }, 0, 1040, SHAPE)).toBe('');
  });
});
