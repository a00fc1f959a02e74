import * as React from 'react';

import { LiveFigures } from '../liveFigures';

export interface IFigureProps<T> {
  readonly className?: string;
  readonly title?: string;
  /** Where the figure comes from, and under which key. */
  readonly source: LiveFigures<T>;
  readonly of: string;
  /** The figure as text; a function that stays the same. */
  readonly text: (item: T) => string;
}

/**
 * A text that follows a figure by itself: what it stands in is not drawn anew for it.
 *
 * Where dozens of figures change each second, React would take longer to find out which than the page to show them.
 */
export function Figure<T>(props: IFigureProps<T>): JSX.Element {
  const { className, title, source, of, text } = props;
  const ref = React.useRef<HTMLSpanElement>(null);
  const tell = React.useCallback(
    (item: T) => write(ref.current!, text(item)),
    [text]
  );
  useFigures(source, of, tell);
  return <span ref={ref} className={className} title={title} />;
}

/** Calls `tell`, a function that stays the same, with the newest of a key: before that is first seen, and ever after. */
export function useFigures<T>(
  source: LiveFigures<T>,
  of: string,
  tell: (item: T) => void
): void {
  React.useLayoutEffect(() => source.watch(of, tell), [source, of, tell]);
}

/** In the text node that is there, where one is: a new one would cost more. */
function write(element: HTMLElement, text: string): void {
  const node = element.firstChild;
  if (!node) {
    element.textContent = text;
  } else if (node.nodeValue !== text) {
    node.nodeValue = text;
  }
}
