import { IRunningSessions } from '@jupyterlab/running';
import { Kernel } from '@jupyterlab/services';
import { TranslationBundle } from '@jupyterlab/translation';
import { LabIcon } from '@jupyterlab/ui-components';
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import { gpuIcon } from './icons';
import { kernelSummary } from './kernelSummary';
import { IKernel } from './rest';
import { CommandIDs, IGPUModel } from './tokens';

/** How long figures alone can wait: the list is worked out anew for each change, seen or not. */
const FIGURES_INTERVAL_MS = 10_000;

/**
 * The kernels that hold a GPU, as the list of all that runs wants them.
 *
 * That list does not say whether it is seen, so nothing is asked for on its behalf but when kernels come or go, or
 * when somebody has it refreshed; what others ask for it shows too.
 */
export class RunningGPUs implements IRunningSessions.IManager, IDisposable {
  constructor(private readonly _options: RunningGPUs.IOptions) {
    const { trans } = _options;
    this.name = trans.__('GPUs');
    this.shutdownLabel = trans.__('Shut Down Kernel');
    this.shutdownAllLabel = trans.__('Shut Down All');
    this.shutdownAllConfirmationText = trans.__(
      'Are you sure you want to shut down all kernels that hold a GPU?'
    );
    _options.model.updated.connect(this._onChanged, this);
    _options.kernels.runningChanged.connect(this.refreshRunning, this);
  }

  readonly name: string;
  readonly shutdownLabel: string;
  readonly shutdownAllLabel: string;
  readonly shutdownAllConfirmationText: string;

  get runningChanged(): ISignal<this, void> {
    return this._runningChanged;
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

  running(): IRunningSessions.IRunningItem[] {
    return this._holders.map(kernel => this._item(kernel));
  }

  refreshRunning(): void {
    this._options.model.kernels.refresh().catch(() => undefined); // The feed says so.
  }

  shutdownAll(): void {
    for (const { kernel_id } of this._holders) {
      void this._options.kernels.shutdown(kernel_id);
    }
  }

  private get _holders(): readonly IKernel[] {
    const kernels = this._options.model.kernels.value?.kernels ?? [];
    return kernels.filter(kernel => kernel.devices.length > 0);
  }

  private _item(kernel: IKernel): IRunningSessions.IRunningItem {
    const { kernels, trans, run } = this._options;
    const id = kernel.kernel_id;
    return {
      icon: (): LabIcon => gpuIcon,
      label: () => kernel.label,
      labelTitle: () => kernel.path ?? kernel.label,
      detail: () => kernelSummary(kernel, 100, trans).text,
      open: () => run(CommandIDs.showKernel, id),
      shutdown: () => void kernels.shutdown(id)
    };
  }

  private _onChanged(): void {
    const who = this._holders.map(kernel => kernel.kernel_id).join(' ');
    const now = Date.now();
    if (who !== this._who || now - this._told_ms >= FIGURES_INTERVAL_MS) {
      this._who = who;
      this._told_ms = now;
      this._runningChanged.emit();
    }
  }

  private readonly _runningChanged = new Signal<this, void>(this);
  /** The kernels that were told of last, and when. */
  private _who = '';
  private _told_ms = 0;
  private _isDisposed = false;
}

export namespace RunningGPUs {
  export interface IOptions {
    model: IGPUModel;
    trans: TranslationBundle;
    kernels: Kernel.IManager;
    /** Run one of the commands for a kernel. */
    run: (command: string, kernelId: string) => void;
  }
}
