import { ISessionContext } from '@jupyterlab/apputils';
import { Kernel, Session } from '@jupyterlab/services';
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

/** A kernel that came up in a session context. */
export interface ILaunched {
  readonly kernel: Kernel.IKernelConnection;
  /** Whether it is the kernel that was there before, started anew. */
  readonly restarted: boolean;
}

/**
 * Tells the launches of one session context from its merely connecting to a kernel that runs already.
 *
 * A context says `starting` before it starts or changes a kernel, and nothing before it connects to a session that
 * it found on the server.
 */
export class Launch implements IDisposable {
  constructor(readonly context: ISessionContext) {
    this._pending = isPending(context);
    context.statusChanged.connect(this._onStatusChanged, this);
    context.kernelChanged.connect(this._onKernelChanged, this);
  }

  /** Whether a kernel has been asked for and is not there yet. */
  get pending(): boolean {
    return this._pending;
  }

  /** Emitted when `pending` changed. */
  get pendingChanged(): ISignal<this, void> {
    return this._pendingChanged;
  }

  /** Emitted when a kernel came up because it was started, changed or restarted, as soon as the context has it. */
  get launched(): ISignal<this, ILaunched> {
    return this._launched;
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

  private _onStatusChanged(_: ISessionContext, status: Kernel.Status): void {
    if (status === 'starting') {
      this._starting = true;
    }
    this._checkPending();
  }

  private _onKernelChanged(
    _: ISessionContext,
    args: Session.ISessionConnection.IKernelChangedArgs
  ): void {
    const kernel = args.newValue;
    const before = this._kernelId;
    this._kernelId = kernel?.id ?? null;
    if (kernel) {
      const started = this._starting || before !== null;
      this._starting = false;
      if (started) {
        this._launched.emit({ kernel, restarted: kernel.id === before });
      }
    }
    this._checkPending();
  }

  private _checkPending(): void {
    const pending = isPending(this.context);
    if (pending !== this._pending) {
      this._pending = pending;
      this._pendingChanged.emit();
    }
  }

  private readonly _pendingChanged = new Signal<this, void>(this);
  private readonly _launched = new Signal<this, ILaunched>(this);
  private _pending: boolean;
  private _starting = false;
  private _kernelId: string | null = null;
  private _isDisposed = false;
}

function isPending(context: ISessionContext): boolean {
  switch (context.kernelDisplayStatus) {
    case 'starting':
    case 'restarting':
      return true;
    case 'initializing':
      // Without a kernel's name it waits for a person to choose one.
      return !context.hasNoKernel;
    default:
      return false;
  }
}
