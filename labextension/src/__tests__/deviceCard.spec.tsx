import * as React from 'react';
import { createRoot, Root } from 'react-dom/client';

import { LeaseColours } from '../colours';
import { DeviceCard } from '../components/deviceCard';
import { Figures, newFigures } from '../components/services';
import { ICard, Overviews } from '../overview';
import { IDevice, IKernel } from '../rest';
import { browser, device, facts, GIB, lease, using, VIEW } from './fakes';

const SHOWN = {
  sparklines: true,
  temperatureAndPower: true,
  foreignProcesses: true,
  kernelsWithoutGPU: true
};

const onToggle = () => undefined;

function gpu(change: Partial<IDevice> = {}): IDevice {
  return device('0', { leases: [lease('a')], ...change });
}

describe('DeviceCard', () => {
  const figures = newFigures();
  let overviews: Overviews;
  let fillRect: jest.Mock;
  let node: HTMLElement;
  let root: Root;

  /** Work out the next second's card, and let its figures come to the page. */
  function tell(found: IDevice, kernel: IKernel): ICard {
    const [card] = overviews.next(facts([found], [kernel]), VIEW).cards;
    figures.cards.show([card]);
    figures.rows.show(card.rows);
    return card;
  }

  function draw(card: ICard): void {
    React.act(() =>
      root.render(
        <Figures.Provider value={figures}>
          <DeviceCard card={card} shown={SHOWN} isOpen onToggle={onToggle} />
        </Figures.Provider>
      )
    );
  }

  const barText = () =>
    node.querySelector('[role=img]')!.getAttribute('aria-label');

  const text = (selector: string) => node.querySelector(selector)!.textContent;

  beforeEach(() => {
    (globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean })[
      'IS_REACT_ACT_ENVIRONMENT'
    ] = true;
    ({ fillRect } = browser());
    overviews = new Overviews(new LeaseColours());
    node = document.body.appendChild(document.createElement('div'));
    root = createRoot(node);
    draw(tell(gpu({ memory_used_bytes: 3 * GIB }), using('a', 2 * GIB)));
  });

  afterEach(() => {
    React.act(() => root.unmount());
    node.remove();
  });

  it('shows its figures from the start', () => {
    expect(text('.jp-gpu-Figure-memory')).toBe('3.0 / 40 GiB');
    expect(text('.jp-gpu-Figure-temperature')).toBe('30 °C');
    expect(text('.jp-gpu-Row-memory')).toBe('2.0 / 8 GiB');
    expect(text('.jp-gpu-Row-utilization')).toBe('10 %');
    expect(text('.jp-gpu-Row-peak')).toContain('peak 3 GiB');
    expect(barText()).toBe('3 GiB of 40 GiB in use.');
  });

  it('follows its figures without being drawn anew', () => {
    const line = node.querySelector('.jp-gpu-Row-memory')!.firstChild;
    tell(
      gpu({ memory_used_bytes: 5 * GIB, temperature_celsius: 61 }),
      using('a', 4 * GIB, { utilization_percent: 77, peak_bytes: 5 * GIB })
    );
    expect(text('.jp-gpu-Figure-memory')).toBe('5.0 / 40 GiB');
    expect(text('.jp-gpu-Figure-temperature')).toBe('61 °C');
    expect(text('.jp-gpu-Row-memory')).toBe('4.0 / 8 GiB');
    expect(text('.jp-gpu-Row-utilization')).toBe('77 %');
    expect(text('.jp-gpu-Row-peak')).toContain('peak 5 GiB');
    expect(barText()).toBe('5 GiB of 40 GiB in use.');
    expect(node.querySelector('.jp-gpu-Row-memory')!.firstChild).toBe(line);
  });

  it('is drawn anew for what is more than a figure, and its figures stay right', () => {
    tell(gpu(), using('a', 4 * GIB));
    draw(tell(gpu(), using('a', 7.8 * GIB)));
    expect(
      node.querySelector('.jp-gpu-Row')!.getAttribute('data-condition')
    ).toBe('near-cap');
    expect(text('.jp-gpu-Row-memory')).toBe('7.8 / 8 GiB');
    draw(tell(gpu(), using('a', 2 * GIB)));
    expect(
      node.querySelector('.jp-gpu-Row')!.getAttribute('data-condition')
    ).toBe('idle');
    expect(text('.jp-gpu-Row-memory')).toBe('2.0 / 8 GiB');
  });

  it('paints its bar anew only where what is in it has changed', () => {
    fillRect.mockClear();
    tell(gpu({ memory_used_bytes: 3 * GIB }), using('a', 2 * GIB));
    tell(gpu({ memory_used_bytes: 3 * GIB, power_watts: 9 }), using('a', 1));
    expect(fillRect).toHaveBeenCalledTimes(0);
    tell(gpu({ memory_used_bytes: 5 * GIB }), using('a', 2 * GIB));
    expect(fillRect).toHaveBeenCalled();
  });

  it('says in words what its bar shows, to whoever points at it', () => {
    const bar = node.querySelector<HTMLElement>('[role=img]')!;
    tell(
      gpu({ memory_used_bytes: 2 * GIB, available_bytes: 32 * GIB }),
      using('a', 2 * GIB)
    );
    React.act(() => {
      bar.dispatchEvent(new MouseEvent('mouseover', { bubbles: true }));
    });
    expect(bar.title.split('\n')).toEqual([
      '2 GiB of 40 GiB in use.',
      '2 GiB by a.ipynb, which has reserved 8 GiB.',
      '32 GiB can be reserved now.'
    ]);
  });
});
