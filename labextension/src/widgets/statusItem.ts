import { TranslationBundle } from '@jupyterlab/translation';
import { IDisposable } from '@lumino/disposable';
import { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';

import { pairOfAmounts } from '../amount';
import { gpuIcon } from '../icons';
import { IDevice } from '../rest';
import { IGPUModel } from '../tokens';

/** How often to look: a status bar is seen from the corner of the eye, and all the time. */
const INTERVAL_MS = 10_000;

/** Shows in the status bar how much of all GPUs' memory is in use. It is made once, and only its words follow. */
export class GPUStatusItem extends Widget {
  constructor(private readonly _options: GPUStatusItem.IOptions) {
    super();
    this.addClass('jp-gpu-StatusItem');
    this._button.type = 'button';
    this._button.className = 'jp-gpu-StatusItem-button';
    this._button.addEventListener('click', _options.onClick);
    this._button.append(
      gpuIcon.element({ tag: 'span', stylesheet: 'statusBar' }),
      this._text
    );
    this.node.append(this._button);
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

  protected override onUpdateRequest(message: Message): void {
    super.onUpdateRequest(message);
    const { model, trans } = this._options;
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
    if (this._text.data !== text) {
      this._text.data = text;
    }
    const isStale = model.devices.freshness === 'stale';
    if (isStale !== this._isStale) {
      this._isStale = isStale;
      this._button.toggleAttribute('data-stale', isStale);
      this._button.title = isStale
        ? trans.__('The server does not answer; these figures are old.')
        : trans.__('GPU memory in use. Show who uses what.');
    }
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this.update();
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

  private readonly _button = document.createElement('button');
  private readonly _text = document.createTextNode('');
  private _isStale: boolean | null = null;
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
