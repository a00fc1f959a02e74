/**
 * What the panel shows, worked out of the server's answers. Pure, but for the colours, which stay with their leases.
 *
 * Rows and segments that did not change stay the same objects, so that a view can leave alone what shows them.
 */

import { nearsCap } from './cap';
import { LeaseColours } from './colours';
import { haveSame } from './likeness';
import {
  Hold,
  IDevice,
  IdlePolicy,
  IKernel,
  IKernelDevice,
  ILease,
  IQueueEntry
} from './rest';
import { edgeAt, SPARKLINE } from './sparkline';

/** How a kernel is doing on a device, the worst first. */
export type Condition =
  | 'lost'
  | 'over-cap'
  | 'near-cap'
  | 'problem'
  | 'waiting'
  | 'starting'
  | 'busy'
  | 'idle'
  /** A command, or a kernel of another server. */
  | 'elsewhere';

/** The orders in which kernels can be listed. */
export type Order = 'gpu' | 'memory' | 'utilization' | 'idle' | 'name';

/** One lease on one device. */
export interface IRow {
  /** Unique in the panel, and the same as long as the lease is. */
  readonly key: string;
  readonly uuid: string;
  readonly label: string;
  readonly path: string | null;
  /** Null for what is not this server's kernel. */
  readonly kernelId: string | null;
  readonly isCommand: boolean;
  readonly pid: number | null;
  /** One of the series' colours, from 1 on. */
  readonly colour: number;
  readonly condition: Condition;
  readonly hold: Hold;
  readonly reserved_bytes: number | null;
  readonly cap_bytes: number | null;
  readonly used_bytes: number | null;
  readonly used_reason: string | null;
  readonly peak_bytes: number | null;
  readonly peak_kind: 'exact' | 'sampled' | null;
  readonly utilization_percent: number | null;
  readonly utilization_reason: string | null;
  /** Full minutes; null where it is busy, or where that is unknown. */
  readonly idle_min: number | null;
  /** What the server does about its idleness, or `kept` where a person wants nothing done; null for nothing. */
  readonly idle_policy: IdlePolicy | 'kept' | null;
  /** Full minutes until then; null where nothing is going to be done. */
  readonly idle_left_min: number | null;
  readonly pending_request: string | null;
  /** The indices of the other devices that the lease holds, such as `1, 2`. */
  readonly alsoOn: string;
  /** The moment that its line ends with, and what is at the line's upper edge: its cap, or else the device's memory. */
  readonly end_s: number;
  readonly scale_bytes: number | null;
}

/** A part of a device's memory. */
export interface ISegment {
  readonly key: string;
  readonly kind: 'lease' | 'foreign' | 'unattributed';
  /** 0 where it is no lease's. */
  readonly colour: number;
  readonly used_bytes: number;
  /** What it takes up at least: its use, or its reservation if that is more. */
  readonly extent_bytes: number;
  readonly label: string;
}

/** One device with all that is on it. */
export interface ICard {
  readonly device: IDevice;
  readonly segments: readonly ISegment[];
  readonly rows: readonly IRow[];
  /** Rows that the filter hides. */
  readonly hiddenRows: number;
}

/** A kernel of this server that holds no GPU. */
export interface IUnassigned {
  readonly kernelId: string;
  readonly label: string;
  readonly path: string | null;
  readonly condition: Condition;
  readonly notice: string | null;
  readonly pending_request: string | null;
}

/** All of it. */
export interface IOverview {
  /** The moment, in seconds since the epoch by the server's clock. */
  readonly time: number;
  readonly cards: readonly ICard[];
  readonly waiting: readonly IQueueEntry[];
  readonly unassigned: readonly IUnassigned[];
  readonly deviceCount: number;
  readonly leaseCount: number;
  readonly memory_used_bytes: number | null;
  readonly memory_bytes: number | null;
}

/** What the overview is worked out of. */
export interface IFacts {
  readonly time: number;
  readonly devices: readonly IDevice[];
  readonly kernels: readonly IKernel[];
  readonly queue: readonly IQueueEntry[];
}

/** How people want to see it. */
export interface IView {
  readonly filter: string;
  readonly order: Order;
  /** From this share of the cap on, in percent, a kernel is near it. */
  readonly nearCap_percent: number;
  /** Whether a device's card is on the screen, or close to it. */
  readonly isSeen: (uuid: string) => boolean;
}

/** Cards that are not on the screen are brought up to date so rarely, and each at its own pace. */
const UNSEEN_S = 20;

/** By so much later than the lines of one card those of the next move on. */
const PHASE_S = 1;

/** What memory nobody accounts for is too little to show, as a share of the device's. */
const NEGLIGIBLE = 0.005;

/** What a filter is made of: words, and GPUs by their index, such as `gpu 3`, which is in many a UUID and a name. */
const WORDS = /gpu\s*\d+(\.\d+)?(?!\S)|\S+/g;
const UNIT = /^gpu\s*(\d+(?:\.\d+)?)$/;

const SEVERITY: readonly Condition[] = [
  'lost',
  'over-cap',
  'near-cap',
  'problem',
  'waiting',
  'starting',
  'busy',
  'idle',
  'elsewhere'
];

/** Works out overviews one after the other. */
export class Overviews {
  constructor(private readonly _colours: LeaseColours) {}

  next(facts: IFacts, view: IView): IOverview {
    const kernels = new Map(facts.kernels.map(k => [k.kernel_id, k]));
    const words = view.filter.toLowerCase().match(WORDS) ?? [];
    const cards = facts.devices.flatMap(
      (device, place) =>
        this._unseen(device, place, facts.time, kernels, view) ??
        this._card(device, place, facts, kernels, view, words)
    );
    this._colours.keep(
      facts.devices.flatMap(device => device.leases.map(l => l.lease_id))
    );
    const leasable = facts.devices.filter(device => device.leasable);
    const overview: IOverview = {
      time: facts.time,
      cards,
      waiting: steady(
        this._last?.waiting,
        facts.queue.filter(entry =>
          matches(words, [entry.label, entry.path, entry.request, 'waiting'])
        ),
        'id'
      ),
      unassigned: steady(
        this._last?.unassigned,
        unassigned(facts).filter(kernel =>
          matches(words, [kernel.label, kernel.path, 'cpu', kernel.condition])
        ),
        'kernelId'
      ),
      deviceCount: leasable.length,
      leaseCount: new Set(
        leasable.flatMap(device => device.leases.map(l => l.lease_id))
      ).size,
      memory_used_bytes: total(leasable.map(d => d.memory_used_bytes)),
      memory_bytes: total(leasable.map(d => d.memory_bytes))
    };
    this._last = overview;
    return overview;
  }

  /**
   * The card of a device as it was, where it is not on the screen and nothing but figures has changed.
   *
   * What is not seen need not be drawn; it is brought up to date by and by, for whoever searches or listens.
   */
  private _unseen(
    device: IDevice,
    place: number,
    time: number,
    kernels: ReadonlyMap<string, IKernel>,
    view: IView
  ): readonly ICard[] | null {
    const structure = [
      view.filter,
      view.order,
      device.lost,
      ...device.leases.map(({ lease_id, owner }) =>
        kernels.has(owner.kernel_id ?? '') ? `${lease_id}+` : lease_id
      )
    ].join(' ');
    const before = this._drawn.get(device.uuid);
    if (
      before?.structure === structure &&
      time - before.time < UNSEEN_S + place &&
      !view.isSeen(device.uuid)
    ) {
      const card = this._cardOf(device.uuid);
      return card ? [card] : [];
    }
    this._drawn.set(device.uuid, { structure, time });
    return null;
  }

  private _cardOf(uuid: string): ICard | undefined {
    return this._last?.cards.find(card => card.device.uuid === uuid);
  }

  private _card(
    device: IDevice,
    place: number,
    facts: IFacts,
    kernels: ReadonlyMap<string, IKernel>,
    view: IView,
    words: readonly string[]
  ): ICard[] {
    const end_s = edgeAt(facts.time, SPARKLINE, PHASE_S * place);
    const all = device.leases.map(lease =>
      this._row(device, lease, facts, kernels, view, end_s)
    );
    const own = [`gpu ${device.index}`, device.name, device.uuid];
    const rows = matches(words, own)
      ? all
      : all.filter(row =>
          matches(words, [
            ...own,
            row.label,
            row.path,
            row.condition,
            row.idle_policy && `idle ${row.idle_policy}`
          ])
        );
    if (words.length && !rows.length && !matches(words, own)) {
      return [];
    }
    const before = this._cardOf(device.uuid);
    return [
      {
        device,
        segments: steady(before?.segments, this._segments(device), 'key'),
        rows: steady(before?.rows, ordered(rows, view.order), 'key'),
        hiddenRows: all.length - rows.length
      }
    ];
  }

  private _row(
    device: IDevice,
    lease: ILease,
    facts: IFacts,
    kernels: ReadonlyMap<string, IKernel>,
    view: IView,
    end_s: number
  ): IRow {
    const { owner } = lease;
    const kernel =
      (owner.mine && owner.kernel_id && kernels.get(owner.kernel_id)) || null;
    const usage = kernel?.devices.find(d => d.uuid === device.uuid) ?? null;
    const used = usage ? usage.used_bytes : lease.used_bytes;
    const cap = usage ? usage.cap_bytes : lease.cap_bytes;
    return {
      key: `${lease.lease_id} ${device.uuid}`,
      uuid: device.uuid,
      label: kernel?.label ?? owner.label,
      path: kernel?.path ?? owner.path,
      kernelId: kernel?.kernel_id ?? null,
      isCommand: owner.kind === 'command',
      pid: owner.pid,
      colour: this._colours.of(lease.lease_id),
      condition: conditionOn(
        device,
        kernel,
        lease.over_cap,
        nearsCap(used, cap, view.nearCap_percent)
      ),
      hold: lease.kind,
      reserved_bytes: lease.memory_bytes,
      cap_bytes: cap,
      used_bytes: used,
      used_reason: usage?.reasons['used_bytes'] ?? null,
      peak_bytes: usage?.peak_bytes ?? null,
      peak_kind: usage?.peak_kind ?? null,
      utilization_percent: usage?.utilization_percent ?? null,
      utilization_reason: usage?.reasons['utilization_percent'] ?? null,
      idle_min: idleMinutes(kernel, facts.time),
      ...idleOutlook(kernel, facts.time),
      pending_request: kernel?.pending_request ?? null,
      alsoOn: otherDevices(kernel, usage),
      end_s,
      scale_bytes: cap ?? device.memory_bytes
    };
  }

  private _segments(device: IDevice): ISegment[] {
    const segments: ISegment[] = device.leases
      .map(lease => {
        const used = lease.used_bytes ?? 0;
        return {
          key: lease.lease_id,
          kind: 'lease' as const,
          colour: this._colours.of(lease.lease_id),
          used_bytes: used,
          extent_bytes: Math.max(used, reservation(lease, device)),
          label: lease.owner.label
        };
      })
      .filter(segment => segment.extent_bytes > 0);
    const foreign = device.foreign_bytes ?? 0;
    const leased = sum(device.leases.map(lease => lease.used_bytes ?? 0));
    const rest = (device.memory_used_bytes ?? 0) - leased - foreign;
    const plain = (kind: 'foreign' | 'unattributed', bytes: number) => {
      if (bytes > NEGLIGIBLE * (device.memory_bytes ?? 0)) {
        segments.push({
          key: kind,
          kind,
          colour: 0,
          used_bytes: bytes,
          extent_bytes: bytes,
          label: ''
        });
      }
    };
    plain('foreign', foreign);
    plain('unattributed', rest);
    return segments;
  }

  private readonly _drawn = new Map<
    string,
    { readonly structure: string; readonly time: number }
  >();
  private _last: IOverview | null = null;
}

/**
 * A list like `next` in which every member that equals the one with its key in `last` is that very object, and which is
 * `last` itself where all are and none is missing.
 *
 * @param key - the name of the field that tells members apart
 */
export function steady<T extends object>(
  last: readonly T[] | undefined,
  next: readonly T[],
  key: keyof T
): readonly T[] {
  if (!last?.length) {
    return next;
  }
  const byKey = new Map(last.map(item => [item[key], item]));
  const items = next.map(item => {
    const before = byKey.get(item[key]);
    return before && haveSame(before, item) ? before : item;
  });
  const isSame =
    items.length === last.length && items.every((item, i) => item === last[i]);
  return isSame ? last : items;
}

function conditionOn(
  device: IDevice,
  kernel: IKernel | null,
  isOver: boolean,
  isNear: boolean
): Condition {
  if (device.lost || kernel?.state === 'lost') {
    return 'lost';
  }
  if (isOver) {
    return 'over-cap';
  }
  if (isNear) {
    return 'near-cap';
  }
  return kernel ? plainCondition(kernel) : 'elsewhere';
}

function plainCondition(kernel: IKernel): Condition {
  switch (kernel.state) {
    case 'waiting':
    case 'starting':
    case 'problem':
      return kernel.state;
    default:
      return kernel.execution_state === 'busy' ? 'busy' : 'idle';
  }
}

function idleMinutes(kernel: IKernel | null, now: number): number | null {
  const since = kernel?.idle_since ?? kernel?.idle?.since ?? null;
  return since === null ? null : Math.max(0, Math.floor((now - since) / 60));
}

function idleOutlook(
  kernel: IKernel | null,
  now: number
): Pick<IRow, 'idle_policy' | 'idle_left_min'> {
  const idle = kernel?.idle ?? null;
  if (!idle) {
    return { idle_policy: null, idle_left_min: null };
  }
  const isSpared = idle.exempt || idle.action_at === null;
  return {
    idle_policy: idle.exempt ? 'kept' : idle.policy,
    idle_left_min: isSpared
      ? null
      : Math.max(1, Math.ceil((idle.action_at! - now) / 60))
  };
}

function otherDevices(
  kernel: IKernel | null,
  usage: IKernelDevice | null
): string {
  const others = kernel?.devices.filter(device => device !== usage) ?? [];
  return others.map(device => device.index).join(', ');
}

function unassigned({ devices, kernels }: IFacts): IUnassigned[] {
  // A kernel that starts has its lease a moment before it knows of it.
  const holders = new Set(
    devices.flatMap(device => device.leases.map(l => l.owner.kernel_id))
  );
  return kernels
    .filter(
      kernel =>
        !kernel.devices.length &&
        kernel.state !== 'waiting' &&
        !holders.has(kernel.kernel_id)
    )
    .map(kernel => ({
      kernelId: kernel.kernel_id,
      label: kernel.label,
      path: kernel.path,
      condition: plainCondition(kernel),
      notice: kernel.notices.length ? kernel.notices.join(' ') : null,
      pending_request: kernel.pending_request
    }));
}

/** The memory of a device that is kept for a lease, in bytes. */
function reservation(lease: ILease, device: IDevice): number {
  return lease.kind === 'whole'
    ? (device.memory_bytes ?? 0) - (device.foreign_bytes ?? 0)
    : (lease.memory_bytes ?? 0);
}

function ordered(rows: readonly IRow[], order: Order): readonly IRow[] {
  const by: { [name in Order]: ((a: IRow, b: IRow) => number) | null } = {
    gpu: null,
    memory: (a, b) => (b.used_bytes ?? -1) - (a.used_bytes ?? -1),
    utilization: (a, b) =>
      (b.utilization_percent ?? -1) - (a.utilization_percent ?? -1),
    idle: (a, b) => (b.idle_min ?? -1) - (a.idle_min ?? -1),
    name: (a, b) => a.label.localeCompare(b.label)
  };
  const compare = by[order];
  if (!compare) {
    // In the order of their leases, but with those that want attention on top.
    return [...rows].sort((a, b) => urgency(a) - urgency(b));
  }
  return [...rows].sort(compare);
}

function urgency(row: IRow): number {
  const rank = SEVERITY.indexOf(row.condition);
  return rank <= SEVERITY.indexOf('over-cap') ? rank : SEVERITY.length;
}

function matches(
  words: readonly string[],
  texts: readonly (string | null)[]
): boolean {
  const lines = texts.join('\n').toLowerCase();
  return words.every(word => {
    const index = UNIT.exec(word)?.[1];
    return index === undefined
      ? lines.includes(word)
      : lines.split('\n').includes(`gpu ${index}`);
  });
}

function total(numbers: readonly (number | null)[]): number | null {
  return numbers.length && numbers.every(number => number !== null)
    ? sum(numbers as readonly number[])
    : null;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((all, number) => all + number, 0);
}
