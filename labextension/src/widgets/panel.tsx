import { TranslationBundle } from '@jupyterlab/translation';
import { IDisposable } from '@lumino/disposable';
import { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import * as React from 'react';

import { Announcements } from '../announcements';
import { availability } from '../availability';
import { IShown } from '../components/deviceCard';
import { arePanelsAlike, IPanelProps, Panel } from '../components/panel';
import {
  Figures,
  IPanelServices,
  newFigures,
  Services
} from '../components/services';
import { gpuIcon } from '../icons';
import { IOverview, Order, Overviews } from '../overview';
import { IFeed, IGPUModel } from '../tokens';
import { PromptWidget } from './promptWidget';

/** How much room there is, from so many pixels on. */
const WIDTHS: readonly (readonly [number, string])[] = [
  [680, 'wide'],
  [370, 'roomy'],
  [320, 'usual'],
  [0, 'narrow']
];

/** The sidebar that shows all GPUs and who uses what. It asks the server while it is seen. */
export class GPUPanel extends PromptWidget {
  constructor(options: GPUPanel.IOptions) {
    super();
    const { trans } = options.services;
    this._model = options.model;
    this._services = options.services;
    this._trans = trans;
    this._announcements = new Announcements(trans);
    this._overviews = new Overviews(options.model.colours);
    this.id = 'jupyter-gpu-panel';
    this.addClass('jp-gpu-Panel');
    this.title.icon = gpuIcon;
    this.title.caption = trans.__('GPUs');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', trans.__('GPUs'));
    this._model.updated.connect(this._onUpdated, this);
    this._model.history.loaded.connect(this._onUpdated, this);
  }

  /** What is shown, as the settings say. */
  configure(shown: IShown, nearCap_percent: number): void {
    this._shown = shown;
    this._nearCap_percent = nearCap_percent;
    this.update();
  }

  override dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this._model.updated.disconnect(this._onUpdated, this);
    this._model.history.loaded.disconnect(this._onUpdated, this);
    this._rest();
    super.dispose();
  }

  protected override render(): JSX.Element | null {
    return (
      this._drawn && (
        <Services.Provider value={this._services}>
          <Figures.Provider value={this._figures}>
            <Panel {...this._drawn} />
          </Figures.Provider>
        </Services.Provider>
      )
    );
  }

  /** Draws what is more than a figure; most updates are figures alone. */
  protected override onUpdateRequest(message: Message): void {
    const overview = this._newOverview();
    const cards = overview?.cards ?? [];
    this._figures.whole.show(overview ? [overview] : []);
    this._figures.cards.show(cards);
    this._figures.rows.show(cards.flatMap(card => card.rows));
    const next = this._propsWith(overview);
    if (!this._drawn || !arePanelsAlike(this._drawn, next)) {
      this._drawn = next;
      super.onUpdateRequest(message);
    }
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this._followVisibility();
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._followVisibility();
  }

  protected override onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this._followVisibility();
  }

  protected override onBeforeDetach(message: Message): void {
    this._rest();
    this._drawn = null;
    super.onBeforeDetach(message);
  }

  /** Tell the style sheet: a container query would have every update laid out twice. */
  protected override onResize(message: Widget.ResizeMessage): void {
    super.onResize(message);
    const width = message.width < 0 ? this.node.offsetWidth : message.width;
    this.node.dataset['width'] = WIDTHS.find(([least]) => width >= least)![1];
  }

  protected override onActivateRequest(): void {
    this.node
      .querySelector<HTMLElement>('[data-gpu-stop][tabindex="0"]')
      ?.focus();
  }

  private get _feeds(): IFeed<unknown>[] {
    const { devices, kernels, queue, status } = this._model;
    return [devices, kernels, queue, status];
  }

  private _propsWith(overview: IOverview | null): IPanelProps {
    const { devices, kernels, queue, status } = this._model;
    const available = availability(
      status,
      devices,
      [kernels, queue],
      this._trans
    );
    return {
      availability: available,
      overview,
      isSimulated: devices.value?.simulated ?? false,
      shown: this._shown,
      filter: this._filter,
      order: this._order,
      closed: this._closed,
      announcement: this._announcements.next(available, overview),
      onFilter: this._onFilter,
      onOrder: this._onOrder,
      onToggle: this._onToggle,
      onSeen: this._onSeen,
      onRetry: this._onRetry
    };
  }

  private _newOverview(): IOverview | null {
    const { devices, kernels, queue } = this._model;
    if (!devices.value) {
      return null;
    }
    return this._overviews.next(
      {
        time: devices.value.time,
        devices: devices.value.devices,
        kernels: kernels.value?.kernels ?? [],
        queue: queue.value?.entries ?? []
      },
      {
        filter: this._filter,
        order: this._order,
        nearCap_percent: this._nearCap_percent,
        isSeen: uuid => !this._unseen.has(uuid)
      }
    );
  }

  private _followVisibility(): void {
    if (!this.isVisible) {
      this._rest();
    } else if (!this._watches.length) {
      // First, so that it asks from where the page stopped looking.
      this._model.history.load().catch(() => undefined); // The lines then begin now.
      this._watches = this._feeds.map(feed => feed.watch());
      this.update();
    }
  }

  private _rest(): void {
    for (const watch of this._watches) {
      watch.dispose();
    }
    this._watches = [];
  }

  private _onUpdated(): void {
    if (this._watches.length) {
      this.update();
    }
  }

  private _onFilter = (filter: string): void => {
    this._filter = filter;
    this.update();
  };

  private _onOrder = (order: Order): void => {
    this._order = order;
    this.update();
  };

  private _onToggle = (uuid: string): void => {
    const closed = new Set(this._closed);
    if (!closed.delete(uuid)) {
      closed.add(uuid);
    }
    this._closed = closed;
    this.update();
  };

  private _onSeen = (uuid: string, isSeen: boolean): void => {
    if (!isSeen) {
      this._unseen.add(uuid);
    } else if (this._unseen.delete(uuid)) {
      this.update();
    }
  };

  private _onRetry = (): void => {
    for (const feed of this._feeds) {
      feed.refresh().catch(() => undefined); // The feed says so.
    }
  };

  private readonly _model: IGPUModel;
  private readonly _services: IPanelServices;
  private readonly _trans: TranslationBundle;
  private readonly _announcements: Announcements;
  private readonly _overviews: Overviews;
  private readonly _figures = newFigures();
  /** What is drawn; null while nothing is. */
  private _drawn: IPanelProps | null = null;
  private _watches: IDisposable[] = [];
  private _filter = '';
  private _order: Order = 'gpu';
  private _closed: ReadonlySet<string> = new Set();
  /** The devices whose cards are out of sight, by UUID. */
  private readonly _unseen = new Set<string>();
  private _nearCap_percent = 90;
  private _shown: IShown = {
    sparklines: true,
    temperatureAndPower: true,
    foreignProcesses: true,
    kernelsWithoutGPU: true
  };
}

export namespace GPUPanel {
  export interface IOptions {
    model: IGPUModel;
    services: IPanelServices;
  }
}
