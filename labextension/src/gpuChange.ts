import { Dialog, Notification, showDialog } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';

import { GPUError, messageOf } from './api';
import { keepRequest, OpenKernels } from './openKernels';
import { IKernel } from './rest';
import { IAnnouncement } from './sentences';
import { IGPUModel } from './tokens';
import { GPUFormBody, IPicked } from './widgets/gpuForm';

/** How long a good end is told. */
const DONE_SHOWN_MS = 3_000;

/** When a change that takes a restart is to happen. */
type When = 'now' | 'later';

/** Changes the GPU or the memory of kernels that run: asks what to, says what it takes, does it. */
export class GPUChange {
  constructor(options: GPUChange.IOptions) {
    this._model = options.model;
    this._open = options.open;
    this._trans = options.trans;
  }

  /** Ask in a dialog what a kernel is to have, and give it that. */
  async ask(kernelId: string): Promise<void> {
    const kernel = await this._kernel(kernelId);
    if (!kernel) {
      return;
    }
    let initial: string | undefined;
    let error: string | undefined;
    for (;;) {
      const picked = await this._dialog(kernel, initial, error);
      if (!picked?.request) {
        return;
      }
      error = await this.apply(kernel, picked.request, picked.announcement);
      if (error === undefined) {
        return;
      }
      initial = picked.request;
    }
  }

  /**
   * Give a kernel what a request asks for. Where that takes a restart, it is asked for first.
   *
   * @returns what is wrong with the request; undefined where nothing is
   */
  async apply(
    kernel: IKernel,
    request: string,
    announcement: IAnnouncement
  ): Promise<string | undefined> {
    if (announcement.tone === 'error') {
      return announcement.text;
    }
    if (request === presentRequest(kernel)) {
      return undefined;
    }
    const restarts = announcement.effect !== 'now';
    const when = restarts ? await this._confirm(kernel, announcement) : 'now';
    if (when === null) {
      return undefined;
    }
    try {
      await this._change(kernel, request, announcement, when);
    } catch (error) {
      if (error instanceof GPUError && error.kind === 'refused') {
        return error.message;
      }
      this._report(kernel, error);
    }
    return undefined;
  }

  private async _change(
    kernel: IKernel,
    request: string,
    announcement: IAnnouncement,
    when: When
  ): Promise<void> {
    const id = kernel.kernel_id;
    const open = this._open.byKernel(id);
    const waits = announcement.verdict === 'waits';
    const restarts = announcement.effect !== 'now' && when === 'now';
    if (restarts && waits) {
      // The kernel runs on until the server has what it waits for: nobody is kept from working.
      void this._changeThenReconnect(kernel, request);
      return;
    }
    // Where the kernel is open here it is restarted from here: then its cells and widgets know of it.
    const { applied, message } = await this._model.changeKernel(id, {
      request,
      restart: restarts && !open
    });
    if (applied === 'on-restart' && restarts && open) {
      await open.sessionContext.restartKernel();
    }
    this._keep(id, request);
    this._tell(
      restarts
        ? this._trans.__('%1 was restarted with %2.', kernel.label, request)
        : message
    );
  }

  private async _changeThenReconnect(
    kernel: IKernel,
    request: string
  ): Promise<void> {
    const id = kernel.kernel_id;
    try {
      const { message } = await this._model.changeKernel(id, {
        request,
        restart: true
      });
      this._keep(id, request);
      // The page's connection would go on listening to the process that is gone.
      await this._open
        .byKernel(id)
        ?.sessionContext.session?.kernel?.reconnect();
      this._tell(message);
    } catch (error) {
      this._report(kernel, error);
    }
  }

  private _keep(kernelId: string, request: string): void {
    const notebook = this._open.byKernel(kernelId)?.notebook;
    if (notebook && !notebook.readOnly) {
      keepRequest(notebook, request);
    }
  }

  private async _kernel(kernelId: string): Promise<IKernel | null> {
    try {
      const [kernel] = await Promise.all([
        this._model.kernel(kernelId),
        this._model.devices.refresh(),
        this._model.queue.refresh()
      ]);
      return kernel;
    } catch (error) {
      void showDialog({
        title: this._trans.__('The GPU cannot be changed'),
        body: messageOf(error),
        buttons: [Dialog.okButton()]
      });
      return null;
    }
  }

  private async _dialog(
    kernel: IKernel,
    initial: string | undefined,
    error: string | undefined
  ): Promise<IPicked | null> {
    const trans = this._trans;
    const body = new GPUFormBody({
      model: this._model,
      trans,
      present: presentRequest(kernel),
      initial,
      error,
      subject: { kernel, kernelId: kernel.kernel_id, disabled: null }
    });
    const result = await showDialog({
      title: trans.__('GPU of %1', kernel.label),
      body,
      buttons: [
        Dialog.cancelButton(),
        Dialog.okButton({ label: trans.__('Change') })
      ],
      focusNodeSelector: 'input:checked'
    });
    return result.button.accept ? result.value : null;
  }

  private async _confirm(
    kernel: IKernel,
    announcement: IAnnouncement
  ): Promise<When | null> {
    const trans = this._trans;
    const later = trans.__('At the Next Restart');
    const result = await showDialog({
      title: trans.__('Restart the kernel of %1?', kernel.label),
      body: announcement.text,
      buttons: [
        Dialog.cancelButton(),
        Dialog.okButton({ label: later, className: 'jp-gpu-mod-later' }),
        Dialog.warnButton({ label: trans.__('Restart') })
      ],
      defaultButton: 2
    });
    if (!result.button.accept) {
      return null;
    }
    return result.button.label === later ? 'later' : 'now';
  }

  private _tell(message: string): void {
    Notification.success(message, { autoClose: DONE_SHOWN_MS });
  }

  private _report(kernel: IKernel, error: unknown): void {
    Notification.error(
      this._trans.__(
        'The GPU of %1 was not changed: %2',
        kernel.label,
        messageOf(error)
      ),
      { autoClose: false }
    );
  }

  private readonly _model: IGPUModel;
  private readonly _open: OpenKernels;
  private readonly _trans: TranslationBundle;
}

export namespace GPUChange {
  export interface IOptions {
    model: IGPUModel;
    open: OpenKernels;
    trans: TranslationBundle;
  }
}

/** The request that counts for a kernel: the one to come, if there is one. */
export function presentRequest(kernel: IKernel): string | null {
  return kernel.pending_request ?? kernel.request;
}
