import { LeaseColours } from '../colours';
import { IOverview, IView, Overviews } from '../overview';
import { IKernel } from '../rest';
import {
  device,
  entry,
  facts,
  GIB,
  holder,
  kernel,
  lease,
  using,
  VIEW
} from './fakes';

describe('Overviews', () => {
  let overviews: Overviews;

  beforeEach(() => {
    overviews = new Overviews(new LeaseColours());
  });

  const conditionOf = (overview: IOverview) =>
    overview.cards[0].rows[0].condition;

  it('gives each lease a row with what its kernel uses of that device', () => {
    const gpu = device('0', { leases: [lease('a')] });
    const [row] = overviews.next(facts([gpu], [holder('a')]), VIEW).cards[0]
      .rows;
    expect(row).toMatchObject({
      label: 'a.ipynb',
      used_bytes: 2 * GIB,
      cap_bytes: 8 * GIB,
      peak_bytes: 3 * GIB,
      condition: 'idle'
    });
  });

  it('tells near the cap, over it and lost apart, the worst first', () => {
    const gpu = device('0', { leases: [lease('a')] });
    const next = (k: IKernel, d = gpu) =>
      conditionOf(overviews.next(facts([d], [k]), VIEW));
    expect(next(using('a', 7.1 * GIB))).toBe('idle');
    expect(next(using('a', 7.2 * GIB))).toBe('near-cap');
    expect(next(using('a', 8 * GIB))).toBe('near-cap');
    const over = device('0', { leases: [lease('a', { over_cap: true })] });
    expect(next(using('a', 8 * GIB + 1))).toBe('near-cap');
    expect(next(using('a', 8 * GIB + 1), over)).toBe('over-cap');
    expect(next(using('a', 9 * GIB), { ...over, lost: true })).toBe('lost');
  });

  it('takes what it does not know for unknown, not for nothing', () => {
    const gpu = device('0', {
      leases: [lease('a', { used_bytes: null })],
      memory_used_bytes: null
    });
    const found = holder('a');
    const unknown = {
      ...found,
      devices: [{ ...found.devices[0], used_bytes: null }]
    };
    const overview = overviews.next(facts([gpu], [unknown]), VIEW);
    expect(overview.cards[0].rows[0].used_bytes).toBeNull();
    expect(overview.memory_used_bytes).toBeNull();
  });

  it('shows what is used, what is reserved, what is not ours and what nobody accounts for', () => {
    const gpu = device('0', {
      leases: [lease('a')],
      foreign_bytes: 4 * GIB,
      memory_used_bytes: 7 * GIB
    });
    const { segments } = overviews.next(facts([gpu], [holder('a')]), VIEW)
      .cards[0];
    expect(
      segments.map(s => [s.kind, s.used_bytes / GIB, s.extent_bytes / GIB])
    ).toEqual([
      ['lease', 2, 8],
      ['foreign', 4, 4],
      ['unattributed', 1, 1]
    ]);
  });

  it('leaves rows and segments that did not change as they are', () => {
    const gpu = device('0', { leases: [lease('a'), lease('b')] });
    const kernels = [holder('a'), holder('b')];
    const first = overviews.next(facts([gpu], kernels), VIEW).cards[0];
    const second = overviews.next(
      facts([gpu], [using('a', GIB), holder('b')]),
      {
        ...VIEW
      }
    ).cards[0];
    expect(second.rows[0]).not.toBe(first.rows[0]);
    expect(second.rows[1]).toBe(first.rows[1]);
    expect(second.segments).toBe(first.segments);
  });

  it('finds kernels, devices and states by words', () => {
    const gpus = [
      device('0', { leases: [lease('train'), lease('eval')] }),
      device('1', { name: 'NVIDIA H100', uuid: 'GPU-00000000' })
    ];
    const known = facts(gpus, [holder('train'), holder('eval')], {
      queue: [entry('q')]
    });
    const next = (filter: string) => overviews.next(known, { ...VIEW, filter });
    expect(next('TRAIN').cards.map(c => c.rows.map(r => r.label))).toEqual([
      ['train.ipynb']
    ]);
    expect(next('train').cards[0].hiddenRows).toBe(1);
    expect(next('h100').cards.map(c => c.device.index)).toEqual(['1']);
    expect(next('gpu 0').cards).toHaveLength(1);
    expect(next('GPU0').cards[0].rows).toHaveLength(2);
    expect(next('gpu-0000').cards.map(c => c.device.index)).toEqual(['1']);
    expect(next('waiting').waiting).toHaveLength(1);
    expect(next('nothing').cards).toEqual([]);
  });

  it('puts kernels in the order that was asked for, and those in trouble on top otherwise', () => {
    const gpu = device('0', {
      leases: [lease('a'), lease('b', { over_cap: true }), lease('c')]
    });
    const known = facts(
      [gpu],
      [using('a', GIB), using('b', 9 * GIB), using('c', 3 * GIB)]
    );
    const labels = (order: IView['order']) =>
      overviews
        .next(known, { ...VIEW, order })
        .cards[0].rows.map(row => row.label[0])
        .join('');
    expect(labels('gpu')).toBe('bac');
    expect(labels('memory')).toBe('bca');
    expect(labels('name')).toBe('abc');
  });

  it('does not work on cards that are out of sight, but for what came or went on them', () => {
    const gpu = device('0', { leases: [lease('a')] });
    const unseen = { ...VIEW, isSeen: () => false };
    const first = overviews.next(facts([gpu], [holder('a')]), unseen).cards[0];
    const known = facts([gpu], [using('a', GIB)], { time: 10_001 });
    expect(overviews.next(known, unseen).cards[0]).toBe(first);
    const more = { ...gpu, leases: [lease('a'), lease('b')] };
    expect(
      overviews.next(facts([more], [holder('a')]), unseen).cards[0].rows
    ).toHaveLength(2);
    expect(overviews.next(known, VIEW).cards[0]).not.toBe(first);
  });

  it('shows whose leases are out of sight as soon as the kernels are known', () => {
    const gpu = device('0', { leases: [lease('a')] });
    const unseen = { ...VIEW, isSeen: () => false };
    const [before] = overviews.next(facts([gpu], []), unseen).cards[0].rows;
    expect(before.kernelId).toBeNull();
    const [after] = overviews.next(facts([gpu], [holder('a')]), unseen).cards[0]
      .rows;
    expect(after.kernelId).toBe('a');
  });

  it('lists kernels without a GPU, and not those that wait for one', () => {
    const overview = overviews.next(
      facts(
        [device('0')],
        [
          kernel('cpu', { state: 'cpu', devices: [], notices: ['No GPU 7.'] }),
          kernel('waits', { state: 'waiting', devices: [] })
        ]
      ),
      VIEW
    );
    expect(overview.unassigned.map(k => [k.kernelId, k.notice])).toEqual([
      ['cpu', 'No GPU 7.']
    ]);
  });

  it('shows a kernel once that has its lease before it knows of it', () => {
    const gpu = device('0', { leases: [lease('a')] });
    const starting = holder('a', { devices: [], state: 'starting' });
    const overview = overviews.next(facts([gpu], [starting]), VIEW);
    expect(overview.cards[0].rows.map(row => row.kernelId)).toEqual(['a']);
    expect(overview.unassigned).toEqual([]);
  });

  it('says what becomes of a kernel that holds memory and computes nothing', () => {
    const gpu = device('0', { leases: [lease('a')] });
    const next = (change: Partial<IKernel>) => {
      const { cards } = overviews.next(
        facts([gpu], [holder('a', change)]),
        VIEW
      );
      const { idle_policy, idle_left_min, idle_min } = cards[0].rows[0];
      return [idle_policy, idle_left_min, idle_min];
    };
    const idle = {
      since: 10_000 - 3600,
      policy: 'shut-down' as const,
      action_at: 10_000 + 90,
      exempt: false
    };
    expect(next({})).toEqual([null, null, null]);
    expect(next({ idle: null })).toEqual([null, null, null]);
    expect(next({ idle })).toEqual(['shut-down', 2, 60]);
    expect(next({ idle: { ...idle, action_at: 9_000 } })).toEqual([
      'shut-down',
      1,
      60
    ]);
    expect(next({ idle: { ...idle, exempt: true } })).toEqual([
      'kept',
      null,
      60
    ]);
    expect(
      next({ idle: { ...idle, policy: 'mark', action_at: null } })
    ).toEqual(['mark', null, 60]);
  });
});
