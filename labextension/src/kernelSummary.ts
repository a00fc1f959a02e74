import { TranslationBundle } from '@jupyterlab/translation';

import { pairOfAmounts } from './amount';
import { nearsCap } from './cap';
import { IKernel } from './rest';

/** What a few words can say of a kernel's GPU. */
export interface IKernelSummary {
  readonly text: string;
  readonly title: string;
  readonly tone: 'plain' | 'near' | 'over';
}

/** A kernel's GPU in a few words, such as `GPU 1 · 3.2 / 8 GiB`. */
export function kernelSummary(
  kernel: IKernel,
  nearCap_percent: number,
  trans: TranslationBundle
): IKernelSummary {
  const { devices, state, pending_request } = kernel;
  const pending =
    pending_request === null
      ? ''
      : trans.__(' From the next restart on: %1.', pending_request);
  if (!devices.length) {
    const waits = state === 'waiting';
    return {
      text: waits ? trans.__('Waits for a GPU') : trans.__('CPU'),
      title: trans.__('Choose the GPU and memory of this kernel.') + pending,
      tone: 'plain'
    };
  }
  const unit = trans.__(
    'GPU %1',
    devices.map(device => device.index).join(', ')
  );
  const used = total(devices.map(device => device.used_bytes));
  const cap = total(devices.map(device => device.cap_bytes));
  const amounts = pairOfAmounts(used, cap);
  const tone = toneOf(kernel, nearCap_percent);
  const remark =
    tone === 'over'
      ? trans.__('over its cap')
      : tone === 'near'
        ? trans.__('near its cap')
        : state === 'lost'
          ? trans.__('lost')
          : '';
  return {
    text: [unit, amounts, remark].filter(Boolean).join(' · '),
    title:
      trans.__('%1: %2 in use. Change GPU or memory.', unit, amounts) + pending,
    tone: state === 'lost' ? 'over' : tone
  };
}

function toneOf(
  { devices, state }: IKernel,
  nearCap_percent: number
): IKernelSummary['tone'] {
  if (state === 'over-cap') {
    return 'over';
  }
  const isNear = devices.some(({ used_bytes, cap_bytes }) =>
    nearsCap(used_bytes, cap_bytes, nearCap_percent)
  );
  return isNear ? 'near' : 'plain';
}

function total(numbers: readonly (number | null)[]): number | null {
  let sum = 0;
  for (const number of numbers) {
    if (number === null) {
      return null;
    }
    sum += number;
  }
  return sum;
}
