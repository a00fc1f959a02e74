import { Notification } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';

import { pairOfAmounts } from './amount';
import { IKernel, IKernelDevice, IKernels } from './rest';
import { CommandIDs, IFeed, IGPUModel } from './tokens';

/** How long a notification stays on the screen; afterwards it is in the list of notifications. */
const SHOWN_MS = 10_000;

/** A kernel counts as away from its cap again once it has freed this much of it, in percent. */
const SLACK_PERCENT = 5;

/** How bad things are, rising. */
enum Level {
  fine,
  near,
  over,
  lost
}

/**
 * Tells when a kernel nears its cap, passes it, or loses its GPU: once, until it is better.
 *
 * It asks for nothing itself, but follows what is asked for on behalf of what is seen.
 */
export class UsageNotices implements IDisposable {
  constructor(options: UsageNotices.IOptions) {
    this._options = options;
    this._notify =
      options.notify ?? Notification.manager.notify.bind(Notification.manager);
    options.model.kernels.changed.connect(this._onKernels, this);
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

  private _onKernels({ value, freshness }: IFeed<IKernels>): void {
    if (!value || freshness !== 'fresh') {
      return;
    }
    const seen = new Set<string>();
    for (const kernel of value.kernels) {
      for (const device of kernel.devices) {
        const key = `${kernel.kernel_id} ${device.uuid}`;
        seen.add(key);
        this._check(key, kernel, device);
      }
    }
    for (const key of this._levels.keys()) {
      if (!seen.has(key)) {
        this._levels.delete(key);
      }
    }
  }

  private _check(key: string, kernel: IKernel, device: IKernelDevice): void {
    const known = this._levels.get(key);
    const before = known ?? Level.fine;
    const now = this._level(device, before);
    this._levels.set(key, now);
    // Near its cap is where many a kernel works: of that only the moment is news.
    const isNews = now > before && (known !== undefined || now > Level.near);
    if (isNews && this._options.enabled()) {
      this._tell(kernel, device, now);
    }
  }

  private _level(device: IKernelDevice, before: Level): Level {
    const { used_bytes, cap_bytes, lost } = device;
    if (lost) {
      return Level.lost;
    }
    if (used_bytes === null || !cap_bytes) {
      return before;
    }
    const share = (100 * used_bytes) / cap_bytes;
    const near = this._options.nearCap_percent();
    if (share > 100) {
      return Level.over;
    }
    // A kernel that trains goes up and down all the time.
    const isNear =
      share >= (before >= Level.near ? near - SLACK_PERCENT : near);
    return isNear ? Level.near : Level.fine;
  }

  private _tell(kernel: IKernel, device: IKernelDevice, level: Level): void {
    const { trans, run } = this._options;
    const amounts = pairOfAmounts(device.used_bytes, device.cap_bytes);
    const message = {
      [Level.fine]: '',
      [Level.near]: trans.__(
        '%1 is near its cap on GPU %2: %3.',
        kernel.label,
        device.index,
        amounts
      ),
      [Level.over]: trans.__(
        '%1 is over its cap on GPU %2: %3.',
        kernel.label,
        device.index,
        amounts
      ),
      [Level.lost]: trans.__(
        '%1 has lost GPU %2, which does not answer any more. Restart the kernel to give it another.',
        kernel.label,
        device.index
      )
    }[level];
    this._notify(message, level === Level.near ? 'warning' : 'error', {
      autoClose: SHOWN_MS,
      actions: [
        {
          label: trans.__('Change'),
          caption: trans.__('Choose another GPU or more memory'),
          callback: () => run(CommandIDs.changeGPU, kernel.kernel_id)
        }
      ]
    });
  }

  private readonly _options: UsageNotices.IOptions;
  private readonly _notify: UsageNotices.Notify;
  private readonly _levels = new Map<string, Level>();
  private _isDisposed = false;
}

export namespace UsageNotices {
  export interface IOptions {
    model: IGPUModel;
    trans: TranslationBundle;
    /** From this share of the cap on, in percent, a kernel is near it. */
    nearCap_percent: () => number;
    /** Whether a person wants to be told. */
    enabled: () => boolean;
    /** Run one of the commands for a kernel. */
    run: (command: string, kernelId: string) => void;
    /** Where notifications go; the default is JupyterLab's own. */
    notify?: Notify;
  }

  export type Notify = typeof Notification.manager.notify;
}
