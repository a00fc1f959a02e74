import { ISessionContext } from '@jupyterlab/apputils';
import { Token } from '@lumino/coreutils';
import { IDisposable } from '@lumino/disposable';
import { ISignal } from '@lumino/signaling';

import { LeaseColours } from './colours';
import { ILaunched, Launch } from './launch';
import {
  IChangedKernel,
  IDevices,
  IHistory,
  IKernel,
  IKernelChange,
  IKernels,
  IQueue,
  ISeries,
  IStatus
} from './rest';

/** The namespace of the translations. */
export const TRANSLATION_DOMAIN = 'jupyter_gpu';

/** The extension's commands. */
export namespace CommandIDs {
  /** Cancel a waiting request; argument `id`, the queue entry's. */
  export const cancelWaiting = 'jupyter-gpu:cancel-waiting';
  /** Show the panel. */
  export const showPanel = 'jupyter-gpu:show-panel';
  /**
   * Choose a kernel's GPU and memory. As for the next five, argument `kernelId` names the kernel; without it, it is
   * the current notebook's or console's.
   */
  export const changeGPU = 'jupyter-gpu:change';
  /** Show the notebook or console of a kernel. */
  export const showKernel = 'jupyter-gpu:show-kernel';
  /** Interrupt a kernel. */
  export const interrupt = 'jupyter-gpu:interrupt';
  /** Restart a kernel, after asking. */
  export const restart = 'jupyter-gpu:restart';
  /** Shut a kernel down, after asking. */
  export const shutDown = 'jupyter-gpu:shut-down';
  /**
   * Leave a kernel alone, or no longer, however long it computes nothing. Argument `isKept` says which; without it, it
   * is the other of the two.
   */
  export const keepWhenIdle = 'jupyter-gpu:keep-when-idle';
  /** Show what a GPU (argument `uuid`) or a kernel (argument `kernelId`) used over time. */
  export const showDetails = 'jupyter-gpu:show-details';
}

/** The server's GPU API. Every method may throw a `GPUError`. */
export interface IGPUAPI {
  status(): Promise<IStatus>;
  devices(): Promise<IDevices>;
  kernels(): Promise<IKernels>;
  kernel(id: string): Promise<IKernel>;
  changeKernel(id: string, change: IKernelChange): Promise<IChangedKernel>;
  queue(): Promise<IQueue>;
  cancelWaiting(id: string): Promise<void>;
  /** What was seen after a moment, in seconds since the epoch by the server's clock; 0 is everything. */
  history(since: number): Promise<IHistory>;
}

/** How current a feed's value is. */
export type Freshness =
  /** Nobody has asked yet. */
  | 'idle'
  /** Asked for the first time, no answer yet. */
  | 'loading'
  /** The last answer came, and is `value`. */
  | 'fresh'
  /** The last attempt failed; `value` is the last good one, or null, and `error` says why. */
  | 'stale';

/** How a watcher wants a feed. */
export interface IWatchOptions {
  /** The longest time between two askings, in milliseconds; the most eager watcher's counts. */
  interval_ms?: number;
}

/** One resource of the server, asked for at intervals while somebody watches and the page is seen. */
export interface IFeed<T> {
  /** The last good answer, or null before the first. */
  readonly value: T | null;
  /** When `value` arrived, by this computer's clock in milliseconds since the epoch; null before the first. */
  readonly arrived_ms: number | null;
  readonly freshness: Freshness;
  /** Why the last attempt failed; null after a success. */
  readonly error: Error | null;
  /** Emitted after each attempt that changed anything of the above. */
  readonly changed: ISignal<IFeed<T>, void>;
  /** Keep asking until the returned handle is disposed. The first asking happens at once. */
  watch(options?: IWatchOptions): IDisposable;
  /** Ask now, whether or not anybody watches. Rejects where the attempt fails. */
  refresh(): Promise<T>;
}

/** What devices and kernels have used over time, as far as it is known. */
export interface IUsageHistory {
  /** A device's; null where nothing is known. */
  device(uuid: string): ISeries | null;
  /** A kernel's on one device; null where nothing is known. */
  kernel(id: string, uuid: string): ISeries | null;
  /** Get from the server what is not here yet. What comes by the feeds from then on is added by itself. */
  load(): Promise<void>;
  /** Emitted after `load` brought something. */
  readonly loaded: ISignal<IUsageHistory, void>;
}

/** What the server says about GPUs: one feed per resource, and the actions. No DOM. */
export interface IGPUModel {
  readonly status: IFeed<IStatus>;
  readonly devices: IFeed<IDevices>;
  readonly kernels: IFeed<IKernels>;
  readonly queue: IFeed<IQueue>;
  /** Emitted once for what came in at the same time; for views, which then draw it in one go. */
  readonly updated: ISignal<unknown, void>;
  /** The last minutes. */
  readonly history: IUsageHistory;
  /** Which colour a lease has wherever it is shown. */
  readonly colours: LeaseColours;
  /** Begin to keep all that the server remembers and what comes from now on, until the returned history is disposed. */
  recall(): IUsageHistory & IDisposable;
  /** One kernel, as it stands now. */
  kernel(id: string): Promise<IKernel>;
  /** Change a kernel's request; the feeds are asked again afterwards. */
  changeKernel(id: string, change: IKernelChange): Promise<IChangedKernel>;
  /** Cancel a waiting request; the queue is asked again afterwards. */
  cancelWaiting(id: string): Promise<void>;
}

/** Provides the model to the other plugins, and to other extensions. */
export const IGPUModel = new Token<IGPUModel>(
  'jupyter-gpu:IGPUModel',
  'What the server says about GPUs, who holds them and who waits for them.'
);

/** The kernel launches of this page: its notebooks and consoles. */
export interface ILaunches {
  /** Whether any kernel has been asked for and is not there yet. */
  readonly pending: boolean;
  readonly pendingChanged: ISignal<ILaunches, void>;
  /** Emitted when a kernel came up because somebody started, changed or restarted it. */
  readonly launched: ISignal<ILaunches, ILaunched>;
  /** The launches of one session context. */
  of(context: ISessionContext): Launch;
}

/** Provides the page's kernel launches. */
export const ILaunches = new Token<ILaunches>(
  'jupyter-gpu:ILaunches',
  'The kernel launches of the notebooks and consoles in this page.'
);
