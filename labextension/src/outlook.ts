/**
 * What would come of a request, as far as the page can tell from what it knows of the devices.
 *
 * The rules are placement's (`jupyter_gpu/leases/placement.py`). The server has the last word: meanwhile another
 * kernel may have taken what was free.
 */

import { IDevice, IKernel, ILease, IQueueEntry } from './rest';
import { AUTO, amountOn, CPU, IChoice, Memory, parseChoice } from './request';

/** What would come of a request. */
export interface IOutlook {
  /** The device that it would be placed on; null for the CPU, or where none has room. */
  readonly device: IDevice | null;
  readonly verdict:
    /** It can be had now. */
    | 'granted'
    /** It would wait until others have let go. */
    | 'waits'
    /** It can never be had here. */
    | 'impossible';
  /** The labels of those whom it would wait for. */
  readonly holders: readonly string[];
  /** The memory that it would have at least, in bytes; null where that is unknown, or for the CPU. */
  readonly memory_bytes: number | null;
  /** The most memory that any of the devices in question has; null where that is unknown. */
  readonly largest_bytes: number | null;
}

/** What is known when the outlook is asked for. */
export interface ISituation {
  readonly devices: readonly IDevice[];
  readonly queue: readonly IQueueEntry[];
  /** Tells the lease that the request would take the place of. */
  readonly isOwn: (lease: ILease) => boolean;
}

/** What would come of a choice. */
export function outlook(choice: IChoice, situation: ISituation): IOutlook {
  if (choice.device === CPU) {
    return {
      device: null,
      verdict: 'granted',
      holders: [],
      memory_bytes: null,
      largest_bytes: null
    };
  }
  const leasable = situation.devices.filter(device => device.leasable);
  const candidates =
    choice.device === AUTO
      ? leasable
      : leasable.filter(device => device.index === choice.device);
  const places = candidates
    .filter(device => couldEverFit(choice.memory, device))
    .map(device => new Place(device, situation));
  const fitting = places.filter(place => place.fits(choice.memory));
  const chosen = best(fitting, choice.memory);
  const verdict = !places.length ? 'impossible' : chosen ? 'granted' : 'waits';
  const known = candidates.flatMap(device => device.memory_bytes ?? []);
  return {
    device: chosen?.device ?? (places.length === 1 ? places[0].device : null),
    verdict,
    holders: verdict === 'waits' ? holdersOf(places) : [],
    memory_bytes: chosen ? chosen.guaranteed(choice.memory) : null,
    largest_bytes: known.length ? Math.max(...known) : null
  };
}

/** Whether a kernel would stay on the devices that it has, so that only its memory changes. */
export function staysOnDevice(
  choice: IChoice,
  kernel: Pick<IKernel, 'devices'>
): boolean {
  return (
    kernel.devices.length === 1 &&
    (choice.device === AUTO || choice.device === kernel.devices[0].index)
  );
}

/** The memory of a device that a lease could reserve now, in bytes; null where the device's memory is unknown. */
export function reservableBytes(
  device: IDevice,
  isOwn: (lease: ILease) => boolean = () => false
): number | null {
  if (device.memory_bytes === null) {
    return null;
  }
  return new Place(device, { devices: [], queue: [], isOwn }).reservable_bytes;
}

/** A device as somebody sees it whose own lease on it, if there is one, does not count. */
class Place {
  constructor(
    readonly device: IDevice,
    situation: ISituation
  ) {
    this.others = device.leases.filter(lease => !situation.isOwn(lease));
    this._isWhole = this.others.some(lease => lease.kind === 'whole');
    this._awaited = situation.queue
      .map(entry => parseChoice(entry.request, situation.devices))
      .filter(
        (choice): choice is IChoice =>
          choice !== null &&
          (choice.device === AUTO || choice.device === device.index)
      )
      .map(choice => choice.memory.kind);
  }

  readonly others: readonly ILease[];

  /** The memory that is neither reserved nor held by foreign processes. */
  get unreserved_bytes(): number {
    const reserved = sum(this.others.map(lease => lease.memory_bytes ?? 0));
    return Math.max(
      0,
      (this.device.memory_bytes ?? 0) -
        (this.device.foreign_bytes ?? 0) -
        reserved
    );
  }

  /** The largest reservation that could be granted. */
  get reservable_bytes(): number {
    if (this._isWhole) {
      return 0;
    }
    const beyond = this.others.map(lease =>
      Math.max(0, (lease.used_bytes ?? 0) - (lease.memory_bytes ?? 0))
    );
    return Math.max(0, this.unreserved_bytes - sum(beyond));
  }

  fits(memory: Memory): boolean {
    if (this._isWhole || this._mustQueue(memory)) {
      return false;
    }
    switch (memory.kind) {
      case 'shared':
        return true;
      case 'whole':
        return this.others.length === 0;
      case 'reserved': {
        const size = amountOn(memory.amount, this.device.memory_bytes);
        return size !== null && size <= this.reservable_bytes;
      }
    }
  }

  /** The memory that a hold could count on, in bytes. */
  guaranteed(memory: Memory): number | null {
    switch (memory.kind) {
      case 'shared':
        return this.device.memory_bytes === null ? null : this.reservable_bytes;
      case 'whole':
        return this.device.memory_bytes;
      case 'reserved':
        return amountOn(memory.amount, this.device.memory_bytes);
    }
  }

  /** Whether those who wait already come first. */
  private _mustQueue(memory: Memory): boolean {
    switch (memory.kind) {
      case 'shared':
        return this._awaited.includes('whole');
      case 'reserved':
        return this._awaited.some(kind => kind !== 'shared');
      case 'whole':
        return this._awaited.length > 0;
    }
  }

  private readonly _isWhole: boolean;
  private readonly _awaited: readonly Memory['kind'][];
}

/** The place that placement would take: the emptiest to share, the tightest to reserve. */
function best(places: readonly Place[], memory: Memory): Place | null {
  const order =
    memory.kind === 'shared'
      ? (a: Place, b: Place) =>
          b.unreserved_bytes - a.unreserved_bytes ||
          a.others.length - b.others.length ||
          (a.device.utilization_percent ?? 101) -
            (b.device.utilization_percent ?? 101)
      : (a: Place, b: Place) =>
          a.reservable_bytes - b.reservable_bytes ||
          b.others.length - a.others.length;
  return [...places].sort(order)[0] ?? null;
}

function couldEverFit(memory: Memory, device: IDevice): boolean {
  if (memory.kind !== 'reserved') {
    return true;
  }
  const size = amountOn(memory.amount, device.memory_bytes);
  return (
    size !== null && device.memory_bytes !== null && size <= device.memory_bytes
  );
}

function holdersOf(places: readonly Place[]): string[] {
  const labels = places.flatMap(place =>
    place.others.map(lease => lease.owner.label)
  );
  return [...new Set(labels)];
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
