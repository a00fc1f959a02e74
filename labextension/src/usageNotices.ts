import { Notification } from '@jupyterlab/apputils';
import { Event } from '@jupyterlab/services';
import { TranslationBundle } from '@jupyterlab/translation';
import { ReadonlyPartialJSONObject } from '@lumino/coreutils';
import { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';

import { CommandIDs } from './tokens';

/** How long a notification stays on the screen; afterwards it is in the list of notifications. */
const SHOWN_MS = 10_000;

/** What the server tells on its event bus (`jupyter_gpu/server/events/`), as far as a person wants to know. */
const NOTICES: { readonly [event: string]: INotice } = {
  'memory/v1 near-cap': { type: 'warning', offers: 'change' },
  'memory/v1 over-cap': { type: 'error', offers: 'change' },
  'lease/v1 gpu-lost': { type: 'error', offers: 'change' },
  'lease/v1 lease-lost': { type: 'error', offers: 'change' },
  'idle/v1 idle': { type: 'info', offers: 'keep' },
  'idle/v1 warned': { type: 'warning', offers: 'keep' },
  'idle/v1 downgraded': { type: 'warning', offers: 'change' },
  'idle/v1 shut-down': { type: 'warning', offers: 'nothing' }
};

/** How a person is told of an event. */
interface INotice {
  readonly type: 'info' | 'warning' | 'error';
  /** What can be done about it. */
  readonly offers: 'change' | 'keep' | 'nothing';
}

/** What the names of the server's events begin with. */
const SCHEMAS = 'https://schema.jupyter.org/jupyter_gpu/';

/**
 * Tells when a kernel nears its cap, passes it, loses its GPU, or holds a GPU for nothing.
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
    if (!schema_id.startsWith(SCHEMAS)) {
      return;
    }
    const name = `${schema_id.slice(SCHEMAS.length)} ${String(event)}`;
    const notice = NOTICES[name];
    if (!notice || typeof message !== 'string' || !this._options.enabled()) {
      return;
    }
    this._notify(message, notice.type, {
      autoClose: SHOWN_MS,
      actions:
        typeof kernel_id === 'string' ? this._actions(notice, kernel_id) : []
    });
  }

  private _actions(
    { offers }: INotice,
    kernelId: string
  ): Notification.IAction[] {
    const { trans, run } = this._options;
    switch (offers) {
      case 'change':
        return [
          {
            label: trans.__('Change'),
            caption: trans.__('Choose another GPU or more memory'),
            callback: () => run(CommandIDs.changeGPU, { kernelId })
          }
        ];
      case 'keep':
        return [
          {
            label: trans.__('Keep'),
            caption: trans.__('Leave this kernel alone when it is idle'),
            callback: () =>
              run(CommandIDs.keepWhenIdle, { kernelId, isKept: true })
          }
        ];
      case 'nothing':
        return [];
    }
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
    run: (command: string, args: ReadonlyPartialJSONObject) => void;
    /** Where notifications go; the default is JupyterLab's own. */
    notify?: Notify;
  }

  export type Notify = typeof Notification.manager.notify;
}
