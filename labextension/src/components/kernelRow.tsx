import { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { pairOfAmounts, readableAmount, UNKNOWN } from '../amount';
import { readableDuration } from '../durations';
import { areRowsAlike, briefly } from '../likeness';
import { Condition, IRow } from '../overview';
import { CommandIDs } from '../tokens';
import { Figure } from './figure';
import { Figures, useServices } from './services';
import { Sparkline } from './sparkline';

export interface IKernelRowProps {
  readonly row: IRow;
  readonly showSparkline: boolean;
}

/** What one kernel, or another holder of a lease, uses of one device. */
export const KernelRow = React.memo(
  ({ row, showSparkline }: IKernelRowProps): JSX.Element => {
    const { trans } = useServices();
    const { rows } = React.useContext(Figures);
    return (
      <li
        className="jp-gpu-Row jp-gpu-mod-figures"
        data-condition={row.condition}
        data-brief={briefly(row)}
        data-idle={row.idle_policy ?? undefined}
        data-series={row.colour}
        data-kernel={row.kernelId ?? undefined}
      >
        <div className="jp-gpu-Row-line">
          <Name row={row} />
          <Figure
            className="jp-gpu-Row-memory"
            title={row.used_reason ?? memoryTitle(row, trans)}
            source={rows}
            of={row.key}
            text={memoryText}
          />
          {row.kernelId && (
            <ActionsButton kernelId={row.kernelId} label={row.label} />
          )}
        </div>
        <div className="jp-gpu-Row-line">
          {showSparkline && <Sparkline of={row.key} />}
          <Figure
            className="jp-gpu-Row-utilization"
            title={row.utilization_reason ?? trans.__('Utilisation of the GPU')}
            source={rows}
            of={row.key}
            text={utilizationText}
          />
          <span className="jp-gpu-Row-state">{stateText(row, trans)}</span>
          <Peak
            of={row.key}
            kind={row.peak_bytes === null ? null : (row.peak_kind ?? 'sampled')}
          />
        </div>
        {row.pending_request !== null && (
          <span className="jp-gpu-Row-remark">
            {trans.__('%1 from the next restart on', row.pending_request)}
          </span>
        )}
        {row.idle_policy !== null && (
          <span className="jp-gpu-Row-remark jp-gpu-Row-idle">
            {idleText(row, trans)}
          </span>
        )}
      </li>
    );
  },
  ({ row: a, ...others }, { row: b, ...next }) =>
    areRowsAlike(a, b) && others.showSparkline === next.showSparkline
);

const Name = React.memo(
  ({ row }: { row: IRow }): JSX.Element => {
    const { trans, run } = useServices();
    const { kernelId, label } = row;
    if (!kernelId) {
      const pid = row.pid === null ? '' : String(row.pid);
      return (
        <span
          className="jp-gpu-Row-name"
          title={
            row.isCommand
              ? trans.__('A command, process %1', pid)
              : trans.__('A kernel of another server, process %1', pid)
          }
        >
          <span className="jp-gpu-Swatch" />
          <span className="jp-gpu-Row-label">{label}</span>
        </span>
      );
    }
    return (
      <button
        type="button"
        className="jp-gpu-Row-name"
        data-gpu-stop=""
        tabIndex={-1}
        title={row.path ?? label}
        onClick={() => run(CommandIDs.showKernel, { kernelId })}
      >
        <span className="jp-gpu-Swatch" />
        <span className="jp-gpu-Row-label">{label}</span>
        {row.alsoOn && (
          <span className="jp-gpu-Row-also">
            {trans.__('+ GPU %1', row.alsoOn)}
          </span>
        )}
      </button>
    );
  },
  ({ row: a }, { row: b }) =>
    a.kernelId === b.kernelId &&
    a.label === b.label &&
    a.path === b.path &&
    a.alsoOn === b.alsoOn
);

/** The button that opens the menu of what can be done with a kernel. */
export const ActionsButton = React.memo(
  ({ kernelId, label }: { kernelId: string; label: string }): JSX.Element => {
    const { trans, openKernelMenu } = useServices();
    return (
      <button
        type="button"
        className="jp-gpu-IconButton"
        data-gpu-menu=""
        tabIndex={-1}
        aria-haspopup="menu"
        aria-label={trans.__('Actions for %1', label)}
        title={trans.__('Actions')}
        onClick={event => openKernelMenu(kernelId, event.currentTarget)}
      >
        <span className="jp-gpu-Dots" />
      </button>
    );
  }
);

const Peak = React.memo(
  ({ of, kind }: { of: string; kind: IRow['peak_kind'] }): JSX.Element => {
    const { trans } = useServices();
    const { rows } = React.useContext(Figures);
    const isExact = kind === 'exact';
    // Looked up once rather than for each amount.
    const words = isExact
      ? trans.__('peak %1', '%1')
      : trans.__('peak ≥ %1', '%1');
    const text = React.useCallback(
      ({ peak_bytes }: IRow) => words.replace('%1', readableAmount(peak_bytes)),
      [words]
    );
    if (kind === null) {
      return <span className="jp-gpu-Row-peak" />;
    }
    return (
      <span
        className="jp-gpu-Row-peak"
        title={
          isExact
            ? trans.__('The most memory it ever had, counted exactly')
            : trans.__(
                'The most memory that was seen at a sample; between samples it may have been more'
              )
        }
      >
        <Figure source={rows} of={of} text={text} />
        <span className="jp-gpu-Row-peakKind">
          {isExact ? trans.__('exact') : trans.__('sampled')}
        </span>
      </span>
    );
  }
);

function memoryText(row: IRow): string {
  return pairOfAmounts(row.used_bytes, row.cap_bytes);
}

function utilizationText(row: IRow): string {
  return percent(row.utilization_percent);
}

/** A number of percent. */
export function percent(value: number | null): string {
  return value === null ? UNKNOWN : `${Math.round(value)} %`;
}

/** The words for a condition. */
export function conditionText(
  condition: Condition,
  trans: TranslationBundle
): string {
  switch (condition) {
    case 'lost':
      return trans.__('GPU lost');
    case 'over-cap':
      return trans.__('over cap');
    case 'near-cap':
      return trans.__('near cap');
    case 'problem':
      return trans.__('problem');
    case 'waiting':
      return trans.__('waiting');
    case 'starting':
      return trans.__('starting');
    case 'busy':
      return trans.__('busy');
    case 'idle':
      return trans.__('idle');
    case 'elsewhere':
      return '';
  }
}

function stateText(row: IRow, trans: TranslationBundle): string {
  if (row.condition === 'elsewhere') {
    return row.isCommand ? trans.__('command') : trans.__('other server');
  }
  if (row.condition === 'idle' && row.idle_min !== null && row.idle_min > 0) {
    return trans.__('idle %1', readableDuration(60 * row.idle_min, trans));
  }
  return conditionText(row.condition, trans);
}

/** What comes of holding memory without computing, in as few words as fit a narrow line. */
function idleText(row: IRow, trans: TranslationBundle): string {
  const { idle_policy, idle_left_min } = row;
  if (idle_policy === 'kept') {
    return trans.__('Holds memory idle, and is kept');
  }
  if (idle_left_min === null || idle_policy === 'mark') {
    return trans.__('Holds memory idle');
  }
  const left = readableDuration(60 * idle_left_min, trans);
  return idle_policy === 'shut-down'
    ? trans.__('Ends in %1 if it stays idle', left)
    : trans.__('Loses its reservation in %1 if it stays idle', left);
}

function memoryTitle(row: IRow, trans: TranslationBundle): string {
  const cap = readableAmount(row.cap_bytes);
  switch (row.hold) {
    case 'reserved':
      return trans.__('%1 are reserved for it, and no more', cap);
    case 'whole':
      return trans.__('It has the whole GPU to itself');
    case 'shared':
      return row.cap_bytes === null
        ? trans.__('It may use what nobody has reserved')
        : trans.__('It may use what nobody has reserved, now %1', cap);
  }
}
