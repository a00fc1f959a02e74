/**
 * The values that travel over `<base_url>/gpu/api`, named as they are on the wire.
 *
 * Memory is in bytes and times are seconds since the epoch. Unknown is null, and the reason stands in `reasons`
 * under the name of the field.
 */

/** Why fields are null, by the field's name: one sentence each. */
export type Reasons = { readonly [field: string]: string };

/** Something that keeps devices from being seen or used. */
export interface IProblem {
  /** Stable, for programs: `driver-missing`, `device-lost`, … */
  readonly code: string;
  /** What is the case, one sentence. */
  readonly message: string;
  /** What to do about it, one sentence. */
  readonly advice: string;
}

/** Something that is on, or off for a reason. */
export interface ISwitch {
  readonly active: boolean;
  readonly reason: string | null;
}

/** One of the layers that hold a kernel to its lease. */
export interface ILimitLayer extends ISwitch {
  readonly name: 'interposer' | 'framework' | 'watchdog' | 'mig';
}

/** Answer of `GET status`. */
export interface IStatus {
  readonly version: string;
  readonly simulated: boolean;
  readonly backend: {
    readonly name: string;
    readonly driver_version: string | null;
    readonly cuda_version: string | null;
  };
  readonly problems: readonly IProblem[];
  readonly default_request: string;
  /** Null while the devices have not been looked at yet. */
  readonly device_count: number | null;
  readonly ledger: {
    readonly path: string;
    readonly ok: boolean;
    readonly problem: string | null;
  };
  readonly limits: { readonly layers: readonly ILimitLayer[] };
  readonly provisioner: ISwitch;
}

/** How a lease holds a device's memory. */
export type Hold = 'shared' | 'reserved' | 'whole';

/** Who holds a lease. */
export interface ILeaseOwner {
  readonly kind: 'kernel' | 'command';
  readonly kernel_id: string | null;
  /** For people: the notebook's name, else the kernel's. */
  readonly label: string;
  readonly path: string | null;
  readonly pid: number | null;
  /** Whether it belongs to this server. */
  readonly mine: boolean;
}

/** A lease, as one device sees it. */
export interface ILease {
  readonly lease_id: string;
  readonly kind: Hold;
  /** The hold; null for a shared lease. */
  readonly memory_bytes: number | null;
  readonly cap_bytes: number | null;
  readonly used_bytes: number | null;
  /** Whether it uses more than its cap, the driver's own contexts aside. */
  readonly over_cap: boolean;
  readonly owner: ILeaseOwner;
}

/** A process on a device that no lease covers. */
export interface IForeignProcess {
  readonly pid: number;
  /** Only of the user's own processes. */
  readonly name: string | null;
  readonly memory_bytes: number | null;
}

/** One GPU, or one MIG instance, and what it does now. */
export interface IDevice {
  /** The identity: `GPU-…` or `MIG-…`, in full. */
  readonly uuid: string;
  /** For people: `"0"`, or `"0.2"` for MIG instance 2 of GPU 0. */
  readonly index: string;
  readonly name: string;
  readonly memory_bytes: number | null;
  readonly pci_address: string | null;
  readonly compute_capability: string | null;
  readonly parent_uuid: string | null;
  readonly mig_enabled: boolean;
  readonly leasable: boolean;
  readonly simulated: boolean;
  readonly lost: boolean;
  readonly memory_used_bytes: number | null;
  /** Who says so: the device, or its processes added up where it has no figure. */
  readonly memory_source?: 'device' | 'processes' | null;
  readonly memory_free_bytes: number | null;
  readonly utilization_percent: number | null;
  readonly temperature_celsius: number | null;
  readonly power_watts: number | null;
  readonly power_limit_watts: number | null;
  readonly reasons: Reasons;
  readonly reserved_bytes: number | null;
  /** What a new reservation could get now. */
  readonly available_bytes: number | null;
  readonly foreign_bytes: number | null;
  readonly leases: readonly ILease[];
  readonly foreign: readonly IForeignProcess[];
}

/** Answer of `GET devices`. */
export interface IDevices {
  readonly time: number;
  /** Why the figures are older than a few seconds, one sentence; null where they are not. */
  readonly stale?: string | null;
  readonly simulated: boolean;
  readonly problems: readonly IProblem[];
  readonly devices: readonly IDevice[];
}

/** How a kernel stands with its GPU. */
export type KernelState =
  'running' | 'waiting' | 'starting' | 'cpu' | 'lost' | 'over-cap' | 'problem';

/** Where a kernel's request came from. */
export type RequestOrigin =
  'api' | 'variant' | 'notebook' | 'environment' | 'default';

/** What a kernel holds and uses on one device. */
export interface IKernelDevice {
  readonly uuid: string;
  readonly index: string;
  readonly kind: Hold;
  readonly memory_bytes: number | null;
  readonly cap_bytes: number | null;
  readonly used_bytes: number | null;
  readonly peak_bytes: number | null;
  readonly peak_kind: 'exact' | 'sampled' | null;
  readonly utilization_percent: number | null;
  /** Who says what is used; `device` is all that is in use on a device where nobody else is. */
  readonly source: 'account' | 'nvml' | 'device' | null;
  /** Whether the device does not answer any more. */
  readonly lost?: boolean;
  readonly reasons: Reasons;
}

/** What becomes of a kernel that holds a GPU's memory and computes nothing: it is told of, loses its hold, or ends. */
export type IdlePolicy = 'mark' | 'downgrade' | 'shut-down';

/** That a kernel holds a GPU's memory and has computed nothing for as long as the server minds. */
export interface IIdle {
  readonly since: number;
  readonly policy: IdlePolicy;
  /** When something is done about it; null where nothing is. */
  readonly action_at: number | null;
  /** Whether a person wants it kept all the same. */
  readonly exempt: boolean;
}

/** One kernel of this server. */
export interface IKernel {
  readonly kernel_id: string;
  /** The kernelspec's name. */
  readonly name: string;
  /** For people: the notebook's name, else the kernelspec's display name. */
  readonly label: string;
  readonly path: string | null;
  readonly type: string | null;
  readonly execution_state: string | null;
  readonly state: KernelState;
  readonly lease_id: string | null;
  readonly request: string | null;
  readonly origin: RequestOrigin | null;
  /** A request that takes effect with the next restart. */
  readonly pending_request: string | null;
  /** What a person should know about how the kernel started, one sentence each. */
  readonly notices: readonly string[];
  readonly pid: number | null;
  readonly idle_since: number | null;
  /** Null for a kernel that nobody minds; absent where the server has no such policy. */
  readonly idle?: IIdle | null;
  readonly layers: readonly string[];
  readonly devices: readonly IKernelDevice[];
}

/** Answer of `GET kernels`. */
export interface IKernels {
  readonly time: number;
  /** Why the figures are older than a few seconds, one sentence; null where they are not. */
  readonly stale?: string | null;
  readonly kernels: readonly IKernel[];
}

/** Body of `PATCH kernels/<id>`. */
export interface IKernelChange {
  readonly request?: string;
  readonly restart?: boolean;
  /** Leave it alone however long it computes nothing. */
  readonly keep_when_idle?: boolean;
}

/** Answer of `PATCH kernels/<id>`. */
export interface IChangedKernel extends IKernel {
  readonly applied: 'now' | 'on-restart' | 'restarted';
  readonly message: string;
}

/** A request that waits for its turn. */
export interface IQueueEntry {
  readonly id: string;
  readonly request: string;
  readonly label: string;
  readonly path: string | null;
  readonly kernel_id: string | null;
  readonly owner_kind: 'kernel' | 'command';
  readonly since: number;
  readonly position: number;
  /** What it waits for, without its own name: "waits for GPU 1, held by A.ipynb". */
  readonly message: string;
  /** Whether it belongs to this server. */
  readonly mine: boolean;
}

/** Answer of `GET queue`. */
export interface IQueue {
  readonly time: number;
  readonly entries: readonly IQueueEntry[];
}

/** Answer of `GET live`: what each of the three paths answers. */
export interface ILive {
  readonly devices: IDevices;
  readonly kernels: IKernels;
  readonly queue: IQueue;
}

/** What something used over time, in columns of the same length. */
export interface ISeries {
  readonly t: readonly number[];
  /** Bytes in use. */
  readonly memory: readonly (number | null)[];
  /** Percent. */
  readonly utilization: readonly (number | null)[];
}

/** Answer of `GET history?since=`: what was seen after that moment. */
export interface IHistory {
  readonly time: number;
  readonly step_s: number;
  /** By UUID. */
  readonly devices: { readonly [uuid: string]: ISeries };
  /** By kernel id, then by UUID. */
  readonly kernels: {
    readonly [kernelId: string]: { readonly [uuid: string]: ISeries };
  };
}
