import { ISessionContext } from '@jupyterlab/apputils';
import { Kernel, KernelSpec, Session } from '@jupyterlab/services';
import { Signal } from '@lumino/signaling';

import { IFacts, IView } from '../overview';
import {
  IChangedKernel,
  IDevice,
  IDevices,
  IHistory,
  IKernel,
  IKernelDevice,
  IKernels,
  ILease,
  IQueue,
  IQueueEntry,
  IStatus
} from '../rest';
import { IGPUAPI } from '../tokens';

export const GIB = 2 ** 30;

/** A session context of which tests say what happens, in the order in which JupyterLab's own says it. */
export class FakeContext {
  session: { kernel: Kernel.IKernelConnection | null } | null = null;
  kernelDisplayStatus: ISessionContext.KernelDisplayStatus = 'unknown';
  hasNoKernel = true;
  readonly statusChanged = new Signal<this, Kernel.Status>(this);
  readonly kernelChanged = new Signal<
    this,
    Session.ISessionConnection.IKernelChangedArgs
  >(this);
  readonly disposed = new Signal<this, void>(this);

  get asContext(): ISessionContext {
    return this as unknown as ISessionContext;
  }

  /** Start or change to a kernel, up to the moment at which the context has it. */
  begin(): void {
    this.hasNoKernel = false;
    this.kernelDisplayStatus = 'initializing';
    this.statusChanged.emit('starting');
  }

  arrive(id: string, name: string): void {
    const oldValue = this.session?.kernel ?? null;
    const kernel = fakeKernel(id, name);
    this.session = { kernel };
    this.hasNoKernel = false;
    this.kernelDisplayStatus = 'idle';
    this.kernelChanged.emit({ name: 'kernel', oldValue, newValue: kernel });
    this.statusChanged.emit('idle');
  }

  restart(): void {
    const kernel = this.session!.kernel!;
    this.kernelDisplayStatus = 'restarting';
    this.statusChanged.emit('restarting');
    this.kernelDisplayStatus = 'idle';
    this.statusChanged.emit('idle');
    this.kernelChanged.emit({
      name: 'kernel',
      oldValue: kernel,
      newValue: kernel
    });
  }

  fail(): void {
    this.session = null;
    this.hasNoKernel = true;
    this.kernelDisplayStatus = 'unknown';
    this.kernelChanged.emit({ name: 'kernel', oldValue: null, newValue: null });
    this.statusChanged.emit('unknown');
  }
}

export function fakeKernel(id: string, name: string): Kernel.IKernelConnection {
  return {
    id,
    name,
    info: Promise.resolve({})
  } as unknown as Kernel.IKernelConnection;
}

export function specModels(
  names: { [name: string]: { display_name: string; metadata?: object } },
  language = 'python'
): KernelSpec.ISpecModels {
  return {
    default: Object.keys(names)[0],
    kernelspecs: Object.fromEntries(
      Object.entries(names).map(([name, spec]) => [
        name,
        { name, language, argv: [], resources: {}, ...spec }
      ])
    )
  } as unknown as KernelSpec.ISpecModels;
}

/** What a server with two GPUs offers. */
export function gpuSpecs(): KernelSpec.ISpecModels {
  const variant = (request: string, choice: string) => ({
    display_name: `Python 3 (ipykernel) — ${choice}`,
    metadata: { jupyter_gpu: { base: 'python3', request, choice } }
  });
  return specModels({
    python3: { display_name: 'Python 3 (ipykernel)' },
    'python3-cpu': variant('cpu', 'CPU'),
    'python3-gpu-auto': variant('auto', 'GPU automatic'),
    'python3-gpu0': variant('0', 'GPU 0 · A100'),
    'python3-gpu1': variant('1', 'GPU 1 · A100')
  });
}

export class FakeSpecs {
  constructor(public specs: KernelSpec.ISpecModels | null) {}

  readonly ready = Promise.resolve();
  readonly specsChanged = new Signal<this, KernelSpec.ISpecModels>(this);
  refreshed = 0;
  /** What the next reading brings. */
  next: KernelSpec.ISpecModels | null = null;

  get asManager(): KernelSpec.IManager {
    return this as unknown as KernelSpec.IManager;
  }

  async refreshSpecs(): Promise<void> {
    this.refreshed += 1;
    if (this.next) {
      this.specs = this.next;
      this.specsChanged.emit(this.next);
    }
  }
}

/** A GPU API whose answers tests set. */
export class FakeAPI implements IGPUAPI {
  statusAnswer: IStatus = status();
  devicesAnswer: IDevices = devices([]);
  kernelsAnswer: IKernel[] = [];
  queueAnswer: IQueueEntry[] = [];
  historyAnswer: IHistory = { time: 1, step_s: 1, devices: {}, kernels: {} };
  /** Thrown by every call while set. */
  failure: Error | null = null;
  readonly calls: string[] = [];

  status(): Promise<IStatus> {
    return this._answer('status', this.statusAnswer);
  }

  devices(): Promise<IDevices> {
    return this._answer('devices', this.devicesAnswer);
  }

  kernels(): Promise<IKernels> {
    return this._answer('kernels', { time: 0, kernels: this.kernelsAnswer });
  }

  async kernel(id: string): Promise<IKernel> {
    const found = this.kernelsAnswer.find(k => k.kernel_id === id);
    if (!found) {
      throw new Error(`There is no kernel ${id}.`);
    }
    return this._answer(`kernel ${id}`, found);
  }

  async changeKernel(id: string): Promise<IChangedKernel> {
    const found = await this.kernel(id);
    return { ...found, applied: 'now', message: 'Done.' };
  }

  queue(): Promise<IQueue> {
    return this._answer('queue', { time: 0, entries: this.queueAnswer });
  }

  cancelWaiting(id: string): Promise<void> {
    return this._answer(`cancel ${id}`, undefined);
  }

  history(since: number): Promise<IHistory> {
    return this._answer(`history ${since}`, this.historyAnswer);
  }

  private async _answer<T>(call: string, answer: T): Promise<T> {
    this.calls.push(call);
    if (this.failure) {
      throw this.failure;
    }
    return answer;
  }
}

export function status(change: Partial<IStatus> = {}): IStatus {
  return {
    version: '0.1.0',
    simulated: false,
    backend: { name: 'nvml', driver_version: null, cuda_version: null },
    problems: [],
    default_request: 'auto',
    device_count: 2,
    ledger: { path: '', ok: true, problem: null },
    limits: { layers: [] },
    provisioner: { active: true, reason: null },
    ...change
  };
}

export function devices(found: IDevice[]): IDevices {
  return { time: 0, simulated: false, problems: [], devices: found };
}

export function device(index: string, change: Partial<IDevice> = {}): IDevice {
  return {
    uuid: `GPU-${index}`,
    index,
    name: 'NVIDIA A100',
    memory_bytes: 40 * GIB,
    pci_address: null,
    compute_capability: '8.0',
    parent_uuid: null,
    mig_enabled: false,
    leasable: true,
    simulated: false,
    lost: false,
    memory_used_bytes: 0,
    memory_free_bytes: 40 * GIB,
    utilization_percent: 0,
    temperature_celsius: 30,
    power_watts: 50,
    power_limit_watts: 400,
    reasons: {},
    reserved_bytes: 0,
    available_bytes: 40 * GIB,
    foreign_bytes: 0,
    leases: [],
    foreign: [],
    ...change
  };
}

export function kernel(id: string, change: Partial<IKernel> = {}): IKernel {
  return {
    kernel_id: id,
    name: 'python3',
    label: 'A.ipynb',
    path: 'A.ipynb',
    type: 'notebook',
    execution_state: 'idle',
    state: 'running',
    lease_id: 'lease',
    request: '1',
    origin: 'variant',
    pending_request: null,
    notices: [],
    pid: 1,
    idle_since: null,
    layers: [],
    devices: [
      {
        uuid: 'GPU-1',
        index: '1',
        kind: 'shared',
        memory_bytes: null,
        cap_bytes: null,
        used_bytes: 0,
        peak_bytes: 0,
        peak_kind: null,
        utilization_percent: null,
        source: null,
        reasons: {}
      }
    ],
    ...change
  };
}

/** A lease of 8 GiB, a quarter of which is used. */
export function lease(id: string, change: Partial<ILease> = {}): ILease {
  return {
    lease_id: `lease-${id}`,
    kind: 'reserved',
    memory_bytes: 8 * GIB,
    cap_bytes: 8 * GIB,
    used_bytes: 2 * GIB,
    over_cap: false,
    owner: {
      kind: 'kernel',
      kernel_id: id,
      label: `${id}.ipynb`,
      path: `${id}.ipynb`,
      pid: 1,
      mine: true
    },
    ...change
  };
}

/** A kernel that holds 8 GiB of GPU 0. */
export function holder(id: string, change: Partial<IKernel> = {}): IKernel {
  return kernel(id, {
    label: `${id}.ipynb`,
    path: `${id}.ipynb`,
    devices: [
      {
        uuid: 'GPU-0',
        index: '0',
        kind: 'reserved',
        memory_bytes: 8 * GIB,
        cap_bytes: 8 * GIB,
        used_bytes: 2 * GIB,
        peak_bytes: 3 * GIB,
        peak_kind: 'exact',
        utilization_percent: 10,
        source: 'account',
        reasons: {}
      }
    ],
    ...change
  });
}

/** The kernel that holds 8 GiB of GPU 0, using so much of it. */
export function using(
  id: string,
  used_bytes: number,
  change: Partial<IKernelDevice> = {}
): IKernel {
  const found = holder(id);
  return {
    ...found,
    devices: [{ ...found.devices[0], used_bytes, ...change }]
  };
}

/** What the panel's overview is worked out of. */
export function facts(
  devices: IDevice[],
  kernels: IKernel[],
  change: Partial<IFacts> = {}
): IFacts {
  return { time: 10_000, devices, kernels, queue: [], ...change };
}

/** How people see it at first. */
export const VIEW: IView = {
  filter: '',
  order: 'gpu',
  nearCap_percent: 90,
  isSeen: () => true
};

export function entry(
  id: string,
  change: Partial<IQueueEntry> = {}
): IQueueEntry {
  return {
    id,
    request: '1:all',
    label: 'B.ipynb',
    path: 'B.ipynb',
    kernel_id: 'kernel-b',
    owner_kind: 'kernel',
    since: 0,
    position: 1,
    message: 'waits for GPU 1, held by A.ipynb',
    mine: true,
    ...change
  };
}

/**
 * Give the page what browsers have: everything is in sight, a canvas is 400 pixels wide and 10 high, and there is always
 * time.
 *
 * @returns what is told of each rectangle that is filled on a canvas
 */
export function browser(): { fillRect: jest.Mock } {
  const fillRect = jest.fn();
  const nothing = () => undefined;
  const context = {
    fillRect,
    save: nothing,
    beginPath: nothing,
    rect: nothing,
    clip: nothing,
    moveTo: nothing,
    lineTo: nothing,
    stroke: nothing,
    restore: nothing
  };
  jest
    .spyOn(HTMLCanvasElement.prototype, 'getContext')
    .mockReturnValue(context as unknown as RenderingContext);
  Object.assign(globalThis, {
    IntersectionObserver: class {
      observe = nothing;
      disconnect = nothing;
    },
    ResizeObserver: class {
      constructor(private readonly _told: (entries: object[]) => void) {}
      observe = () => this._told([{ contentRect: { width: 400, height: 10 } }]);
      disconnect = nothing;
    },
    requestIdleCallback: (act: () => void) => setTimeout(act)
  });
  return { fillRect };
}

/** Let all that is ready to run do so, promises and their followers included. */
export function settled(): Promise<void> {
  return new Promise(resolve => setTimeout(resolve));
}
