import { Dialog, Notification, showDialog } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';

import { ILaunched } from './launch';
import { IKernel } from './rest';
import { IGPUModel, ILaunches } from './tokens';

/** JupyterLab cuts a notification's text here. */
const MESSAGE_LIMIT = 140;

/** How long a warning stays on the screen; afterwards it is in the list of notifications. */
const WARNING_SHOWN_MS = 10_000;

/** Shows once what the server has to say about how a kernel started, such as that it runs without a GPU. */
export class LaunchNotices implements IDisposable {
  constructor(options: LaunchNotices.IOptions) {
    this._model = options.model;
    this._trans = options.trans;
    this._enabled = options.enabled ?? (() => true);
    this._notify =
      options.notify ?? Notification.manager.notify.bind(Notification.manager);
    options.launches.launched.connect(this._onLaunched, this);
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

  private async _onLaunched(
    _: ILaunches,
    { kernel }: ILaunched
  ): Promise<void> {
    await this._check(kernel.id);
    // What concerns the inside of the kernel is known once it has answered.
    await kernel.info.catch(() => undefined);
    await this._check(kernel.id);
  }

  private async _check(kernelId: string): Promise<void> {
    let kernel: IKernel;
    try {
      kernel = await this._model.kernel(kernelId);
    } catch {
      return; // Not started through us, gone again, or no server: nothing to tell.
    }
    const told = this._told.get(kernelId) ?? new Set();
    this._told.set(kernelId, told);
    for (const notice of kernel.notices) {
      if (!told.has(notice) && !this._isDisposed && this._enabled()) {
        told.add(notice);
        this._tell(`${kernel.label}: ${notice}`);
      }
    }
  }

  private _tell(message: string): void {
    const actions =
      message.length > MESSAGE_LIMIT ? [this._detailsAction(message)] : [];
    this._notify(message, 'warning', { autoClose: WARNING_SHOWN_MS, actions });
  }

  private _detailsAction(message: string): Notification.IAction {
    return {
      label: this._trans.__('Details'),
      callback: () => {
        void showDialog({
          title: this._trans.__('About this kernel'),
          body: message,
          buttons: [Dialog.okButton()]
        });
      }
    };
  }

  private readonly _model: IGPUModel;
  private readonly _trans: TranslationBundle;
  private readonly _enabled: () => boolean;
  private readonly _notify: LaunchNotices.Notify;
  /** What has been told, by kernel. */
  private readonly _told = new Map<string, Set<string>>();
  private _isDisposed = false;
}

export namespace LaunchNotices {
  export interface IOptions {
    launches: ILaunches;
    model: IGPUModel;
    trans: TranslationBundle;
    /** Whether a person wants to be told. */
    enabled?: () => boolean;
    /** Where notifications go; the default is JupyterLab's own. */
    notify?: Notify;
  }

  export type Notify = typeof Notification.manager.notify;
}
