import { ISessionContext } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { ToolbarButtonComponent } from '@jupyterlab/ui-components';
import { IDisposable } from '@lumino/disposable';
import { Message } from '@lumino/messaging';
import * as React from 'react';

import { kernelSummary } from '../kernelSummary';
import { IKernel } from '../rest';
import { IGPUModel } from '../tokens';
import { PromptWidget } from './promptWidget';

/** How often to look while the kernel computes. */
const BUSY_INTERVAL_MS = 2_000;

/** How often to look otherwise: then memory hardly ever changes, and what the kernel does is seen at once. */
const IDLE_INTERVAL_MS = 15_000;

/** Shows the GPU of a notebook's kernel in its toolbar, and opens the dialog that changes it. */
export class KernelGPUItem extends PromptWidget {
  constructor(private readonly _options: KernelGPUItem.IOptions) {
    super();
    this.addClass('jp-gpu-ToolbarItem');
    const { model, context } = _options;
    model.updated.connect(this.update, this);
    context.statusChanged.connect(this._onStatusChanged, this);
    context.kernelChanged.connect(this._onStatusChanged, this);
  }

  override dispose(): void {
    if (this.isDisposed) {
      return;
    }
    const { model, context } = this._options;
    model.updated.disconnect(this.update, this);
    context.statusChanged.disconnect(this._onStatusChanged, this);
    context.kernelChanged.disconnect(this._onStatusChanged, this);
    this._rest();
    super.dispose();
  }

  protected override render(): JSX.Element {
    const { trans, onClick, nearCap_percent, model } = this._options;
    const kernel = this._kernel;
    if (!kernel) {
      // Without content it takes no room.
      return <React.Fragment />;
    }
    const { text, title, tone } = kernelSummary(
      kernel,
      nearCap_percent(),
      trans
    );
    return (
      <ToolbarButtonComponent
        className="jp-gpu-ToolbarButton"
        dataset={{
          tone,
          stale: String(model.kernels.freshness === 'stale')
        }}
        label={text}
        tooltip={title}
        onClick={() => onClick(kernel.kernel_id)}
      />
    );
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this._follow();
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._follow();
  }

  protected override onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this._follow();
  }

  protected override onBeforeDetach(message: Message): void {
    this._rest();
    super.onBeforeDetach(message);
  }

  /** The kernel as the server tells of it; null where there is none, or no GPU to speak of. */
  private get _kernel(): IKernel | null {
    const { model, context } = this._options;
    const id = context.session?.kernel?.id;
    const kernel = model.kernels.value?.kernels.find(
      ({ kernel_id }) => kernel_id === id
    );
    const hasDevices = (model.status.value?.device_count ?? 0) > 0;
    return kernel && (hasDevices || kernel.devices.length) ? kernel : null;
  }

  private _onStatusChanged(): void {
    const { context, model } = this._options;
    const before = this._status;
    this._status = context.kernelDisplayStatus;
    if (this.isVisible && before !== this._status) {
      this._follow();
      model.kernels.refresh().catch(() => undefined); // The feed says so.
    }
    this.update();
  }

  /** Look as often as is needed, and not at all while it is not seen. */
  private _follow(): void {
    if (!this.isVisible) {
      this._rest();
      return;
    }
    const interval_ms =
      this._options.context.kernelDisplayStatus === 'busy'
        ? BUSY_INTERVAL_MS
        : IDLE_INTERVAL_MS;
    if (this._watch && interval_ms === this._interval_ms) {
      return;
    }
    const before = this._watch;
    this._interval_ms = interval_ms;
    this._watch = this._options.model.kernels.watch({ interval_ms });
    before?.dispose();
  }

  private _rest(): void {
    this._watch?.dispose();
    this._watch = null;
  }

  private _watch: IDisposable | null = null;
  private _interval_ms = 0;
  private _status: ISessionContext.KernelDisplayStatus = 'unknown';
}

export namespace KernelGPUItem {
  export interface IOptions {
    model: IGPUModel;
    context: ISessionContext;
    trans: TranslationBundle;
    onClick: (kernelId: string) => void;
    /** From this share of the cap on, in percent, a kernel is near it. */
    nearCap_percent: () => number;
  }
}
