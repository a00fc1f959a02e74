import { TranslationBundle } from '@jupyterlab/translation';
import { IDisposable } from '@lumino/disposable';
import { Message } from '@lumino/messaging';
import * as React from 'react';

import { pairOfAmounts } from '../amount';
import { gpuIcon } from '../icons';
import { IDevice } from '../rest';
import { IGPUModel } from '../tokens';
import { PromptWidget } from './promptWidget';

/** How often to look: a status bar is seen from the corner of the eye, and all the time. */
const INTERVAL_MS = 10_000;

/** The same each time: an icon that is drawn anew connects to its signals anew, and asks for a frame to clean up in. */
const ICON = <gpuIcon.react tag="span" stylesheet="statusBar" />;

/** Shows in the status bar how much of all GPUs' memory is in use. */
export class GPUStatusItem extends PromptWidget {
  constructor(private readonly _options: GPUStatusItem.IOptions) {
    super();
    this.addClass('jp-gpu-StatusItem');
    _options.model.updated.connect(this.update, this);
  }

  override dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this._options.model.updated.disconnect(this.update, this);
    this._rest();
    super.dispose();
  }

  protected override render(): JSX.Element {
    const { model, trans, onClick } = this._options;
    const devices = (model.devices.value?.devices ?? []).filter(
      device => device.leasable
    );
    const text = trans._n(
      '%2 · %1 GPU',
      '%2 · %1 GPUs',
      devices.length,
      pairOfAmounts(
        sum(devices, device => device.memory_used_bytes),
        sum(devices, device => device.memory_bytes)
      )
    );
    const stale = model.devices.freshness === 'stale';
    return (
      <button
        type="button"
        className="jp-gpu-StatusItem-button"
        data-stale={stale || undefined}
        title={
          stale
            ? trans.__('The server does not answer; these figures are old.')
            : trans.__('GPU memory in use. Show who uses what.')
        }
        onClick={onClick}
      >
        {ICON}
        {text}
      </button>
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

  private _follow(): void {
    if (!this.isVisible) {
      this._rest();
    } else {
      this._watch ??= this._options.model.devices.watch({
        interval_ms: INTERVAL_MS
      });
    }
  }

  private _rest(): void {
    this._watch?.dispose();
    this._watch = null;
  }

  private _watch: IDisposable | null = null;
}

export namespace GPUStatusItem {
  export interface IOptions {
    model: IGPUModel;
    trans: TranslationBundle;
    onClick: () => void;
  }
}

function sum(
  devices: readonly IDevice[],
  of: (device: IDevice) => number | null
): number | null {
  let total = 0;
  for (const device of devices) {
    const number = of(device);
    if (number === null) {
      return null;
    }
    total += number;
  }
  return devices.length ? total : null;
}
