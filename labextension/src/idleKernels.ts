import { Notification } from '@jupyterlab/apputils';

import { messageOf } from './api';
import { isKeptWhenIdle, keepWhenIdle, OpenKernels } from './openKernels';
import { IKernel } from './rest';
import { IGPUModel } from './tokens';

/** Which kernels are left alone though they hold a GPU's memory and compute nothing. */
export class IdleKernels {
  constructor(
    private readonly _model: IGPUModel,
    private readonly _open: OpenKernels
  ) {}

  /** Whether the server minds kernels that compute nothing, this one among them. */
  isMinded(kernelId: string): boolean {
    const kernel = this._kernel(kernelId);
    return kernel?.idle !== undefined && kernel.devices.length > 0;
  }

  isKept(kernelId: string): boolean {
    const idle = this._kernel(kernelId)?.idle;
    if (idle) {
      return idle.exempt;
    }
    // While it computes the server does not say; its notebook does, where it is open, and else what was last said here.
    const notebook = this._open.byKernel(kernelId)?.notebook;
    return notebook ? isKeptWhenIdle(notebook) : this._kept.has(kernelId);
  }

  /** Have a kernel left alone, or no longer. Its notebook says so too, so that it is the same the next time. */
  async keep(kernelId: string, isKept: boolean): Promise<void> {
    try {
      await this._model.changeKernel(kernelId, { keep_when_idle: isKept });
    } catch (error) {
      Notification.error(messageOf(error), { autoClose: false });
      return;
    }
    if (isKept) {
      this._kept.add(kernelId);
    } else {
      this._kept.delete(kernelId);
    }
    const notebook = this._open.byKernel(kernelId)?.notebook;
    if (notebook && !notebook.readOnly) {
      keepWhenIdle(notebook, isKept);
    }
  }

  private _kernel(kernelId: string): IKernel | undefined {
    return this._model.kernels.value?.kernels.find(
      kernel => kernel.kernel_id === kernelId
    );
  }

  /** The kernels that were said to be kept from here. */
  private readonly _kept = new Set<string>();
}
