import { GPUModel } from '../model';
import { FakeAPI, kernel, settled } from './fakes';

describe('GPUModel', () => {
  let api: FakeAPI;
  let model: GPUModel;

  beforeEach(() => {
    api = new FakeAPI();
    model = new GPUModel(api);
  });

  afterEach(() => model.dispose());

  it('asks only for what is watched', async () => {
    const watching = model.kernels.watch();
    await settled();
    await settled();
    watching.dispose();
    expect(new Set(api.calls)).toEqual(new Set(['kernels']));
  });

  it('shows the effect of a change at once', async () => {
    api.kernelsAnswer = [kernel('k1')];
    const changed = await model.changeKernel('k1', { request: '1:8GiB' });
    expect(changed.applied).toBe('now');
    await settled();
    expect(api.calls).toEqual(['kernel k1', 'kernels', 'devices']);
    expect(model.kernels.value?.kernels).toHaveLength(1);
  });

  it('shows the effect of cancelling at once', async () => {
    await model.cancelWaiting('7');
    await settled();
    expect(api.calls).toEqual(['cancel 7', 'queue']);
  });

  it('keeps the figures at the chosen pace, and the status at its own', () => {
    model.setRefreshInterval(5_000);
    expect(model.devices.interval_ms).toBe(5_000);
    expect(model.kernels.interval_ms).toBe(5_000);
    expect(model.queue.interval_ms).toBe(5_000);
    expect(model.status.interval_ms).toBe(60_000);
  });
});
