import { memoryGradient } from '../memoryBar';
import { ISegment } from '../overview';
import { GIB } from './fakes';

function segment(change: Partial<ISegment>): ISegment {
  return {
    key: 'a',
    kind: 'lease',
    colour: 1,
    used_bytes: 0,
    extent_bytes: 0,
    label: 'a.ipynb',
    ...change
  };
}

function stops(segments: ISegment[], memory_bytes: number | null): string[] {
  const gradient = memoryGradient(segments, memory_bytes);
  const inner = /^linear-gradient\(to right, (.*)\)$/.exec(gradient)![1];
  return inner.split(/, (?=var\(--|transparent)/);
}

describe('memoryGradient', () => {
  it('is the ground alone where nothing is in use', () => {
    expect(stops([], 40 * GIB)).toEqual(['var(--jp-layout-color2) 0 100%']);
    expect(stops([], null)).toEqual(['var(--jp-layout-color2) 0 100%']);
  });

  it('shows what is used, what is reserved besides, and its end', () => {
    const reserved = { used_bytes: 10 * GIB, extent_bytes: 20 * GIB };
    expect(stops([segment(reserved)], 40 * GIB)).toEqual([
      'var(--gpu-series-1) 0 max(25%, calc(0% + 2px))',
      'var(--gpu-tint-1) 0 calc(50% - 2px)',
      'var(--gpu-series-1) 0 50%',
      'var(--jp-layout-color2) 0 100%'
    ]);
  });

  it('puts each after the one before, with a gap', () => {
    const first = { used_bytes: 10 * GIB, extent_bytes: 10 * GIB };
    const second = { ...first, key: 'b', colour: 2 };
    expect(stops([segment(first), segment(second)], 40 * GIB)).toEqual([
      'var(--gpu-series-1) 0 max(25%, calc(0% + 2px))',
      'var(--jp-layout-color1) 25% calc(25% + 1px)',
      'var(--gpu-series-2) 0 max(50%, calc(25% + 3px))',
      'var(--jp-layout-color2) 0 100%'
    ]);
  });

  it('tints the whole of a reservation of which nothing is used', () => {
    expect(stops([segment({ extent_bytes: 20 * GIB })], 40 * GIB)).toEqual([
      'var(--gpu-tint-1) 0 calc(50% - 2px)',
      'var(--gpu-series-1) 0 50%',
      'var(--jp-layout-color2) 0 100%'
    ]);
  });

  it('lets what lies below show for what is foreign', () => {
    const foreign = { used_bytes: 4 * GIB, extent_bytes: 4 * GIB, colour: 0 };
    expect(stops([segment({ ...foreign, kind: 'foreign' })], 40 * GIB)[0]).toBe(
      'transparent 0 max(10%, calc(0% + 2px))'
    );
    expect(
      stops([segment({ ...foreign, kind: 'unattributed' })], 40 * GIB)[0]
    ).toBe('var(--jp-layout-color3) 0 max(10%, calc(0% + 2px))');
  });

  it('is filled by what there is, where that is more than the device has or the device does not say', () => {
    const whole = { used_bytes: 30 * GIB, extent_bytes: 30 * GIB };
    for (const memory_bytes of [null, 20 * GIB]) {
      expect(stops([segment(whole)], memory_bytes)[0]).toBe(
        'var(--gpu-series-1) 0 max(100%, calc(0% + 2px))'
      );
    }
  });
});
