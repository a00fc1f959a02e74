import { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { pairOfAmounts } from '../amount';
import { IAvailability } from '../availability';
import { areOverviewsAlike, haveSame } from '../likeness';
import { IOverview, Order } from '../overview';
import { DeviceCard, IShown } from './deviceCard';
import { Figure } from './figure';
import { EmptyState, ProblemNotice, StaleNotice } from './notices';
import { useRoving } from './roving';
import { ALL, Figures, useServices } from './services';
import { UnassignedList, WaitingList } from './waitingList';

/** From so many kernels on there is something to sort and to search. */
const MANY_KERNELS = 8;

/** From so many devices on, too. */
const MANY_DEVICES = 5;

/** How far from the screen a card may be to count as seen. */
const CLOSE_PX = '20px';

export interface IPanelProps {
  readonly availability: IAvailability;
  /** Null before the first answer. */
  readonly overview: IOverview | null;
  readonly isSimulated: boolean;
  readonly shown: IShown;
  readonly filter: string;
  readonly order: Order;
  /** The devices whose kernels are folded away, by UUID. */
  readonly closed: ReadonlySet<string>;
  /** What a screen reader is to say of itself. */
  readonly announcement: string;
  readonly onFilter: (filter: string) => void;
  readonly onOrder: (order: Order) => void;
  readonly onToggle: (uuid: string) => void;
  /** Told which cards have come close to the screen, and which have gone away from it. */
  readonly onSeen: (uuid: string, isSeen: boolean) => void;
  readonly onRetry: () => void;
}

/** Whether a panel shows the same with either, but for figures, which come to the page by themselves. */
export function arePanelsAlike(
  { availability: a, overview: before, ...others }: IPanelProps,
  { availability: b, overview: after, ...next }: IPanelProps
): boolean {
  return (
    before !== null &&
    after !== null &&
    Object.entries(others).every(([name, value]) =>
      Object.is(value, next[name as keyof typeof next])
    ) &&
    haveSame(a, b, b.isStale ? undefined : ARRIVAL) &&
    areOverviewsAlike(before, after)
  );
}

/** Nobody is told when it was while the figures are new. */
const ARRIVAL: ReadonlySet<keyof IAvailability> = new Set(['arrived_ms']);

/** The GPU panel. */
export function Panel(props: IPanelProps): JSX.Element {
  const { availability, overview } = props;
  const ref = useRoving();
  const isReady = availability.kind === 'ready' && overview !== null;
  return (
    <div
      ref={ref}
      className="jp-gpu-Panel-content"
      data-stale={availability.isStale || undefined}
    >
      <div className="jp-gpu-VisuallyHidden" role="status" aria-live="polite">
        {props.announcement}
      </div>
      {isReady ? (
        <Overview {...props} overview={overview} />
      ) : (
        <EmptyState availability={availability} onRetry={props.onRetry} />
      )}
    </div>
  );
}

function Overview(
  props: IPanelProps & { readonly overview: IOverview }
): JSX.Element {
  const { trans } = useServices();
  const { availability, overview, shown } = props;
  const scroll = React.useRef<HTMLDivElement>(null);
  useSeenCards(scroll, overview, props.onSeen);
  const [stale, ...others] = availability.isStale
    ? availability.problems
    : [null, ...availability.problems];
  const nothingFound =
    props.filter.trim() !== '' &&
    !overview.cards.length &&
    !overview.waiting.length &&
    !overview.unassigned.length;
  return (
    <React.Fragment>
      <Summary {...props} />
      <div ref={scroll} className="jp-gpu-Panel-scroll">
        {stale && (
          <StaleNotice
            problem={stale}
            arrived_ms={availability.arrived_ms}
            onRetry={props.onRetry}
          />
        )}
        {others.map(
          problem =>
            problem && (
              <ProblemNotice
                key={problem.code + problem.message}
                problem={problem}
              />
            )
        )}
        {overview.waiting.length > 0 && (
          <WaitingList entries={overview.waiting} time={overview.time} />
        )}
        {overview.cards.map(card => (
          <DeviceCard
            key={card.device.uuid}
            card={card}
            shown={shown}
            isOpen={!props.closed.has(card.device.uuid)}
            onToggle={props.onToggle}
          />
        ))}
        {shown.kernelsWithoutGPU && overview.unassigned.length > 0 && (
          <UnassignedList kernels={overview.unassigned} />
        )}
        {nothingFound && (
          <div className="jp-gpu-Empty" role="status">
            {trans.__('No GPU and no kernel matches "%1".', props.filter)}
          </div>
        )}
      </div>
    </React.Fragment>
  );
}

/** Watches which cards are on the screen, or close to it. */
function useSeenCards(
  scroll: React.RefObject<HTMLElement>,
  overview: IOverview,
  onSeen: (uuid: string, isSeen: boolean) => void
): void {
  const uuids = overview.cards.map(card => card.device.uuid).join(' ');
  React.useEffect(() => {
    const observer = new IntersectionObserver(
      entries => {
        for (const { target, isIntersecting } of entries) {
          onSeen((target as HTMLElement).dataset['uuid']!, isIntersecting);
        }
      },
      { root: scroll.current, rootMargin: CLOSE_PX }
    );
    for (const card of scroll.current?.querySelectorAll('[data-uuid]') ?? []) {
      observer.observe(card);
    }
    return () => observer.disconnect();
  }, [scroll, uuids, onSeen]);
}

/** How much there is in all, and, where that is a lot, what to look for in it. */
function Summary(
  props: IPanelProps & { readonly overview: IOverview }
): JSX.Element {
  const { trans } = useServices();
  const { whole } = React.useContext(Figures);
  const { overview, filter, order, onFilter, onOrder } = props;
  const many =
    overview.leaseCount >= MANY_KERNELS ||
    overview.deviceCount >= MANY_DEVICES ||
    filter !== '';
  return (
    <div className="jp-gpu-Summary">
      <div className="jp-gpu-Summary-line">
        <span className="jp-gpu-Summary-count">
          {trans._n('%1 GPU', '%1 GPUs', overview.deviceCount)}
        </span>
        <Figure
          className="jp-gpu-Summary-memory"
          source={whole}
          of={ALL}
          text={memoryText}
        />
        {props.isSimulated && (
          <span
            className="jp-gpu-Chip"
            title={trans.__(
              'They have memory to hold and to run out of, but compute nothing.'
            )}
          >
            {trans.__('simulated')}
          </span>
        )}
      </div>
      {many && (
        <div className="jp-gpu-Summary-line">
          <input
            type="search"
            className="jp-gpu-Input jp-gpu-Summary-filter"
            placeholder={trans.__('Filter')}
            aria-label={trans.__('Filter GPUs and kernels')}
            spellCheck={false}
            defaultValue={filter}
            onChange={event => onFilter(event.target.value)}
          />
          <select
            className="jp-gpu-Select"
            aria-label={trans.__('Order of the kernels')}
            title={trans.__('Order of the kernels')}
            value={order}
            onChange={event => onOrder(event.target.value as Order)}
          >
            {orders(trans).map(([value, text]) => (
              <option key={value} value={value}>
                {text}
              </option>
            ))}
          </select>
        </div>
      )}
    </div>
  );
}

function memoryText({ memory_used_bytes, memory_bytes }: IOverview): string {
  return pairOfAmounts(memory_used_bytes, memory_bytes);
}

function orders(trans: TranslationBundle): [Order, string][] {
  return [
    ['gpu', trans.__('By start')],
    ['memory', trans.__('By memory')],
    ['utilization', trans.__('By utilisation')],
    ['idle', trans.__('By idle time')],
    ['name', trans.__('By name')]
  ];
}
