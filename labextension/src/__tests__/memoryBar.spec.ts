import { BarColours, BarPainter, memoryStretches } from '../memoryBar';
import { ISegment } from '../overview';
import { browser, GIB } from './fakes';

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

/** A bar of so many pixels, as `paint end` for each stretch. */
function stretches(
  segments: ISegment[],
  memory_bytes: number | null = 40 * GIB,
  width = 200,
  ratio = 1
): string[] {
  const all = memoryStretches(segments, memory_bytes, width, ratio);
  const ends = all.map(({ end }) => end);
  expect(all.map(({ begin }) => begin)).toEqual([0, ...ends.slice(0, -1)]);
  expect(all[all.length - 1].end).toBe(width);
  return all.map(({ paint, end }) => `${paint} ${end}`);
}

const FULL = { used_bytes: 10 * GIB, extent_bytes: 10 * GIB };

describe('memoryStretches', () => {
  it('is the ground alone where nothing is in use', () => {
    expect(stretches([])).toEqual(['ground 200']);
    expect(stretches([], null)).toEqual(['ground 200']);
  });

  it('shows what is used, what is reserved besides, and its end', () => {
    const reserved = { used_bytes: 10 * GIB, extent_bytes: 20 * GIB };
    expect(stretches([segment(reserved)])).toEqual([
      'series-1 50',
      'tint-1 98',
      'series-1 100',
      'ground 200'
    ]);
  });

  it('puts each after the one before, with a gap', () => {
    const second = segment({ ...FULL, key: 'b', colour: 2 });
    expect(stretches([segment(FULL), second])).toEqual([
      'series-1 50',
      'gap 51',
      'series-2 100',
      'ground 200'
    ]);
  });

  it('is as fine as the screen', () => {
    const second = segment({ ...FULL, key: 'b', colour: 2 });
    expect(stretches([segment(FULL), second], 40 * GIB, 400, 2)).toEqual([
      'series-1 100',
      'gap 102',
      'series-2 200',
      'ground 400'
    ]);
  });

  it('tints the whole of a reservation of which nothing is used', () => {
    expect(stretches([segment({ extent_bytes: 20 * GIB })])).toEqual([
      'tint-1 98',
      'series-1 100',
      'ground 200'
    ]);
  });

  it('shows the least use, and lets it push what follows', () => {
    const little = { used_bytes: 1, extent_bytes: 1 };
    const more = ['b', 'c'].map(key => segment({ ...little, key, colour: 2 }));
    expect(stretches([segment(little), ...more]).slice(0, 3)).toEqual([
      'series-1 2',
      'series-2 4',
      'series-2 6'
    ]);
  });

  it('tells apart what nobody accounts for and what is foreign', () => {
    for (const kind of ['foreign', 'unattributed'] as const) {
      expect(stretches([segment({ ...FULL, kind, colour: 0 })])[0]).toBe(
        `${kind} 50`
      );
    }
  });

  it('is filled by what there is, where that is more than the device has or the device does not say', () => {
    const whole = { used_bytes: 30 * GIB, extent_bytes: 30 * GIB };
    for (const memory_bytes of [null, 20 * GIB]) {
      expect(stretches([segment(whole)], memory_bytes)).toEqual([
        'series-1 200'
      ]);
    }
  });
});

describe('BarPainter', () => {
  it('paints as wide as it is, and anew in the colours of another theme', () => {
    const { fillRect } = browser();
    document.documentElement.style.setProperty('--gpu-series-1', 'red');
    document.documentElement.style.setProperty('--jp-layout-color2', 'white');
    const canvas = document.createElement('canvas');
    document.body.append(canvas);
    const colours = new BarColours();
    const painter = new BarPainter(canvas, colours);
    painter.show([segment(FULL)], 40 * GIB);
    expect(canvas.width).toBe(400);
    expect(fillRect.mock.lastCall).toEqual([100, 0, 300, 10]);
    fillRect.mockClear();
    colours.forget();
    expect(fillRect).toHaveBeenCalledTimes(2);
    painter.dispose();
    colours.forget();
    expect(fillRect).toHaveBeenCalledTimes(2);
    canvas.remove();
  });
});
