import { Notification, NotificationManager } from '@jupyterlab/apputils';
import { nullTranslator } from '@jupyterlab/translation';

import { GPUError } from '../api';
import { GPUModel } from '../model';
import { WaitingNotices } from '../waiting';
import { entry, FakeAPI, kernel, settled } from './fakes';

describe('WaitingNotices', () => {
  let api: FakeAPI;
  let model: GPUModel;
  let manager: NotificationManager;
  let notices: WaitingNotices;

  beforeEach(() => {
    api = new FakeAPI();
    model = new GPUModel(api);
    manager = new NotificationManager();
    notices = new WaitingNotices({
      model,
      trans: nullTranslator.load('test'),
      manager
    });
  });

  afterEach(() => {
    notices.dispose();
    model.dispose();
  });

  const look = async () => {
    await model.queue.refresh();
    await settled();
  };

  const cancel = async () => {
    const action = manager.notifications[0].options.actions![0];
    const event = new MouseEvent('click', { cancelable: true });
    action.callback(event);
    await settled();
    return event;
  };

  it('shows who waits and for what, once', async () => {
    api.queueAnswer = [entry('1')];
    await look();
    await look();
    expect(manager.count).toBe(1);
    const shown = manager.notifications[0];
    expect(shown.message).toBe('B.ipynb waits for GPU 1, held by A.ipynb');
    expect(shown.type).toBe('in-progress');
    expect(shown.options.autoClose).toBe(false);
  });

  it('shows nothing of what others wait for', async () => {
    api.queueAnswer = [entry('1', { mine: false })];
    await look();
    expect(manager.count).toBe(0);
  });

  it('follows what the wait is for', async () => {
    api.queueAnswer = [entry('1')];
    await look();
    api.queueAnswer = [
      entry('1', { message: 'waits for GPU 1, held by C.ipynb' })
    ];
    await look();
    expect(manager.count).toBe(1);
    expect(manager.notifications[0].message).toContain('C.ipynb');
  });

  it('says that the GPU was granted, and closes by itself', async () => {
    api.queueAnswer = [entry('1')];
    await look();
    api.queueAnswer = [];
    api.kernelsAnswer = [kernel('kernel-b')];
    await look();
    const shown = manager.notifications[0];
    expect(shown.message).toBe('B.ipynb has GPU 1');
    expect(shown.type).toBe('success');
    expect(shown.options.actions).toEqual([]);
    expect(shown.options.autoClose).toBeGreaterThan(0);
  });

  it('goes away without a word when the kernel never started', async () => {
    api.queueAnswer = [entry('1')];
    await look();
    api.queueAnswer = [];
    await look();
    expect(manager.count).toBe(0);
  });

  it('cancels the entry, and stays until the server has confirmed', async () => {
    api.queueAnswer = [entry('7')];
    await look();
    const event = await cancel();
    expect(event.defaultPrevented).toBe(true);
    expect(api.calls).toContain('cancel 7');
    expect(manager.count).toBe(1);
    api.queueAnswer = [];
    await look();
    expect(manager.count).toBe(0);
  });

  it('says when cancelling failed, and that it still waits', async () => {
    api.queueAnswer = [entry('7')];
    await look();
    api.failure = new GPUError('failed', 'The ledger is locked.', 503);
    await cancel();
    expect(manager.count).toBe(2);
    expect(manager.notifications[0].type).toBe('error');
    expect(manager.notifications[0].message).toBe(
      'B.ipynb still waits: The ledger is locked.'
    );
  });

  it('keeps what it shows while the server is away', async () => {
    api.queueAnswer = [entry('1')];
    await look();
    api.failure = new Error('away');
    await model.queue.refresh().catch(() => undefined);
    await settled();
    expect(manager.count).toBe(1);
  });

  it('takes everything down when it is disposed', async () => {
    api.queueAnswer = [entry('1'), entry('2')];
    await look();
    expect(manager.count).toBe(2);
    notices.dispose();
    expect(manager.count).toBe(0);
  });

  it("uses JupyterLab's own notifications unless told otherwise", async () => {
    const own = new WaitingNotices({
      model,
      trans: nullTranslator.load('test')
    });
    api.queueAnswer = [entry('1')];
    await look();
    expect(Notification.manager.count).toBe(1);
    own.dispose();
    expect(Notification.manager.count).toBe(0);
  });
});
