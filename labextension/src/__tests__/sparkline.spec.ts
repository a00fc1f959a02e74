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
      '-3,13 -3,8 0,8 10,5 20,3 30,0 33,0 33,13'
    );
  });

  it('begins with what was before the first step', () => {
    expect(drawn([990, 1012], [4, 4])).toBe(
      '-3,13 -3,6 0,6 10,6 20,6 30,6 33,6 33,13'
    );
  });

  it('leaves a gap where a value was unknown', () => {
    expect(drawn([1001, 1011, 1021, 1031], [5, null, 5, 5])).toBe(
      '-3,13 -3,5 0,5 0,5 0,13 20,13 20,5 20,5 30,5 33,5 33,13'
    );
  });

  it('draws nothing where nothing is known, or there is no scale', () => {
    expect(drawn([], [])).toBe('');
    expect(drawn([1001], [null])).toBe('');
    expect(sparkline({ t: [1001], values: [1] }, 0, 1040, SHAPE)).toBe('');
  });
});
