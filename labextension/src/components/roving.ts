import * as React from 'react';

/** What a person gets to with the arrow keys up and down. */
const STOPS = '[data-gpu-stop]';

/** What lies right of a stop, in the same line. */
const BESIDE = '[data-gpu-menu]';

/** What a line is. */
const LINE = 'li, .jp-gpu-Card-heading';

/**
 * Makes a long list one stop of the Tab key: the arrow keys move in it, Home and End go to its ends, right and left
 * between a line and its actions.
 *
 * The elements' `tabIndex` is kept here rather than by React, so that a step does not draw all lines anew.
 */
export function useRoving(): React.RefObject<HTMLDivElement> {
  const ref = React.useRef<HTMLDivElement>(null);
  React.useEffect(() => {
    const root = ref.current;
    if (!root) {
      return;
    }
    const onKeyDown = (event: KeyboardEvent) => move(root, event);
    const onFocusIn = (event: FocusEvent) => {
      if (event.target instanceof HTMLElement) {
        settle(root, event.target);
      }
    };
    root.addEventListener('keydown', onKeyDown);
    root.addEventListener('focusin', onFocusIn);
    return () => {
      root.removeEventListener('keydown', onKeyDown);
      root.removeEventListener('focusin', onFocusIn);
    };
  }, []);
  // After every drawing: whatever Tab led to may be gone.
  React.useEffect(() => {
    const root = ref.current;
    if (root && !root.querySelector(`:is(${STOPS}, ${BESIDE})[tabindex="0"]`)) {
      root.querySelector<HTMLElement>(STOPS)?.setAttribute('tabindex', '0');
    }
  });
  return ref;
}

function move(root: HTMLElement, event: KeyboardEvent): void {
  if (event.altKey || event.ctrlKey || event.metaKey) {
    return;
  }
  const from = event.target;
  if (!(from instanceof HTMLElement) || !from.matches(`${STOPS}, ${BESIDE}`)) {
    return;
  }
  const line = from.closest(LINE);
  const stop = from.matches(STOPS) ? from : line?.querySelector(STOPS);
  const stops = [...root.querySelectorAll<HTMLElement>(STOPS)];
  const place = stops.indexOf(stop as HTMLElement);
  let to: HTMLElement | null | undefined;
  switch (event.key) {
    case 'ArrowDown':
      to = stops[place + 1];
      break;
    case 'ArrowUp':
      to = stops[place - 1];
      break;
    case 'Home':
      to = stops[0];
      break;
    case 'End':
      to = stops[stops.length - 1];
      break;
    case 'ArrowRight':
      to = line?.querySelector<HTMLElement>(BESIDE);
      break;
    case 'ArrowLeft':
      to = line?.querySelector<HTMLElement>(STOPS);
      break;
    default:
      return;
  }
  event.preventDefault();
  to?.focus();
}

/** Let Tab lead to `element` from now on, and to no other. */
function settle(root: HTMLElement, element: HTMLElement): void {
  if (!element.matches(`${STOPS}, ${BESIDE}`)) {
    return;
  }
  for (const other of root.querySelectorAll(
    `:is(${STOPS}, ${BESIDE})[tabindex="0"]`
  )) {
    other.setAttribute('tabindex', '-1');
  }
  element.setAttribute('tabindex', '0');
}
