import { TranslationBundle } from '@jupyterlab/translation';

import { GPUError } from './api';
import { IDevices, IProblem, IStatus } from './rest';
import { IFeed } from './tokens';

/** Whether there is anything to show, and what there is to say about it. */
export interface IAvailability {
  readonly kind:
    /** The first answer is yet to come. */
    | 'loading'
    /** There never was an answer. */
    | 'failed'
    /** The server knows of no GPU. */
    | 'none'
    | 'ready';
  /** What is the case and what to do about it, the most important first; never empty if `failed` or `none`. */
  readonly problems: readonly IProblem[];
  /** Whether what is shown may have changed since, because the server or the driver does not answer. */
  readonly isStale: boolean;
  /** When what is shown arrived, in milliseconds since the epoch; null before the first answer. */
  readonly arrived_ms: number | null;
}

/** What the feeds amount to. */
export function availability(
  status: IFeed<IStatus>,
  devices: IFeed<IDevices>,
  others: readonly IFeed<unknown>[],
  trans: TranslationBundle
): IAvailability {
  const stale = [devices, ...others].find(feed => feed.freshness === 'stale');
  if (!devices.value) {
    const failed = devices.freshness === 'stale';
    return {
      kind: failed ? 'failed' : 'loading',
      problems: failed ? [failure(devices.error, trans)] : [],
      isStale: false,
      arrived_ms: null
    };
  }
  const { problems } = devices.value;
  const old = devices.value.stale ?? null;
  const isNone = !devices.value.devices.length;
  return {
    kind: isNone ? 'none' : 'ready',
    problems: [
      ...(stale ? [failure(stale.error, trans)] : []),
      ...(!stale && old !== null ? [driverSilent(old, trans)] : []),
      ...(isNone && !problems.length ? [noDevice(trans)] : problems),
      ...(isNone ? [] : serverProblems(status.value, trans))
    ],
    isStale: stale !== undefined || old !== null,
    arrived_ms: devices.arrived_ms
  };
}

/** What it means that the server did not answer, and what to do. */
export function failure(
  error: Error | null,
  trans: TranslationBundle
): IProblem {
  const kind = error instanceof GPUError ? error.kind : 'failed';
  switch (kind) {
    case 'unreachable':
      return {
        code: kind,
        message: trans.__('The server does not answer.'),
        advice: trans.__(
          'It is asked again by itself. If it was stopped, start it again.'
        )
      };
    case 'absent':
      return {
        code: kind,
        message: trans.__('This server does not tell about its GPUs.'),
        advice: trans.__(
          'Run "%1" where the server runs, and start it again.',
          'jupyter server extension enable jupyter_gpu'
        )
      };
    case 'forbidden':
      return {
        code: kind,
        message: trans.__('You may not see the GPUs of this server.'),
        advice: trans.__(
          'Load the page again to sign in, or ask whoever runs the server.'
        )
      };
    default:
      return {
        code: kind,
        message: error?.message ?? trans.__('The server failed to answer.'),
        advice: trans.__(
          'Run "%1" in a terminal: it says what is missing.',
          'jupyter gpu doctor'
        )
      };
  }
}

function driverSilent(reason: string, trans: TranslationBundle): IProblem {
  return {
    code: 'driver-silent',
    message: reason,
    advice: trans.__('If it stays so, the host may have to be restarted.')
  };
}

function noDevice(trans: TranslationBundle): IProblem {
  return {
    code: 'no-device',
    message: trans.__('The server sees no GPU.'),
    advice: trans.__(
      'Kernels run on the CPU. If there should be a GPU, run "%1" in a terminal: it says what is missing.',
      'jupyter gpu doctor'
    )
  };
}

function serverProblems(
  status: IStatus | null,
  trans: TranslationBundle
): IProblem[] {
  const problems: IProblem[] = [];
  if (status && !status.provisioner.active) {
    problems.push({
      code: 'provisioner',
      message: trans.__(
        'New kernels are not assigned a GPU: %1.',
        withoutStop(status.provisioner.reason ?? '')
      ),
      advice: trans.__(
        'Run "%1" in a terminal: it says what is missing.',
        'jupyter gpu doctor'
      )
    });
  }
  if (status && !status.ledger.ok) {
    problems.push({
      code: 'ledger',
      message: trans.__(
        'The record of who holds which GPU cannot be used: %1.',
        withoutStop(status.ledger.problem ?? '')
      ),
      advice: trans.__('It is kept in %1.', status.ledger.path)
    });
  }
  return problems;
}

function withoutStop(sentence: string): string {
  return sentence.replace(/\.$/, '');
}
