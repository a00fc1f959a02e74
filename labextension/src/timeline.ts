/** What a GPU or a kernel used over time, as a chart draws it and a spreadsheet reads it. */

import { TranslationBundle } from '@jupyterlab/translation';

import { shortName, unitName } from './names';
import { ISeries } from './rest';
import { IGPUModel, IUsageHistory } from './tokens';

/** Whose time line it is. */
export type Subject = { readonly uuid: string } | { readonly kernelId: string };

/** One line. */
export interface ILine {
  readonly label: string;
  /** One of the series' colours, from 1 on; 0 for the colour of text. */
  readonly colour: number;
  readonly series: ISeries;
}

/** A level that does not change with time, such as a cap. */
export interface ILevel {
  readonly label: string;
  readonly bytes: number;
}

/** All lines of one subject. */
export interface ITimeline {
  readonly title: string;
  readonly lines: readonly ILine[];
  readonly levels: readonly ILevel[];
  /** The memory at the upper edge, in bytes; null where it is unknown. */
  readonly top_bytes: number | null;
  /** Now, by the server's clock. */
  readonly time: number;
}

/** The time line of a subject; null where the server does not know of it any more. */
export function timeline(
  subject: Subject,
  model: IGPUModel,
  history: IUsageHistory,
  trans: TranslationBundle
): ITimeline | null {
  return 'uuid' in subject
    ? deviceTimeline(subject.uuid, model, history, trans)
    : kernelTimeline(subject.kernelId, model, history, trans);
}

/** The lines as comma-separated values: a row for each moment, memory in bytes, utilisation in percent. */
export function csv({ lines }: ITimeline, trans: TranslationBundle): string {
  const moments = new Map<number, string[]>();
  const width = 2 * lines.length;
  lines.forEach(({ series }, place) => {
    series.t.forEach((t, i) => {
      let row = moments.get(t);
      if (!row) {
        row = new Array<string>(width).fill('');
        moments.set(t, row);
      }
      row[2 * place] = String(series.memory[i] ?? '');
      row[2 * place + 1] = String(series.utilization[i] ?? '');
    });
  });
  const head = [
    trans.__('time'),
    ...lines.flatMap(({ label }) => [
      trans.__('%1: memory in bytes', label),
      trans.__('%1: utilisation in percent', label)
    ])
  ];
  const rows = [...moments]
    .sort(([a], [b]) => a - b)
    .map(([t, row]) => [new Date(1000 * t).toISOString(), ...row]);
  return [head, ...rows]
    .map(row => row.map(quoted).join(','))
    .join('\r\n')
    .concat('\r\n');
}

function deviceTimeline(
  uuid: string,
  model: IGPUModel,
  history: IUsageHistory,
  trans: TranslationBundle
): ITimeline | null {
  const answer = model.devices.value;
  const device = answer?.devices.find(found => found.uuid === uuid);
  if (!answer || !device) {
    return null;
  }
  const lines: ILine[] = [];
  const whole = history.device(uuid);
  if (whole) {
    lines.push({ label: trans.__('All'), colour: 0, series: whole });
  }
  for (const { owner, lease_id } of device.leases) {
    const series = owner.kernel_id
      ? history.kernel(owner.kernel_id, uuid)
      : null;
    if (series) {
      const colour = model.colours.of(lease_id);
      lines.push({ label: owner.label, colour, series });
    }
  }
  return {
    title: `${unitName(device, trans)} · ${shortName(device.name)}`,
    lines,
    levels: [],
    top_bytes: device.memory_bytes,
    time: answer.time
  };
}

function kernelTimeline(
  kernelId: string,
  model: IGPUModel,
  history: IUsageHistory,
  trans: TranslationBundle
): ITimeline | null {
  const answer = model.kernels.value;
  const kernel = answer?.kernels.find(
    ({ kernel_id }) => kernel_id === kernelId
  );
  if (!answer || !kernel) {
    return null;
  }
  const lines: ILine[] = [];
  const levels: ILevel[] = [];
  const first = model.colours.of(kernel.lease_id ?? kernelId);
  kernel.devices.forEach((device, place) => {
    const unit = unitName(device, trans);
    const series = history.kernel(kernelId, device.uuid);
    if (series) {
      lines.push({ label: unit, colour: first + place, series });
    }
    if (device.cap_bytes !== null) {
      levels.push({
        label:
          kernel.devices.length > 1
            ? trans.__('Cap on %1', unit)
            : trans.__('Cap'),
        bytes: device.cap_bytes
      });
    }
  });
  const caps = levels.map(level => level.bytes);
  return {
    title: kernel.label,
    lines,
    levels,
    top_bytes: caps.length ? 1.05 * Math.max(...caps) : null,
    time: answer.time
  };
}

function quoted(cell: string): string {
  return /[",\r\n]/.test(cell) ? `"${cell.replace(/"/g, '""')}"` : cell;
}
