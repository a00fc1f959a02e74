import { nullTranslator } from '@jupyterlab/translation';
import { Signal } from '@lumino/signaling';

import { RunningGPUs } from '../runningGPUs';
import { kernel } from './fakes';

describe('RunningGPUs', () => {
  const source = {};
  const updated = new Signal<object, void>(source);
  const kernels = { value: { kernels: [kernel('a')] } };
  let running: RunningGPUs;
  let told: number;

  beforeEach(() => {
    jest.useFakeTimers();
    kernels.value.kernels = [kernel('a')];
    running = new RunningGPUs({
      model: { updated, kernels } as never,
      trans: nullTranslator.load('jupyter_gpu'),
      kernels: { runningChanged: new Signal(source) } as never,
      run: () => undefined
    });
    told = 0;
    running.runningChanged.connect(() => {
      told += 1;
    });
    updated.emit();
  });

  afterEach(() => {
    Signal.clearData(source);
    running.dispose();
    jest.useRealTimers();
  });

  it('tells at once who holds a GPU now', () => {
    expect(told).toBe(1);
    kernels.value.kernels = [kernel('a'), kernel('b')];
    updated.emit();
    expect(told).toBe(2);
    kernels.value.kernels = [kernel('b')];
    updated.emit();
    expect(told).toBe(3);
    expect(running.running()).toHaveLength(1);
  });

  it('tells of figures alone every ten seconds', () => {
    for (let second = 1; second <= 25; second++) {
      jest.advanceTimersByTime(1_000);
      updated.emit();
    }
    expect(told).toBe(3);
  });
});
