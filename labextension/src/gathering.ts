import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import { IFeed } from './tokens';

/** Answers to questions that were asked together are waited for so long. */
const PATIENCE_MS = 400;

/**
 * Tells once of what came in at the same time.
 *
 * Feeds are asked together and answer one after the other. Whoever draws after each answer draws several times what
 * one frame could show.
 */
export class Gathering implements IDisposable {
  /**
   * @param _together - the feeds that are waited for while they are watched
   * @param others - the feeds that are told of, too, but never waited for
   */
  constructor(
    private readonly _together: readonly (IFeed<unknown> & {
      readonly isWatched: boolean;
    })[],
    others: readonly IFeed<unknown>[]
  ) {
    for (const feed of [..._together, ...others]) {
      feed.changed.connect(this._onChanged, this);
    }
  }

  /** Emitted after something changed. */
  get updated(): ISignal<this, void> {
    return this._updated;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    clearTimeout(this._timer);
    Signal.clearData(this);
  }

  private _onChanged(feed: IFeed<unknown>): void {
    this._arrived.add(feed);
    const isComplete = this._together.every(
      each => !each.isWatched || this._arrived.has(each)
    );
    if (isComplete) {
      // One of the others may have come with the same answer, and is about to tell of it.
      clearTimeout(this._timer);
      this._timer = setTimeout(() => this._tell());
    } else {
      this._timer ??= setTimeout(() => this._tell(), PATIENCE_MS);
    }
  }

  private _tell(): void {
    clearTimeout(this._timer);
    this._timer = undefined;
    this._arrived.clear();
    this._updated.emit();
  }

  private readonly _arrived = new Set<IFeed<unknown>>();
  private readonly _updated = new Signal<this, void>(this);
  private _timer: ReturnType<typeof setTimeout> | undefined;
  private _isDisposed = false;
}
