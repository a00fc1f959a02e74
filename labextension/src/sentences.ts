import { TranslationBundle } from '@jupyterlab/translation';

import { readableAmount } from './amount';
import { IOutlook, ISituation, outlook, staysOnDevice } from './outlook';
import { amountOn, AUTO, CPU, IChoice, isAmount, requestText } from './request';
import { IKernel } from './rest';

/** What a person is told before they confirm a choice. */
export interface IAnnouncement {
  readonly text: string;
  readonly tone: 'plain' | 'warning' | 'error';
  /** What confirming does to a kernel that runs. */
  readonly effect: 'none' | 'now' | 'restart' | 'start';
  /** Whether the request can be granted as things stand. */
  readonly verdict: IOutlook['verdict'];
}

/** Whom a choice is for. */
export interface IAsker {
  /** The kernel that runs and would be changed; null where one would be started. */
  readonly kernel: IKernel | null;
  /** The request that counts without a choice. */
  readonly present: string | null;
}

const MOST_NAMES = 2;

/** One or two sentences on what will happen, before it does. */
export function announce(
  choice: IChoice,
  asker: IAsker,
  situation: ISituation,
  trans: TranslationBundle
): IAnnouncement {
  const { kernel } = asker;
  const found = outlook(choice, situation);
  const say = (
    text: string,
    effect: IAnnouncement['effect'],
    tone: IAnnouncement['tone'] = 'plain'
  ): IAnnouncement => ({ text, effect, tone, verdict: found.verdict });

  if (choice.memory.kind === 'reserved' && !isAmount(choice.memory.amount)) {
    return say(
      trans.__('Write an amount of memory, such as 8 GiB or 25%.'),
      'none',
      'error'
    );
  }
  if (found.verdict === 'impossible') {
    return say(impossible(found, trans), 'none', 'error');
  }
  if (!kernel) {
    return say(
      starting(choice, found, trans),
      'start',
      found.verdict === 'waits' ? 'warning' : 'plain'
    );
  }
  if (requestText(choice) === asker.present) {
    return say(trans.__('This is what the kernel has now.'), 'none');
  }
  if (choice.device !== CPU && staysOnDevice(choice, kernel)) {
    return changingMemory(choice, kernel, situation, say, trans);
  }
  return say(
    restarting(choice, found, trans),
    'restart',
    found.verdict === 'waits' ? 'warning' : 'plain'
  );
}

function impossible(found: IOutlook, trans: TranslationBundle): string {
  return found.largest_bytes === null
    ? trans.__('There is no such GPU here.')
    : trans.__(
        'That is more memory than there is: %1.',
        readableAmount(found.largest_bytes)
      );
}

function starting(
  { device, memory }: IChoice,
  found: IOutlook,
  trans: TranslationBundle
): string {
  if (device === CPU) {
    return trans.__('Starts without a GPU.');
  }
  if (found.verdict === 'waits') {
    return device === AUTO
      ? trans.__('Waits for a GPU%1, and starts then.', held(found, trans))
      : trans.__(
          'Waits for GPU %1%2, and starts then.',
          device,
          held(found, trans)
        );
  }
  const unit = found.device?.index ?? device;
  const amount = readableAmount(found.memory_bytes);
  const automatic = device === AUTO;
  switch (memory.kind) {
    case 'whole':
      return automatic
        ? trans.__('Starts on a GPU of its own, now GPU %1.', unit)
        : trans.__('Starts on GPU %1 and has it to itself.', unit);
    case 'reserved':
      return automatic
        ? trans.__(
            'Starts where %1 fit best, now on GPU %2, and is held to that.',
            amount,
            unit
          )
        : trans.__(
            'Starts on GPU %1 with %2 of its own, and is held to that.',
            unit,
            amount
          );
    case 'shared':
      return automatic
        ? trans.__(
            'Starts on the GPU with the most free memory, now GPU %1 with %2.',
            unit,
            amount
          )
        : trans.__(
            'Starts on GPU %1 and may use what nobody has reserved, now %2.',
            unit,
            amount
          );
  }
}

function restarting(
  { device }: IChoice,
  found: IOutlook,
  trans: TranslationBundle
): string {
  if (device === CPU) {
    return trans.__(
      'Restarts the kernel without a GPU: all variables will be lost.'
    );
  }
  if (found.verdict === 'waits') {
    return device === AUTO
      ? trans.__(
          'Waits for a GPU%1. The kernel runs on until then, and is restarted: all variables will be lost.',
          held(found, trans)
        )
      : trans.__(
          'Waits for GPU %1%2. The kernel runs on until then, and is restarted: all variables will be lost.',
          device,
          held(found, trans)
        );
  }
  return trans.__(
    'Restarts the kernel on GPU %1: all variables will be lost.',
    found.device?.index ?? device
  );
}

function changingMemory(
  choice: IChoice,
  kernel: IKernel,
  situation: ISituation,
  say: (
    text: string,
    effect: IAnnouncement['effect'],
    tone?: IAnnouncement['tone']
  ) => IAnnouncement,
  trans: TranslationBundle
): IAnnouncement {
  const [mine] = kernel.devices;
  const here: IChoice = { ...choice, device: mine.index };
  const found = outlook(here, situation);
  if (found.verdict === 'waits') {
    return say(
      trans.__(
        'This cannot be had now: GPU %1 is held by %2 too.',
        mine.index,
        names(found.holders, trans)
      ),
      'none',
      'error'
    );
  }
  const device = situation.devices.find(({ uuid }) => uuid === mine.uuid);
  const cap =
    choice.memory.kind === 'reserved'
      ? amountOn(choice.memory.amount, device?.memory_bytes ?? null)
      : null;
  if (cap !== null && mine.used_bytes !== null && mine.used_bytes > cap) {
    return say(
      trans.__(
        'Takes effect at once, but the kernel uses %1 already: it gets no more until it has freed some.',
        readableAmount(mine.used_bytes)
      ),
      'now',
      'warning'
    );
  }
  return say(
    trans.__('Takes effect at once; the kernel keeps running.'),
    'now'
  );
}

/** Who holds what is waited for, as the end of a phrase; empty where nobody is known. */
function held(found: IOutlook, trans: TranslationBundle): string {
  return found.holders.length
    ? trans.__(', held by %1', names(found.holders, trans))
    : '';
}

function names(labels: readonly string[], trans: TranslationBundle): string {
  if (!labels.length) {
    return trans.__('others');
  }
  const shown = labels.slice(0, MOST_NAMES).join(', ');
  const more = labels.length - MOST_NAMES;
  return more > 0 ? trans.__('%1 and %2 more', shown, more) : shown;
}
