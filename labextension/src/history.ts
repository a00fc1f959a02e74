import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import { IDevices, IHistory, IKernels, ISeries } from './rest';
import { IFeed, IUsageHistory } from './tokens';

/** Where the feeds were silent for longer, the server is asked for what was between. */
const LONGEST_STEP_S = 70;

/** Growing columns of one series. */
class Columns implements ISeries {
  /** @param _capacity - the points to keep at most; older ones are thinned out rather than dropped */
  constructor(private readonly _capacity: number) {}

  readonly t: number[] = [];
  readonly memory: (number | null)[] = [];
  readonly utilization: (number | null)[] = [];

  get last(): number {
    return this.t.length ? this.t[this.t.length - 1] : -Infinity;
  }

  add(t: number, memory: number | null, utilization: number | null): void {
    if (t <= this.last) {
      return;
    }
    this.t.push(t);
    this.memory.push(memory);
    this.utilization.push(utilization);
    if (this.t.length > this._capacity) {
      this._thin();
    }
  }

  /** Put points in their places by time; of moments that are here already, those here stay. */
  merge(series: ISeries): void {
    const points = new Map<number, [number | null, number | null]>();
    for (const source of [series, this]) {
      source.t.forEach((t, i) =>
        points.set(t, [source.memory[i] ?? null, source.utilization[i] ?? null])
      );
    }
    const sorted = [...points].sort(([a], [b]) => a - b);
    this._set(sorted);
    while (this.t.length > this._capacity) {
      this._thin();
    }
  }

  /** Keep the newer half as it is and every other point of the older: fine for minutes, coarse for hours. */
  private _thin(): void {
    const half = this.t.length >> 1;
    this._set(
      this.t
        .map((t, i): Point => [t, [this.memory[i], this.utilization[i]]])
        .filter((_, i) => i >= half || i % 2 === 0)
    );
  }

  private _set(points: readonly Point[]): void {
    this.t.length = this.memory.length = this.utilization.length = 0;
    for (const [t, [memory, utilization]] of points) {
      this.t.push(t);
      this.memory.push(memory);
      this.utilization.push(utilization);
    }
  }
}

/** A moment, and the memory and the utilisation then. */
type Point = [number, [number | null, number | null]];

/**
 * What devices and kernels have used over time, in bounded memory: what the server remembers, and from then on what
 * the feeds bring anyway.
 */
export class UsageHistory implements IUsageHistory, IDisposable {
  constructor(options: UsageHistory.IOptions) {
    this._request = options.request;
    this._capacity = options.capacity;
    options.devices.changed.connect(this._onDevices, this);
    options.kernels.changed.connect(this._onKernels, this);
  }

  get loaded(): ISignal<this, void> {
    return this._loaded;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    Signal.clearData(this);
  }

  device(uuid: string): ISeries | null {
    return this._devices.get(uuid) ?? null;
  }

  kernel(id: string, uuid: string): ISeries | null {
    return this._kernels.get(id)?.get(uuid) ?? null;
  }

  load(): Promise<void> {
    this._loading ??= this._load().finally(() => {
      this._loading = null;
    });
    return this._loading;
  }

  private async _load(): Promise<void> {
    const since = this._time;
    const history = await this._request(since);
    for (const [uuid, series] of Object.entries(history.devices)) {
      this._deviceColumns(uuid).merge(series);
    }
    for (const [id, byDevice] of Object.entries(history.kernels)) {
      for (const [uuid, series] of Object.entries(byDevice)) {
        this._kernelColumns(id, uuid).merge(series);
      }
    }
    this._time = Math.max(this._time, history.time);
    this._loaded.emit();
  }

  private _onDevices({ value, freshness }: IFeed<IDevices>): void {
    if (!value || freshness !== 'fresh') {
      return;
    }
    for (const device of value.devices) {
      this._deviceColumns(device.uuid).add(
        value.time,
        device.memory_used_bytes,
        device.utilization_percent
      );
    }
    this._advance(value.time);
  }

  private _onKernels({ value, freshness }: IFeed<IKernels>): void {
    if (!value || freshness !== 'fresh') {
      return;
    }
    for (const kernel of value.kernels) {
      for (const device of kernel.devices) {
        this._kernelColumns(kernel.kernel_id, device.uuid).add(
          value.time,
          device.used_bytes,
          device.utilization_percent
        );
      }
    }
    const alive = new Set(value.kernels.map(kernel => kernel.kernel_id));
    for (const id of this._kernels.keys()) {
      if (!alive.has(id)) {
        this._kernels.delete(id);
      }
    }
    this._advance(value.time);
  }

  /** Note that all is known up to a moment, or get what is missing before it. */
  private _advance(time: number): void {
    if (this._time === 0) {
      return; // Nobody has asked for the time before the page was loaded.
    }
    if (time - this._time > LONGEST_STEP_S) {
      this.load().catch(() => undefined); // The next step tries again.
    } else {
      this._time = Math.max(this._time, time);
    }
  }

  private _deviceColumns(uuid: string): Columns {
    return this._columnsIn(this._devices, uuid);
  }

  private _kernelColumns(id: string, uuid: string): Columns {
    let byDevice = this._kernels.get(id);
    if (!byDevice) {
      byDevice = new Map();
      this._kernels.set(id, byDevice);
    }
    return this._columnsIn(byDevice, uuid);
  }

  private _columnsIn(map: Map<string, Columns>, key: string): Columns {
    let columns = map.get(key);
    if (!columns) {
      columns = new Columns(this._capacity);
      map.set(key, columns);
    }
    return columns;
  }

  private readonly _request: (since: number) => Promise<IHistory>;
  private readonly _capacity: number;
  private readonly _devices = new Map<string, Columns>();
  private readonly _kernels = new Map<string, Map<string, Columns>>();
  private readonly _loaded = new Signal<this, void>(this);
  private _loading: Promise<void> | null = null;
  /** Up to this moment nothing is missing, in seconds since the epoch by the server's clock; 0 before the first load. */
  private _time = 0;
  private _isDisposed = false;
}

export namespace UsageHistory {
  export interface IOptions {
    /** Brings what was seen after a moment. */
    request: (since: number) => Promise<IHistory>;
    /** The points to keep of each series. */
    capacity: number;
    devices: IFeed<IDevices>;
    kernels: IFeed<IKernels>;
  }
}
