import { Notification } from '@jupyterlab/apputils';
import { Event } from '@jupyterlab/services';
import { TranslationBundle } from '@jupyterlab/translation';
import { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';

import { CommandIDs } from './tokens';

/** How long a notification stays on the screen; afterwards it is in the list of notifications. */
const SHOWN_MS = 10_000;

/** What the server tells on its event bus (`jupyter_gpu/server/events/`), as far as a person wants to know. */
const NOTICES: { readonly [event: string]: 'warning' | 'error' } = {
  'https://schema.jupyter.org/jupyter_gpu/memory/v1 near-cap': 'warning',
  'https://schema.jupyter.org/jupyter_gpu/memory/v1 over-cap': 'error',
  'https://schema.jupyter.org/jupyter_gpu/lease/v1 gpu-lost': 'error',
  'https://schema.jupyter.org/jupyter_gpu/lease/v1 lease-lost': 'error'
};

/**
 * Tells when a kernel nears its cap, passes it, or loses its GPU.
 *
 * When that is news the server decides; that a kernel waits, and has waited, is told by `WaitingNotices`.
 */
export class UsageNotices implements IDisposable {
  constructor(options: UsageNotices.IOptions) {
    this._options = options;
    this._notify =
      options.notify ?? Notification.manager.notify.bind(Notification.manager);
    options.events.connect(this._onEvent, this);
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

  private _onEvent(_: Event.IManager, emission: Event.Emission): void {
    const { schema_id, event, message, kernel_id } = emission;
    const type = NOTICES[`${schema_id} ${String(event)}`];
    if (!type || typeof message !== 'string' || !this._options.enabled()) {
      return;
    }
    const { trans, run } = this._options;
    this._notify(message, type, {
      autoClose: SHOWN_MS,
      actions:
        typeof kernel_id === 'string'
          ? [
              {
                label: trans.__('Change'),
                caption: trans.__('Choose another GPU or more memory'),
                callback: () => run(CommandIDs.changeGPU, kernel_id)
              }
            ]
          : []
    });
  }

  private readonly _options: UsageNotices.IOptions;
  private readonly _notify: UsageNotices.Notify;
  private _isDisposed = false;
}

export namespace UsageNotices {
  export interface IOptions {
    /** The server's event bus. */
    events: Event.Stream;
    trans: TranslationBundle;
    /** Whether a person wants to be told. */
    enabled: () => boolean;
    /** Run one of the commands for a kernel. */
    run: (command: string, kernelId: string) => void;
    /** Where notifications go; the default is JupyterLab's own. */
    notify?: Notify;
  }

  export type Notify = typeof Notification.manager.notify;
}
