import { NotificationManager } from '@jupyterlab/apputils';
import { Event } from '@jupyterlab/services';
import { nullTranslator } from '@jupyterlab/translation';
import { Signal } from '@lumino/signaling';

import { CommandIDs } from '../tokens';
import { UsageNotices } from '../usageNotices';

const SCHEMAS = 'https://schema.jupyter.org/jupyter_gpu/';

describe('UsageNotices', () => {
  let events: Signal<object, Event.Emission>;
  let manager: NotificationManager;
  let enabled: boolean;
  let ran: unknown[][];

  beforeEach(() => {
    events = new Signal({});
    manager = new NotificationManager();
    enabled = true;
    ran = [];
    new UsageNotices({
      events: events as unknown as Event.Stream,
      trans: nullTranslator.load('test'),
      enabled: () => enabled,
      run: (...call) => ran.push(call),
      notify: manager.notify.bind(manager)
    });
  });

  const emit = (schema: string, event: string) =>
    events.emit({
      schema_id: schema,
      event,
      kernel_id: 'k1',
      message: `${event}!`
    });

  it.each([
    ['memory/v1', 'near-cap', 'warning', 'Change'],
    ['memory/v1', 'over-cap', 'error', 'Change'],
    ['lease/v1', 'gpu-lost', 'error', 'Change'],
    ['idle/v1', 'idle', 'info', 'Keep'],
    ['idle/v1', 'warned', 'warning', 'Keep'],
    ['idle/v1', 'downgraded', 'warning', 'Change'],
    ['idle/v1', 'shut-down', 'warning', undefined]
  ])('tells of %s %s', (schema, event, type, action) => {
    emit(SCHEMAS + schema, event);
    const [notice] = manager.notifications;
    expect([notice.type, notice.message]).toEqual([type, `${event}!`]);
    expect(notice.options.actions?.[0]?.label).toBe(action);
  });

  it('keeps a kernel when asked to, and does not undo it when asked twice', () => {
    emit(`${SCHEMAS}idle/v1`, 'warned');
    manager.notifications[0].options.actions![0].callback({} as MouseEvent);
    expect(ran).toEqual([
      [CommandIDs.keepWhenIdle, { kernelId: 'k1', isKept: true }]
    ]);
  });

  it("is silent about the queue's events, other people's, and when it is not wanted", () => {
    emit(`${SCHEMAS}lease/v1`, 'waiting');
    emit(`${SCHEMAS}idle/v1`, 'active');
    emit('https://events.jupyter.org/memory/v1', 'near-cap');
    enabled = false;
    emit(`${SCHEMAS}memory/v1`, 'near-cap');
    expect(manager.count).toBe(0);
  });
});
