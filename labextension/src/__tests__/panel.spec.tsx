import { nullTranslator } from '@jupyterlab/translation';
import { MessageLoop } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';

import { BarColours } from '../memoryBar';
import { GPUModel } from '../model';
import { GPUPanel } from '../widgets/panel';
import {
  browser,
  device,
  devices,
  entry,
  FakeAPI,
  GIB,
  lease,
  settled,
  using
} from './fakes';

/** A panel that counts how often it is drawn. */
class CountedPanel extends GPUPanel {
  drawn = 0;

  protected override render(): JSX.Element | null {
    this.drawn += 1;
    return super.render();
  }
}

describe('GPUPanel', () => {
  let api: FakeAPI;
  let model: GPUModel;
  let panel: CountedPanel;
  let time: number;

  /** Have one kernel use so much of one GPU, and the panel show it. */
  async function use(used_bytes: number): Promise<void> {
    time += 1;
    const leases = [lease('a', { used_bytes })];
    const gpu = device('0', { memory_used_bytes: used_bytes, leases });
    api.devicesAnswer = { ...devices([gpu]), time };
    api.kernelsAnswer = [using('a', used_bytes)];
    await show();
  }

  /** Have the server asked, and the panel show what it answered. */
  async function show(): Promise<void> {
    const feeds = [model.devices, model.kernels, model.queue];
    await Promise.all(feeds.map(feed => feed.refresh().catch(() => null)));
    await settled();
    await settled();
    MessageLoop.flush();
  }

  const text = (selector: string) =>
    panel.node.querySelector(selector)?.textContent;

  beforeEach(async () => {
    browser();
    time = 10_000;
    api = new FakeAPI();
    model = new GPUModel(api);
    panel = new CountedPanel({
      model,
      services: {
        trans: nullTranslator.load(''),
        history: model.history,
        barColours: new BarColours(),
        run: () => undefined,
        openKernelMenu: () => undefined
      }
    });
    Widget.attach(panel, document.body);
    await settled();
    await use(2 * GIB);
  });

  afterEach(() => {
    panel.dispose();
    model.dispose();
  });

  it('shows new figures without being drawn anew', async () => {
    expect(text('.jp-gpu-Row-memory')).toBe('2.0 / 8 GiB');
    const { drawn } = panel;
    await use(3 * GIB);
    expect(text('.jp-gpu-Summary-memory')).toBe('3.0 / 40 GiB');
    expect(text('.jp-gpu-Row-memory')).toBe('3.0 / 8 GiB');
    expect(panel.drawn).toBe(drawn);
  });

  it('is drawn anew for all that is more than a figure', async () => {
    api.queueAnswer = [entry('q')];
    await show();
    expect(text('[data-condition=waiting] .jp-gpu-Row-label')).toBe('B.ipynb');
    panel.node.querySelector<HTMLElement>('.jp-gpu-Card-title')!.click();
    MessageLoop.flush();
    expect(text('[data-uuid] .jp-gpu-Rows')).toBeUndefined();
    api.failure = new Error('gone');
    await show();
    expect(text('[data-stale] .jp-gpu-Panel-scroll')).toContain('gone');
    expect(text('[data-stale] .jp-gpu-Panel-scroll')).toContain(
      'jupyter gpu doctor'
    );
  });

  it('says of what time old figures are', async () => {
    const now = jest.spyOn(Date, 'now');
    api.failure = new Error('gone');
    await show();
    const before = text('.jp-gpu-Panel-scroll');
    now.mockReturnValue(Date.now() + 3_600_000);
    api.failure = null;
    await use(3 * GIB);
    api.failure = new Error('gone');
    await show();
    expect(text('.jp-gpu-Panel-scroll')).not.toBe(before);
    now.mockRestore();
  });

  it('is drawn again where it was taken off the page and put back', async () => {
    Widget.detach(panel);
    expect(text('.jp-gpu-Card')).toBeUndefined();
    Widget.attach(panel, document.body);
    await use(4 * GIB);
    expect(text('.jp-gpu-Row-memory')).toBe('4.0 / 8 GiB');
  });
});
