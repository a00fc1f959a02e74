import { IDisposable } from '@lumino/disposable';
import { ISignal } from '@lumino/signaling';

import { LeaseColours } from './colours';
import { Feed } from './feed';
import { Gathering } from './gathering';
import { UsageHistory } from './history';
import {
  IChangedKernel,
  IDevices,
  IKernel,
  IKernelChange,
  IKernels,
  IQueue,
  IStatus
} from './rest';
import { IGPUAPI, IGPUModel } from './tokens';

/** The pace of figures that people look at. */
const LIVE_INTERVAL_MS = 1_000;

/** The pace of what hardly ever changes. */
const STATUS_INTERVAL_MS = 60_000;

/** The points kept of each series for what is drawn small: the last minutes. */
const SHORT_CAPACITY = 300;

/** The points kept of each series while its chart is open: all that the server remembers. */
const LONG_CAPACITY = 6_000;

/** The model over a client of the GPU API. */
export class GPUModel implements IGPUModel, IDisposable {
  constructor(private readonly _api: IGPUAPI) {
    this.status = new Feed<IStatus>({
      name: 'status',
      request: () => _api.status(),
      interval_ms: STATUS_INTERVAL_MS
    });
    this.devices = new Feed<IDevices>({
      name: 'devices',
      request: () => _api.devices(),
      interval_ms: LIVE_INTERVAL_MS
    });
    this.kernels = new Feed<IKernels>({
      name: 'kernels',
      request: () => _api.kernels(),
      interval_ms: LIVE_INTERVAL_MS
    });
    this.queue = new Feed<IQueue>({
      name: 'queue',
      request: () => _api.queue(),
      interval_ms: LIVE_INTERVAL_MS
    });
    this.history = this._newHistory(SHORT_CAPACITY);
    this._gathering = new Gathering(
      [this.devices, this.kernels],
      [this.queue, this.status]
    );
  }

  readonly status: Feed<IStatus>;
  readonly devices: Feed<IDevices>;
  readonly kernels: Feed<IKernels>;
  readonly queue: Feed<IQueue>;
  readonly history: UsageHistory;
  readonly colours = new LeaseColours();

  get updated(): ISignal<unknown, void> {
    return this._gathering.updated;
  }

  get isDisposed(): boolean {
    return this.status.isDisposed;
  }

  /** Set the pace of the figures that people look at. */
  setRefreshInterval(interval_ms: number): void {
    for (const feed of [this.devices, this.kernels, this.queue]) {
      feed.interval_ms = interval_ms;
    }
  }

  kernel(id: string): Promise<IKernel> {
    return this._api.kernel(id);
  }

  async changeKernel(
    id: string,
    change: IKernelChange
  ): Promise<IChangedKernel> {
    const changed = await this._api.changeKernel(id, change);
    this._askAgain(this.kernels, this.devices);
    return changed;
  }

  async cancelWaiting(id: string): Promise<void> {
    await this._api.cancelWaiting(id);
    this._askAgain(this.queue);
  }

  recall(): UsageHistory {
    return this._newHistory(LONG_CAPACITY);
  }

  dispose(): void {
    this._gathering.dispose();
    this.history.dispose();
    for (const feed of [this.status, this.devices, this.kernels, this.queue]) {
      feed.dispose();
    }
  }

  private _newHistory(capacity: number): UsageHistory {
    return new UsageHistory({
      request: since => this._api.history(since),
      capacity,
      devices: this.devices,
      kernels: this.kernels
    });
  }

  /** Show the effect of an action at once; where that fails, the feed says so itself. */
  private _askAgain(...feeds: { refresh(): Promise<unknown> }[]): void {
    for (const feed of feeds) {
      feed.refresh().catch(() => undefined);
    }
  }

  private readonly _gathering: Gathering;
}
