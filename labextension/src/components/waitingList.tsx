import { closeIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { readableDuration } from '../durations';
import { IUnassigned } from '../overview';
import { IQueueEntry } from '../rest';
import { CommandIDs } from '../tokens';
import { ActionsButton, conditionText } from './kernelRow';
import { useServices } from './services';

/** The requests that wait for their turn, first come, first served. */
export const WaitingList = React.memo(
  ({
    entries,
    time
  }: {
    entries: readonly IQueueEntry[];
    /** Now, by the server's clock. */
    time: number;
  }): JSX.Element => {
    const { trans } = useServices();
    return (
      <section
        className="jp-gpu-Card"
        aria-label={trans.__('Waiting for a GPU')}
      >
        <h3 className="jp-gpu-SectionTitle">
          {trans.__('Waiting')}
          <span className="jp-gpu-Card-count">{entries.length}</span>
        </h3>
        <ol className="jp-gpu-Rows" role="list">
          {entries.map(entry => (
            <WaitingRow
              key={entry.id}
              entry={entry}
              waited={readableDuration(time - entry.since, trans)}
            />
          ))}
        </ol>
      </section>
    );
  }
);

const WaitingRow = React.memo(
  ({ entry, waited }: { entry: IQueueEntry; waited: string }): JSX.Element => {
    const { trans, run } = useServices();
    return (
      <li className="jp-gpu-Row" data-condition="waiting" data-entry={entry.id}>
        <div className="jp-gpu-Row-line">
          <span className="jp-gpu-Row-name" title={entry.path ?? entry.label}>
            <span className="jp-gpu-Swatch" data-kind="waiting" />
            <span className="jp-gpu-Row-label">{entry.label}</span>
          </span>
          <span
            className="jp-gpu-Row-memory"
            title={trans.__('What it asks for')}
          >
            {entry.request}
          </span>
          <button
            type="button"
            className="jp-gpu-IconButton"
            data-gpu-stop=""
            tabIndex={-1}
            aria-label={trans.__('Stop %1 from waiting', entry.label)}
            title={trans.__('Stop waiting')}
            onClick={() => run(CommandIDs.cancelWaiting, { id: entry.id })}
          >
            <closeIcon.react tag="span" elementSize="normal" />
          </button>
        </div>
        <span className="jp-gpu-Row-remark">
          {trans.__('%1 · for %2', entry.message, waited)}
        </span>
      </li>
    );
  },
  (a, b) => a.entry === b.entry && a.waited === b.waited
);

/** The kernels of this server that hold no GPU. */
export const UnassignedList = React.memo(
  ({ kernels }: { kernels: readonly IUnassigned[] }): JSX.Element => {
    const { trans } = useServices();
    return (
      <section className="jp-gpu-Card" aria-label={trans.__('Without a GPU')}>
        <h3 className="jp-gpu-SectionTitle">
          {trans.__('Without a GPU')}
          <span className="jp-gpu-Card-count">{kernels.length}</span>
        </h3>
        <ul className="jp-gpu-Rows" role="list">
          {kernels.map(kernel => (
            <UnassignedRow key={kernel.kernelId} kernel={kernel} />
          ))}
        </ul>
      </section>
    );
  }
);

const UnassignedRow = React.memo(
  ({ kernel }: { kernel: IUnassigned }): JSX.Element => {
    const { trans, run } = useServices();
    const { kernelId, label, condition, notice } = kernel;
    return (
      <li
        className="jp-gpu-Row"
        data-condition={condition}
        data-kernel={kernelId}
      >
        <div className="jp-gpu-Row-line">
          <button
            type="button"
            className="jp-gpu-Row-name"
            data-gpu-stop=""
            tabIndex={-1}
            title={kernel.path ?? label}
            onClick={() => run(CommandIDs.showKernel, { kernelId })}
          >
            <span className="jp-gpu-Swatch" data-kind="none" />
            <span className="jp-gpu-Row-label">{label}</span>
          </button>
          <span className="jp-gpu-Row-memory">
            {conditionText(condition, trans)}
          </span>
          <ActionsButton kernelId={kernelId} label={label} />
        </div>
        {notice !== null && <span className="jp-gpu-Row-remark">{notice}</span>}
        {kernel.pending_request !== null && (
          <span className="jp-gpu-Row-remark">
            {trans.__('%1 from the next restart on', kernel.pending_request)}
          </span>
        )}
      </li>
    );
  }
);
