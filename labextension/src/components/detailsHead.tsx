import { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { pairOfAmounts, readableAmount, UNKNOWN } from '../amount';
import { readableDuration } from '../durations';
import { IDevice, IKernel } from '../rest';
import { percent } from './kernelRow';

export interface IDetailsHeadProps {
  readonly trans: TranslationBundle;
  readonly title: string;
  /** The device that it is about; null where it is about a kernel. */
  readonly device: IDevice | null;
  readonly kernel: IKernel | null;
  /** Whether nothing new comes any more. */
  readonly isOver: boolean;
  readonly isZoomed: boolean;
  readonly spans_s: readonly (number | null)[];
  readonly span_s: number | null;
  readonly onSpan: (span_s: number | null) => void;
  readonly onZoomOut: () => void;
  readonly onCSV: () => void;
  readonly onPNG: () => void;
}

/** The title, the figures of now and the buttons above the charts. */
export function DetailsHead(props: IDetailsHeadProps): JSX.Element {
  const { trans, device, kernel } = props;
  const figures = device
    ? deviceFigures(device, trans)
    : kernel
      ? kernelFigures(kernel, trans)
      : [];
  return (
    <React.Fragment>
      <div className="jp-gpu-Details-bar">
        <h2 className="jp-gpu-Details-title">{props.title}</h2>
        {props.isOver && (
          <span className="jp-gpu-Chip" role="status">
            {trans.__('nothing new comes')}
          </span>
        )}
        <Buttons {...props} />
      </div>
      <dl className="jp-gpu-Details-figures">
        {figures.map(([name, value, reason]) => (
          <div key={name} title={reason ?? undefined}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </React.Fragment>
  );
}

function Buttons(props: IDetailsHeadProps): JSX.Element {
  const { trans, spans_s, span_s } = props;
  return (
    <div className="jp-gpu-Details-buttons">
      {props.isZoomed && (
        <button
          type="button"
          className="jp-gpu-Button"
          onClick={props.onZoomOut}
        >
          {trans.__('Zoom out')}
        </button>
      )}
      <div
        className="jp-gpu-Segments"
        role="group"
        aria-label={trans.__('How far to look back')}
      >
        {spans_s.map(choice => (
          <button
            key={String(choice)}
            type="button"
            className="jp-gpu-Button"
            aria-pressed={choice === span_s}
            onClick={() => props.onSpan(choice)}
          >
            {choice === null
              ? trans.__('All')
              : readableDuration(choice, trans)}
          </button>
        ))}
      </div>
      <button
        type="button"
        className="jp-gpu-Button"
        title={trans.__('Save all figures as comma-separated values')}
        onClick={props.onCSV}
      >
        {trans.__('CSV')}
      </button>
      <button
        type="button"
        className="jp-gpu-Button"
        title={trans.__('Save the charts as a picture')}
        onClick={props.onPNG}
      >
        {trans.__('PNG')}
      </button>
    </div>
  );
}

/** A name, a value, and where the value is unknown, the reason. */
type Figure = readonly [string, string, string?];

function deviceFigures(device: IDevice, trans: TranslationBundle): Figure[] {
  const { reasons } = device;
  const watts =
    device.power_watts === null
      ? UNKNOWN
      : device.power_limit_watts === null
        ? trans.__('%1 W', Math.round(device.power_watts))
        : trans.__(
            '%1 / %2 W',
            Math.round(device.power_watts),
            Math.round(device.power_limit_watts)
          );
  return [
    [
      trans.__('Memory'),
      pairOfAmounts(device.memory_used_bytes, device.memory_bytes),
      reasons['memory_used_bytes']
    ],
    [trans.__('Reserved'), readableAmount(device.reserved_bytes)],
    [trans.__('Free to reserve'), readableAmount(device.available_bytes)],
    [
      trans.__('Utilisation'),
      percent(device.utilization_percent),
      reasons['utilization_percent']
    ],
    [
      trans.__('Temperature'),
      device.temperature_celsius === null
        ? UNKNOWN
        : trans.__('%1 °C', Math.round(device.temperature_celsius)),
      reasons['temperature_celsius']
    ],
    [trans.__('Power'), watts, reasons['power_watts']]
  ];
}

function kernelFigures(kernel: IKernel, trans: TranslationBundle): Figure[] {
  return kernel.devices.flatMap((device): Figure[] => {
    const { reasons } = device;
    const peak =
      device.peak_kind === 'sampled'
        ? trans.__('≥ %1 (sampled)', readableAmount(device.peak_bytes))
        : readableAmount(device.peak_bytes);
    return [
      [
        trans.__('Memory on GPU %1', device.index),
        pairOfAmounts(device.used_bytes, device.cap_bytes),
        reasons['used_bytes']
      ],
      [trans.__('Peak'), peak, reasons['peak_bytes']],
      [
        trans.__('Utilisation'),
        percent(device.utilization_percent),
        reasons['utilization_percent']
      ]
    ];
  });
}
