import { ISessionContext } from '@jupyterlab/apputils';
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import { ILaunched, Launch } from './launch';
import { ILaunches } from './tokens';

/** The launches of every session context of this page. */
export class Launches implements ILaunches, IDisposable {
  get pending(): boolean {
    return this._pending;
  }

  get pendingChanged(): ISignal<this, void> {
    return this._pendingChanged;
  }

  get launched(): ISignal<this, ILaunched> {
    return this._launched;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  of(context: ISessionContext): Launch {
    let launch = this._launches.get(context);
    if (!launch) {
      launch = new Launch(context);
      this._launches.set(context, launch);
      launch.pendingChanged.connect(this._checkPending, this);
      launch.launched.connect(this._onLaunched, this);
      context.disposed.connect(this._forget, this);
      this._checkPending();
    }
    return launch;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    for (const launch of this._launches.values()) {
      launch.dispose();
    }
    this._launches.clear();
    Signal.clearData(this);
  }

  private _forget(context: ISessionContext): void {
    this._launches.get(context)?.dispose();
    this._launches.delete(context);
    this._checkPending();
  }

  private _onLaunched(_: Launch, launched: ILaunched): void {
    this._launched.emit(launched);
  }

  private _checkPending(): void {
    const pending = [...this._launches.values()].some(launch => launch.pending);
    if (pending !== this._pending) {
      this._pending = pending;
      this._pendingChanged.emit();
    }
  }

  private readonly _launches = new Map<ISessionContext, Launch>();
  private readonly _pendingChanged = new Signal<this, void>(this);
  private readonly _launched = new Signal<this, ILaunched>(this);
  private _pending = false;
  private _isDisposed = false;
}
