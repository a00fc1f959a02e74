import { TranslationBundle } from '@jupyterlab/translation';
import { caretDownIcon, caretRightIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { pairOfAmounts, readableAmount, UNKNOWN } from '../amount';
import { chartIcon } from '../icons';
import { areCardsAlike } from '../likeness';
import { shortName, unitName } from '../names';
import { ICard } from '../overview';
import { IDevice } from '../rest';
import { CommandIDs } from '../tokens';
import { Figure } from './figure';
import { KernelRow, percent } from './kernelRow';
import { MemoryBar } from './memoryBar';
import { Figures, useServices } from './services';

/** What the settings let people leave out. */
export interface IShown {
  readonly sparklines: boolean;
  readonly temperatureAndPower: boolean;
  readonly foreignProcesses: boolean;
  readonly kernelsWithoutGPU: boolean;
}

export interface IDeviceCardProps {
  readonly card: ICard;
  readonly shown: IShown;
  readonly isOpen: boolean;
  readonly onToggle: (uuid: string) => void;
}

/** One GPU with all that is on it. */
export const DeviceCard = React.memo(
  ({ card, shown, isOpen, onToggle }: IDeviceCardProps): JSX.Element => {
    const { trans } = useServices();
    const { device, rows } = card;
    const listId = `jp-gpu-rows-${device.uuid}`;
    const foreign = shown.foreignProcesses && (device.foreign_bytes ?? 0) > 0;
    return (
      <section
        className="jp-gpu-Card"
        aria-label={`${unitName(device, trans)}, ${shortName(device.name)}`}
        data-uuid={device.uuid}
        data-lost={device.lost || undefined}
        data-instance={device.parent_uuid ? '' : undefined}
      >
        <Heading
          uuid={device.uuid}
          unit={unitName(device, trans)}
          model={shortName(device.name)}
          rowCount={rows.length}
          listId={listId}
          isOpen={isOpen}
          onToggle={onToggle}
        />
        {device.lost ? (
          <p className="jp-gpu-Card-lost">
            {trans.__(
              'This GPU does not answer any more. Restart the kernels on it; if it stays lost, the host has to be restarted.'
            )}
          </p>
        ) : (
          device.leasable && (
            <React.Fragment>
              <MemoryBar uuid={device.uuid} />
              <DeviceFigures
                device={device}
                showTemperatureAndPower={shown.temperatureAndPower}
              />
            </React.Fragment>
          )
        )}
        {!device.leasable && device.mig_enabled && (
          <p className="jp-gpu-Card-note">
            {trans.__('Divided into MIG instances')}
          </p>
        )}
        {isOpen && (rows.length > 0 || foreign) && (
          <ul className="jp-gpu-Rows" id={listId} role="list">
            {rows.map(row => (
              <KernelRow
                key={row.key}
                row={row}
                showSparkline={shown.sparklines}
              />
            ))}
            {foreign && <ForeignRow device={device} />}
          </ul>
        )}
        {card.hiddenRows > 0 && (
          <p className="jp-gpu-Card-note">
            {trans._n(
              '%1 more is hidden by the filter',
              '%1 more are hidden by the filter',
              card.hiddenRows
            )}
          </p>
        )}
      </section>
    );
  },
  ({ card: a, ...others }, { card: b, ...next }) =>
    areCardsAlike(a, b) &&
    others.shown === next.shown &&
    others.isOpen === next.isOpen &&
    others.onToggle === next.onToggle
);

const Heading = React.memo(
  (props: {
    uuid: string;
    unit: string;
    model: string;
    rowCount: number;
    listId: string;
    isOpen: boolean;
    onToggle: (uuid: string) => void;
  }): JSX.Element => {
    const { trans, run } = useServices();
    const { uuid, unit, model, isOpen } = props;
    const caret = isOpen ? caretDownIcon : caretRightIcon;
    return (
      <div className="jp-gpu-Card-heading">
        <button
          type="button"
          className="jp-gpu-Card-title"
          data-gpu-stop=""
          tabIndex={-1}
          aria-expanded={isOpen}
          aria-controls={isOpen ? props.listId : undefined}
          title={`${model}\n${uuid}`}
          onClick={() => props.onToggle(uuid)}
        >
          <caret.react tag="span" elementSize="small" />
          <span className="jp-gpu-Card-unit">{unit}</span>
          <span className="jp-gpu-Card-model">{model}</span>
        </button>
        {!isOpen && props.rowCount > 0 && (
          <span className="jp-gpu-Card-count">
            {trans._n('%1 kernel', '%1 kernels', props.rowCount)}
          </span>
        )}
        <button
          type="button"
          className="jp-gpu-IconButton"
          data-gpu-menu=""
          tabIndex={-1}
          aria-label={trans.__('%1 over time', unit)}
          title={trans.__('Memory and utilisation over time')}
          onClick={() => run(CommandIDs.showDetails, { uuid })}
        >
          <chartIcon.react tag="span" elementSize="normal" />
        </button>
      </div>
    );
  }
);

/** What is known of a device in figures. */
function DeviceFigures({
  device,
  showTemperatureAndPower
}: {
  device: IDevice;
  showTemperatureAndPower: boolean;
}): JSX.Element {
  const { trans } = useServices();
  const { cards } = React.useContext(Figures);
  const figure = (field: keyof typeof TEXTS, title: string) => (
    <Figure
      className={`jp-gpu-Figure jp-gpu-Figure-${field}`}
      title={reasonFor(device, field) ?? title}
      source={cards}
      of={device.uuid}
      text={TEXTS[field]}
    />
  );
  return (
    <div className="jp-gpu-Figures">
      {figure('memory', trans.__('Memory in use'))}
      {figure('utilization', trans.__('Utilisation'))}
      {showTemperatureAndPower &&
        figure('temperature', trans.__('Temperature'))}
      {showTemperatureAndPower &&
        figure(
          'power',
          device.power_limit_watts === null
            ? trans.__('Power')
            : trans.__(
                'Power, limited to %1 W',
                Math.round(device.power_limit_watts)
              )
        )}
    </div>
  );
}

const TEXTS = {
  memory: ({ device }: ICard) =>
    pairOfAmounts(device.memory_used_bytes, device.memory_bytes),
  utilization: ({ device }: ICard) => percent(device.utilization_percent),
  temperature: ({ device }: ICard) =>
    withUnit(device.temperature_celsius, '°C'),
  power: ({ device }: ICard) => withUnit(device.power_watts, 'W')
} as const;

/** The memory that processes hold which are not Jupyter's. */
function ForeignRow({ device }: { device: IDevice }): JSX.Element {
  const { trans } = useServices();
  const processes = device.foreign.map(({ pid, name, memory_bytes }) =>
    trans.__(
      '%1 (process %2): %3',
      name ?? trans.__("another user's"),
      pid,
      readableAmount(memory_bytes)
    )
  );
  return (
    <li className="jp-gpu-Row jp-gpu-mod-figures" data-condition="foreign">
      <div className="jp-gpu-Row-line">
        <span className="jp-gpu-Row-name" title={processes.join('\n')}>
          <span className="jp-gpu-Swatch" data-kind="foreign" />
          <span className="jp-gpu-Row-label">{trans.__("Not Jupyter's")}</span>
        </span>
        <span className="jp-gpu-Row-memory">
          {readableAmount(device.foreign_bytes)}
        </span>
      </div>
      {processes.length > 0 && (
        <span className="jp-gpu-Row-remark">{namesOf(device, trans)}</span>
      )}
    </li>
  );
}

function namesOf(device: IDevice, trans: TranslationBundle): string {
  return device.foreign
    .map(({ name, pid }) => `${name ?? trans.__("another user's")} ${pid}`)
    .join(', ');
}

function reasonFor(device: IDevice, field: keyof typeof TEXTS): string | null {
  const name = {
    memory: 'memory_used_bytes',
    utilization: 'utilization_percent',
    temperature: 'temperature_celsius',
    power: 'power_watts'
  }[field];
  return device.reasons[name] ?? device.reasons['usage'] ?? null;
}

function withUnit(value: number | null, unit: string): string {
  return value === null ? UNKNOWN : `${Math.round(value)} ${unit}`;
}
