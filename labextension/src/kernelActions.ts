import { JupyterFrontEnd } from '@jupyterlab/application';
import {
  Dialog,
  ISessionContextDialogs,
  Notification,
  showDialog
} from '@jupyterlab/apputils';
import { KernelAPI, ServiceManager, Session } from '@jupyterlab/services';
import { TranslationBundle } from '@jupyterlab/translation';

import { messageOf } from './api';
import { OpenKernels } from './openKernels';
import { IGPUModel } from './tokens';

/** What can be done with a kernel of this server, whether or not it is open in this page. */
export class KernelActions {
  constructor(options: KernelActions.IOptions) {
    this._app = options.app;
    this._services = options.app.serviceManager;
    this._model = options.model;
    this._open = options.open;
    this._dialogs = options.dialogs;
    this._trans = options.trans;
  }

  /** Show the notebook or console of a kernel; open it where it is not. */
  async show(kernelId: string): Promise<void> {
    const open = this._open.byKernel(kernelId);
    if (open) {
      this._app.shell.activateById(open.widget.id);
      return;
    }
    const session = await this._session(kernelId);
    const { commands } = this._app;
    if (!session) {
      Notification.info(
        this._trans.__(
          'No notebook and no console is connected to this kernel.'
        )
      );
    } else if (
      session.type === 'console' &&
      commands.hasCommand('console:open')
    ) {
      await commands.execute('console:open', { path: session.path });
    } else {
      await commands.execute('docmanager:open', { path: session.path });
    }
  }

  async interrupt(kernelId: string): Promise<void> {
    const kernel =
      this._open.byKernel(kernelId)?.sessionContext.session?.kernel;
    await this._attempt(() =>
      kernel
        ? kernel.interrupt()
        : KernelAPI.interruptKernel(kernelId, this._services.serverSettings)
    );
  }

  /** Restart a kernel, once a person has said so. */
  async restart(kernelId: string): Promise<void> {
    const context = this._open.byKernel(kernelId)?.sessionContext;
    if (context && this._dialogs) {
      await this._dialogs.restart(context);
      return;
    }
    const trans = this._trans;
    const sure = await this._confirm(
      kernelId,
      name => trans.__('Restart the kernel of %1?', name),
      trans.__('Restart')
    );
    if (sure) {
      await this._attempt(() =>
        KernelAPI.restartKernel(kernelId, this._services.serverSettings)
      );
    }
  }

  /** Shut a kernel down, once a person has said so. */
  async shutDown(kernelId: string): Promise<void> {
    const trans = this._trans;
    const sure = await this._confirm(
      kernelId,
      name => trans.__('Shut down the kernel of %1?', name),
      trans.__('Shut Down')
    );
    if (!sure) {
      return;
    }
    const session = await this._session(kernelId);
    await this._attempt(() =>
      session
        ? this._services.sessions.shutdown(session.id)
        : this._services.kernels.shutdown(kernelId)
    );
  }

  private async _confirm(
    kernelId: string,
    title: (name: string) => string,
    label: string
  ): Promise<boolean> {
    const kernel = this._model.kernels.value?.kernels.find(
      ({ kernel_id }) => kernel_id === kernelId
    );
    const name =
      kernel?.label ||
      (await this._session(kernelId))?.name ||
      kernelId.slice(0, 8);
    const result = await showDialog({
      title: title(name),
      body: this._trans.__('All variables will be lost.'),
      buttons: [Dialog.cancelButton(), Dialog.warnButton({ label })]
    });
    return result.button.accept;
  }

  private async _session(kernelId: string): Promise<Session.IModel | null> {
    const { sessions } = this._services;
    const find = () => {
      for (const session of sessions.running()) {
        if (session.kernel?.id === kernelId) {
          return session;
        }
      }
      return null;
    };
    const known = find();
    if (!known) {
      // One that was started elsewhere is not known here for some seconds.
      await sessions.refreshRunning().catch(() => undefined);
    }
    return known ?? find();
  }

  private async _attempt(action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      Notification.error(messageOf(error), { autoClose: false });
    }
  }

  private readonly _app: JupyterFrontEnd;
  private readonly _services: ServiceManager.IManager;
  private readonly _model: IGPUModel;
  private readonly _open: OpenKernels;
  private readonly _dialogs: ISessionContextDialogs | null;
  private readonly _trans: TranslationBundle;
}

export namespace KernelActions {
  export interface IOptions {
    app: JupyterFrontEnd;
    model: IGPUModel;
    open: OpenKernels;
    dialogs: ISessionContextDialogs | null;
    trans: TranslationBundle;
  }
}
