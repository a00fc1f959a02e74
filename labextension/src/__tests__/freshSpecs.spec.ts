import { FreshSpecs } from '../freshSpecs';
import { GPUModel } from '../model';
import { hasVariants } from '../variants';
import {
  device,
  devices,
  FakeAPI,
  FakeSpecs,
  gpuSpecs,
  specModels,
  status
} from './fakes';

describe('FreshSpecs', () => {
  const bare = specModels({ python3: { display_name: 'Python 3' } });
  let api: FakeAPI;
  let model: GPUModel;
  let sleeps: number[];

  const over = (specs: FakeSpecs, during?: () => void) =>
    new FreshSpecs({
      model,
      specs: specs.asManager,
      sleep: async ms => {
        sleeps.push(ms);
        during?.();
      }
    });

  beforeEach(() => {
    api = new FakeAPI();
    model = new GPUModel(api);
    sleeps = [];
  });

  it('asks nothing where the choices are there', async () => {
    const specs = new FakeSpecs(gpuSpecs());
    await over(specs).settle();
    expect(api.calls).toEqual([]);
    expect(specs.refreshed).toBe(0);
  });

  it('reads the kernelspecs again once the server knows its devices', async () => {
    const specs = new FakeSpecs(bare);
    specs.next = gpuSpecs();
    api.statusAnswer = status({ device_count: null });
    await over(specs, () => {
      if (sleeps.length === 3) {
        api.statusAnswer = status({ device_count: 2 });
      }
    }).settle();
    expect(specs.refreshed).toBe(1);
    expect(hasVariants(specs.specs)).toBe(true);
    expect(sleeps).toHaveLength(4);
  });

  it('does not wait for choices where there are no devices', async () => {
    const specs = new FakeSpecs(bare);
    api.statusAnswer = status({ device_count: 0 });
    await over(specs).settle();
    expect(api.calls).toEqual(['status']);
    expect(specs.refreshed).toBe(0);
  });

  it('gives up where choices are switched off, or the server does not answer', async () => {
    const specs = new FakeSpecs(bare);
    await over(specs).settle();
    expect(specs.refreshed).toBeLessThan(10);
    api.failure = new Error('away');
    await over(specs).settle();
    expect(sleeps.length).toBeLessThan(20);
  });

  it('reads the kernelspecs again when devices come or go', async () => {
    const specs = new FakeSpecs(gpuSpecs());
    over(specs);
    api.devicesAnswer = devices([device('0'), device('1')]);
    await model.devices.refresh();
    await model.devices.refresh();
    expect(specs.refreshed).toBe(0);
    api.devicesAnswer = devices([device('0')]);
    await model.devices.refresh();
    expect(specs.refreshed).toBe(1);
    api.devicesAnswer = devices([device('0', { leasable: false })]);
    await model.devices.refresh();
    expect(specs.refreshed).toBe(2);
  });
});
