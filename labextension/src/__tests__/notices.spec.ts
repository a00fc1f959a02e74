import { NotificationManager } from '@jupyterlab/apputils';
import { nullTranslator } from '@jupyterlab/translation';

import { Launches } from '../launches';
import { GPUModel } from '../model';
import { LaunchNotices } from '../notices';
import { FakeAPI, FakeContext, kernel, settled } from './fakes';

describe('LaunchNotices', () => {
  let api: FakeAPI;
  let context: FakeContext;
  let manager: NotificationManager;
  let enabled: boolean;

  beforeEach(() => {
    api = new FakeAPI();
    context = new FakeContext();
    manager = new NotificationManager();
    enabled = true;
    const launches = new Launches();
    launches.of(context.asContext);
    new LaunchNotices({
      launches,
      model: new GPUModel(api),
      trans: nullTranslator.load('test'),
      notify: manager.notify.bind(manager),
      enabled: () => enabled
    });
  });

  const start = async () => {
    context.begin();
    context.arrive('k1', 'python3');
    await settled();
  };

  it('shows each notice of a launch once', async () => {
    api.kernelsAnswer = [
      kernel('k1', { notices: ['It runs on the CPU because GPU 1 is lost.'] })
    ];
    await start();
    context.restart();
    await settled();
    expect(manager.notifications.map(n => [n.type, n.message])).toEqual([
      ['warning', 'A.ipynb: It runs on the CPU because GPU 1 is lost.']
    ]);
  });

  it('tells nothing of kernels that ran before the page was opened', async () => {
    api.kernelsAnswer = [kernel('k1', { notices: ['Long ago.'] })];
    context.arrive('k1', 'python3');
    await settled();
    expect(manager.count).toBe(0);
  });

  it('is silent when notifications are not wanted, or the kernel is not ours', async () => {
    await start();
    enabled = false;
    api.kernelsAnswer = [kernel('k1', { notices: ['Now.'] })];
    context.restart();
    await settled();
    expect(manager.count).toBe(0);
  });

  it('offers the whole text where a notification would cut it', async () => {
    api.kernelsAnswer = [kernel('k1', { notices: ['long '.repeat(40)] })];
    await start();
    const actions = manager.notifications[0].options.actions!;
    expect(actions.map(action => action.label)).toEqual(['Details']);
  });
});
