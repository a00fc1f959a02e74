import { KernelSpec } from '@jupyterlab/services';
import { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';

import { IDevices } from './rest';
import { IFeed, IGPUModel } from './tokens';
import { hasVariants } from './variants';

/** When to look again whether the server knows its devices by now, in milliseconds after the look before. */
const LOOKS_MS = [0, 1_000, 2_000, 4_000, 8_000];

/** Has the kernelspecs read again when the GPU choices among them have become others. */
export class FreshSpecs implements IDisposable {
  constructor(options: FreshSpecs.IOptions) {
    this._model = options.model;
    this._specs = options.specs;
    this._sleep = options.sleep ?? (ms => new Promise(r => setTimeout(r, ms)));
    this._model.devices.changed.connect(this._onDevicesChanged, this);
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

  /**
   * Get the GPU choices that the server did not have yet when the page was loaded: it looks at its devices only after
   * it has started. Resolves when they are there, or when there are none to come.
   */
  async settle(): Promise<void> {
    await this._specs.ready;
    for (const pause_ms of LOOKS_MS) {
      await this._sleep(pause_ms);
      if (this._isDisposed || hasVariants(this._specs.specs)) {
        return;
      }
      const count = await this._model.status
        .refresh()
        .then(status => status.device_count)
        .catch(() => null);
      if (count === 0) {
        return;
      }
      if (count !== null) {
        await this._specs.refreshSpecs().catch(() => undefined);
      }
    }
  }

  private _onDevicesChanged(devices: IFeed<IDevices>): void {
    if (!devices.value) {
      return;
    }
    const seen = devices.value.devices
      .filter(device => device.leasable)
      .map(device => `${device.index} ${device.uuid}`)
      .join('\n');
    if (this._seen !== null && this._seen !== seen) {
      this._specs.refreshSpecs().catch(() => undefined);
    }
    this._seen = seen;
  }

  private readonly _model: IGPUModel;
  private readonly _specs: KernelSpec.IManager;
  private readonly _sleep: (ms: number) => Promise<unknown>;
  /** The devices as last seen; null before. */
  private _seen: string | null = null;
  private _isDisposed = false;
}

export namespace FreshSpecs {
  export interface IOptions {
    model: IGPUModel;
    specs: KernelSpec.IManager;
    /** Waits for that many milliseconds. */
    sleep?: (ms: number) => Promise<unknown>;
  }
}
