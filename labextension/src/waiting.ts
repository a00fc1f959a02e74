import { Notification } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';

import { GPUError, messageOf } from './api';
import { IKernel, IQueue, IQueueEntry } from './rest';
import { IFeed, IGPUModel } from './tokens';

/** How long the good end of a wait stays on the screen. */
const GRANTED_SHOWN_MS = 4_000;

/** Shows each of this server's waiting requests as a notification, from its beginning to its end. */
export class WaitingNotices implements IDisposable {
  constructor(options: WaitingNotices.IOptions) {
    this._model = options.model;
    this._trans = options.trans;
    this._manager = options.manager ?? Notification.manager;
    this._model.queue.changed.connect(this._onQueueChanged, this);
    this._onQueueChanged(this._model.queue);
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    for (const { id } of this._shown.values()) {
      this._manager.dismiss(id);
    }
    this._shown.clear();
    Signal.clearData(this);
  }

  private _onQueueChanged(queue: IFeed<IQueue>): void {
    if (queue.freshness !== 'fresh' || !queue.value) {
      return; // What was shown may still be so: an unreachable server ends no wait.
    }
    const entries = new Map(
      queue.value.entries
        .filter(entry => entry.mine)
        .map(entry => [entry.id, entry])
    );
    for (const [id, shown] of this._shown) {
      if (!entries.has(id)) {
        this._shown.delete(id);
        void this._end(shown);
      }
    }
    for (const entry of entries.values()) {
      this._show(entry);
    }
  }

  private _show(entry: IQueueEntry): void {
    const message = `${entry.label} ${entry.message}`;
    const shown = this._shown.get(entry.id);
    if (!shown) {
      const id = this._manager.notify(message, 'in-progress', {
        autoClose: false,
        actions: [this._cancelAction(entry.id)]
      });
      this._shown.set(entry.id, { id, entry, message, cancelled: false });
    } else if (shown.message !== message) {
      shown.message = message;
      shown.entry = entry;
      this._manager.update({ id: shown.id, message });
    }
  }

  private _cancelAction(entryId: string): Notification.IAction {
    return {
      label: this._trans.__('Cancel'),
      caption: this._trans.__('Stop waiting for the GPU'),
      callback: event => {
        event.preventDefault(); // Keep it until the server has confirmed.
        void this._cancel(entryId);
      }
    };
  }

  private async _cancel(entryId: string): Promise<void> {
    const shown = this._shown.get(entryId);
    if (!shown || shown.cancelled) {
      return;
    }
    shown.cancelled = true;
    try {
      await this._model.cancelWaiting(entryId);
    } catch (error) {
      if (error instanceof GPUError && error.status === 404) {
        return; // It has just ended; the queue tells.
      }
      shown.cancelled = false;
      this._manager.notify(
        this._trans.__(
          '%1 still waits: %2',
          shown.entry.label,
          messageOf(error)
        ),
        'error',
        { autoClose: false }
      );
    }
  }

  /** The entry is gone from the queue: say what became of it. */
  private async _end(shown: WaitingNotices.IShown): Promise<void> {
    const { id, entry } = shown;
    if (shown.cancelled || !entry.kernel_id) {
      this._manager.dismiss(id);
      return;
    }
    let kernel: IKernel | null = null;
    try {
      kernel = await this._model.kernel(entry.kernel_id);
    } catch {
      // It never started, or is gone again; whoever started it has been told.
    }
    if (!kernel || kernel.devices.length === 0) {
      this._manager.dismiss(id);
      return;
    }
    this._manager.update({
      id,
      type: 'success',
      message: this._trans.__(
        '%1 has GPU %2',
        entry.label,
        kernel.devices.map(device => device.index).join(', ')
      ),
      actions: [],
      autoClose: GRANTED_SHOWN_MS
    });
  }

  private readonly _model: IGPUModel;
  private readonly _trans: TranslationBundle;
  private readonly _manager: WaitingNotices.IManager;
  private readonly _shown = new Map<string, WaitingNotices.IShown>();
  private _isDisposed = false;
}

export namespace WaitingNotices {
  export interface IOptions {
    model: IGPUModel;
    trans: TranslationBundle;
    /** Where notifications go; the default is JupyterLab's own. */
    manager?: IManager;
  }

  /** What is needed of JupyterLab's notification manager. */
  export type IManager = Pick<
    typeof Notification.manager,
    'notify' | 'update' | 'dismiss'
  >;

  /** One notification on the screen. */
  export interface IShown {
    /** The notification's. */
    id: string;
    entry: IQueueEntry;
    message: string;
    cancelled: boolean;
  }
}
