import { GPUError } from './errors';
import { IKernel, IKernelDevice, IKernels, Reasons } from './rest';

/** Kernels as the server sends them: the names of the fields once, and a row of values for each kernel. */
interface IKernelTable extends Omit<IKernels, 'kernels'> {
  readonly columns: readonly string[];
  readonly device_columns: readonly string[];
  /** What is unknown and why. A device has the place of its own in it, since most have the same. */
  readonly reasons?: readonly Reasons[];
  readonly rows: readonly (readonly unknown[])[];
}

/** The kernels of an answer, whether it has them as a table or one by one. */
export function readKernels(answer: IKernels | IKernelTable): IKernels {
  if (!('rows' in answer)) {
    return withList(answer, 'kernels');
  }
  const { columns, device_columns, reasons, rows, ...rest } = answer;
  const kernels = rows.map(row => {
    const kernel = named<IKernel>(columns, row);
    const devices = kernel.devices as unknown as (readonly unknown[])[];
    return {
      ...kernel,
      devices: devices.map(cells => {
        const device = named<{ reasons: unknown }>(device_columns, cells);
        if (typeof device.reasons === 'number') {
          device.reasons = reasons?.[device.reasons] ?? {};
        }
        return device as IKernelDevice;
      })
    };
  });
  return { ...rest, kernels };
}

/** The answer itself, if it has the list that it should have: a server of another version may not know it. */
export function withList<T extends object>(answer: T, name: keyof T): T {
  if (!Array.isArray(answer?.[name])) {
    throw new GPUError(
      'failed',
      `The server's answer has no ${String(name)}. If it was just updated, load this page again.`
    );
  }
  return answer;
}

function named<T>(names: readonly string[], values: readonly unknown[]): T {
  // Without a pair for each field: this is done for all kernels, every second.
  const result: { [name: string]: unknown } = {};
  for (let i = 0; i < names.length; i++) {
    result[names[i]] = values[i];
  }
  return result as T;
}
