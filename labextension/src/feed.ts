import { DisposableDelegate, IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { ISignal, Signal } from '@lumino/signaling';

import { Freshness, IFeed, IWatchOptions } from './tokens';

/** The longest time between two attempts while the server does not answer. */
const BACKOFF_MAX_MS = 30_000;

/** A feed that asks with a given function. It asks while it is watched, and rests while the page is hidden. */
export class Feed<T> implements IFeed<T>, IDisposable {
  constructor(options: Feed.IOptions<T>) {
    this._request = options.request;
    this._interval_ms = options.interval_ms;
    this._now = options.now ?? Date.now;
    this._poll = new Poll({
      auto: false,
      name: `jupyter-gpu:${options.name}`,
      factory: () => this._ask(),
      frequency: this._frequency(),
      linger: 0,
      standby: () => (this._watchers.size === 0 ? true : 'when-hidden')
    });
  }

  get value(): T | null {
    return this._value;
  }

  get arrived_ms(): number | null {
    return this._arrived_ms;
  }

  get freshness(): Freshness {
    return this._freshness;
  }

  get error(): Error | null {
    return this._error;
  }

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get isDisposed(): boolean {
    return this._poll.isDisposed;
  }

  /** Whether anybody watches. */
  get isWatched(): boolean {
    return this._watchers.size > 0;
  }

  /** How long it waits between two askings when unwatched by anybody more eager. */
  get interval_ms(): number {
    return this._interval_ms;
  }

  set interval_ms(value: number) {
    this._interval_ms = value;
    this._retime();
  }

  watch(options: IWatchOptions = {}): IDisposable {
    const watcher = { interval_ms: options.interval_ms };
    this._watchers.add(watcher);
    this._retime();
    if (this._watchers.size === 1) {
      if (this._freshness === 'idle') {
        this._freshness = 'loading';
        this._changed.emit();
      }
      void this._poll.refresh();
    }
    return new DisposableDelegate(() => {
      if (!this._watchers.delete(watcher) || this.isDisposed) {
        return;
      }
      if (this._watchers.size === 0) {
        void this._poll.stop();
      } else {
        this._retime();
      }
    });
  }

  async refresh(): Promise<T> {
    return this._ask();
  }

  dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this._watchers.clear();
    this._poll.dispose();
    Signal.clearData(this);
  }

  /** Ask once; attempts that overlap share one request. */
  private _ask(): Promise<T> {
    this._asking ??= this._attempt().finally(() => {
      this._asking = null;
    });
    return this._asking;
  }

  private async _attempt(): Promise<T> {
    try {
      const value = await this._request();
      this._value = value;
      this._arrived_ms = this._now();
      this._freshness = 'fresh';
      this._error = null;
      return value;
    } catch (error) {
      this._freshness = 'stale';
      this._error = error instanceof Error ? error : new Error(String(error));
      throw this._error;
    } finally {
      if (!this.isDisposed) {
        this._changed.emit();
      }
    }
  }

  private _frequency() {
    const wishes = [...this._watchers].map(
      watcher => watcher.interval_ms ?? this._interval_ms
    );
    const interval = wishes.length ? Math.min(...wishes) : this._interval_ms;
    return {
      interval,
      backoff: true,
      max: Math.max(interval, BACKOFF_MAX_MS)
    };
  }

  /** Bring the poll's pace in line with the watchers' wishes. */
  private _retime(): void {
    const frequency = this._frequency();
    const faster = frequency.interval < this._poll.frequency.interval;
    this._poll.frequency = frequency;
    if (faster && this._watchers.size > 0) {
      // A pace takes effect with the next schedule only: a long wait that is under way must not delay it.
      void this._poll.refresh();
    }
  }

  private readonly _request: () => Promise<T>;
  private readonly _now: () => number;
  private readonly _poll: Poll<T>;
  private readonly _watchers = new Set<{ interval_ms: number | undefined }>();
  private readonly _changed = new Signal<this, void>(this);
  private _interval_ms: number;
  private _asking: Promise<T> | null = null;
  private _value: T | null = null;
  private _arrived_ms: number | null = null;
  private _freshness: Freshness = 'idle';
  private _error: Error | null = null;
}

export namespace Feed {
  export interface IOptions<T> {
    /** For debugging: the poll's name. */
    name: string;
    /** Brings the value from the server. */
    request: () => Promise<T>;
    /** The pace for watchers that wish for none of their own. */
    interval_ms: number;
    /** The clock, in milliseconds since the epoch. */
    now?: () => number;
  }
}
