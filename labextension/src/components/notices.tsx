import { refreshIcon } from '@jupyterlab/ui-components';
import * as React from 'react';

import { IAvailability } from '../availability';
import { IProblem } from '../rest';
import { useServices } from './services';

/** What there is to say when there is nothing to show. */
export function EmptyState({
  availability,
  onRetry
}: {
  availability: IAvailability;
  onRetry: () => void;
}): JSX.Element {
  const { trans } = useServices();
  if (availability.kind === 'loading') {
    return (
      <div className="jp-gpu-Empty" role="status" aria-busy="true">
        {trans.__('Asking the server about its GPUs…')}
      </div>
    );
  }
  const failed = availability.kind === 'failed';
  return (
    <div className="jp-gpu-Empty" role={failed ? 'alert' : 'status'}>
      {availability.problems.map(problem => (
        <div key={problem.code + problem.message}>
          <p className="jp-gpu-Empty-message">{problem.message}</p>
          <p className="jp-gpu-Empty-advice">
            <Advice text={problem.advice} />
          </p>
        </div>
      ))}
      <button
        type="button"
        className="jp-gpu-Button"
        data-gpu-stop=""
        onClick={onRetry}
      >
        {trans.__('Look again')}
      </button>
    </div>
  );
}

/** That what is shown is old. */
export const StaleNotice = React.memo(
  ({
    problem,
    arrived_ms,
    onRetry
  }: {
    problem: IProblem;
    arrived_ms: number | null;
    onRetry: () => void;
  }): JSX.Element => {
    const { trans } = useServices();
    // A silent driver's message says itself how old they are.
    const time =
      arrived_ms === null || problem.code === 'driver-silent'
        ? ''
        : new Date(arrived_ms).toLocaleTimeString(undefined, {
            hour: '2-digit',
            minute: '2-digit',
            second: '2-digit'
          });
    return (
      <div className="jp-gpu-Notice" data-kind="stale">
        <div className="jp-gpu-Notice-text">
          <span className="jp-gpu-Notice-message">{problem.message}</span>{' '}
          {time && trans.__('These figures are from %1.', time)}{' '}
          <Advice text={problem.advice} />
        </div>
        <button
          type="button"
          className="jp-gpu-IconButton"
          data-gpu-stop=""
          aria-label={trans.__('Ask the server now')}
          title={trans.__('Ask the server now')}
          onClick={onRetry}
        >
          <refreshIcon.react tag="span" elementSize="normal" />
        </button>
      </div>
    );
  }
);

/** Something that is not as it should be, and what to do about it. */
export const ProblemNotice = React.memo(
  ({ problem }: { problem: IProblem }): JSX.Element => {
    return (
      <div className="jp-gpu-Notice" data-kind="problem">
        <div className="jp-gpu-Notice-text">
          <span className="jp-gpu-Notice-message">{problem.message}</span>{' '}
          <Advice text={problem.advice} />
        </div>
      </div>
    );
  }
);

/** An advice, with what stands in quotation marks or backticks set as something to type. */
function Advice({ text }: { text: string }): JSX.Element {
  const parts = text.split(/["`]([^"`]+)["`]/);
  return (
    <React.Fragment>
      {parts.map((part, i) =>
        i % 2 ? (
          <code key={i} className="jp-gpu-Code">
            {part}
          </code>
        ) : (
          part
        )
      )}
    </React.Fragment>
  );
}
