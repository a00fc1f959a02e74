import { nullTranslator, TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { LiveFigures } from '../liveFigures';
import { BarColours } from '../memoryBar';
import { ICard, IOverview, IRow } from '../overview';
import { IUsageHistory, TRANSLATION_DOMAIN } from '../tokens';

/** What the panel's components need of the application. All of it stays the same while the panel lives. */
export interface IPanelServices {
  readonly trans: TranslationBundle;
  readonly history: IUsageHistory;
  readonly barColours: BarColours;
  /** Run a command. */
  readonly run: (command: string, args: { [name: string]: string }) => void;
  /** Open the menu of a kernel's actions below an element. */
  readonly openKernelMenu: (kernelId: string, anchor: HTMLElement) => void;
}

export const Services = React.createContext<IPanelServices>({
  trans: nullTranslator.load(TRANSLATION_DOMAIN),
  history: {
    device: () => null,
    kernel: () => null,
    load: () => Promise.resolve(),
    loaded: { connect: () => false, disconnect: () => false }
  },
  barColours: new BarColours(),
  run: () => undefined,
  openKernelMenu: () => undefined
});

/** The figures of what the panel shows: by the keys of its rows, by the UUIDs of its cards, and of all by `ALL`. */
export interface IFigures {
  readonly rows: LiveFigures<IRow>;
  readonly cards: LiveFigures<ICard>;
  readonly whole: LiveFigures<IOverview>;
}

export const ALL = 'all';

export const Figures = React.createContext<IFigures>(newFigures());

/** Figures, of which there are none yet. */
export function newFigures(): IFigures {
  return {
    rows: new LiveFigures(row => row.key),
    cards: new LiveFigures(card => card.device.uuid),
    whole: new LiveFigures(() => ALL)
  };
}

export function useServices(): IPanelServices {
  return React.useContext(Services);
}
