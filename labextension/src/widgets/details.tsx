import { Notification } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import { IDisposable } from '@lumino/disposable';
import { Message } from '@lumino/messaging';
import { ISignal } from '@lumino/signaling';
import { Panel, Widget } from '@lumino/widgets';
import * as React from 'react';

import { messageOf } from '../api';
import type { Charts } from '../chart';
import { DetailsHead } from '../components/detailsHead';
import { chartIcon } from '../icons';
import { csv, ITimeline, Subject, timeline } from '../timeline';
import { IGPUModel, IUsageHistory } from '../tokens';

/** How far one can look back, in seconds; null is all there is. */
export const SPANS_S: readonly (number | null)[] = [300, 3600, null];

/** Shows what a GPU or a kernel used over time. It asks the server while it is seen. */
export class DetailsWidget extends Panel {
  constructor(private readonly _options: DetailsWidget.IOptions) {
    super();
    this.addClass('jp-gpu-Details');
    this.title.icon = chartIcon;
    this.title.closable = true;
    this._head = new Head(this);
    this._body.addClass('jp-gpu-Details-charts');
    this.addWidget(this._head);
    this.addWidget(this._body);
    _options.model.updated.connect(this._refresh, this);
    this._history = _options.model.recall();
    this._history.loaded.connect(this._refresh, this);
    _options.themeChanged?.connect(this._onThemeChanged, this);
    this._refresh();
  }

  get subject(): Subject {
    return this._options.subject;
  }

  get model(): IGPUModel {
    return this._options.model;
  }

  get trans(): TranslationBundle {
    return this._options.trans;
  }

  /** What is shown; null where the server does not know of it any more, and nothing was ever known. */
  get timeline(): ITimeline | null {
    return this._timeline;
  }

  /** Whether the server has stopped telling of it: the kernel has ended, or the server is away. */
  get isOver(): boolean {
    return this._isOver;
  }

  get isZoomed(): boolean {
    return this._isZoomed;
  }

  get span_s(): number | null {
    return this._span_s;
  }

  set span_s(span_s: number | null) {
    this._span_s = span_s;
    this._draw();
    this._head.update();
  }

  zoomOut(): void {
    this._charts?.zoomOut();
  }

  /** Have the browser save all that is known as comma-separated values. */
  exportCSV(): void {
    if (this._timeline) {
      const text = csv(this._timeline, this.trans);
      save(new Blob([text], { type: 'text/csv' }), `${this._fileName}.csv`);
    }
  }

  /** Have the browser save a picture of what is seen. */
  async exportPNG(): Promise<void> {
    if (this._timeline && this._charts) {
      const picture = await this._charts.picture(this._timeline.title);
      save(picture, `${this._fileName}.png`);
    }
  }

  override dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this.model.updated.disconnect(this._refresh, this);
    this._history.dispose();
    this._options.themeChanged?.disconnect(this._onThemeChanged, this);
    this._rest();
    this._charts?.dispose();
    super.dispose();
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this._followVisibility();
    void this._loadCharts();
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
    super.onBeforeDetach(message);
  }

  private get _feeds() {
    return [this.model.devices, this.model.kernels];
  }

  private get _fileName(): string {
    const name = this._timeline?.title ?? 'GPU';
    return name.replace(/[^\p{L}\p{N}.]+/gu, '-').replace(/^-|-$/g, '');
  }

  private async _loadCharts(): Promise<void> {
    if (this._charts || this._isLoading) {
      return;
    }
    this._isLoading = true;
    try {
      const { Charts } = await import('../chart');
      if (this.isDisposed) {
        return;
      }
      this._charts = new Charts(this._body.node, {
        memoryTitle: this.trans.__('Memory'),
        utilizationTitle: this.trans.__('Utilisation'),
        timeTitle: this.trans.__('Time'),
        onZoom: isZoomed => {
          this._isZoomed = isZoomed;
          this._head.update();
        }
      });
      this._draw();
    } catch (error) {
      Notification.error(
        this.trans.__('The chart could not be loaded: %1', messageOf(error))
      );
    } finally {
      this._isLoading = false;
    }
  }

  private _refresh(): void {
    const found = timeline(this.subject, this.model, this._history, this.trans);
    const isFresh = this._feeds.every(feed => feed.freshness !== 'stale');
    this._isOver = (!found && this.model.kernels.value !== null) || !isFresh;
    // What was seen of a kernel stays on the screen after its end.
    this._timeline = found ?? this._timeline;
    if (this._timeline) {
      this.title.label = this._timeline.title;
      this.title.caption = this._timeline.title;
    }
    if (this.isVisible) {
      this._draw();
      this._head.update();
    }
  }

  private _draw(): void {
    if (this._timeline && this._charts && this.isVisible) {
      this._charts.show(this._timeline, this._span_s);
    }
  }

  private _onThemeChanged(): void {
    this._charts?.redraw();
  }

  private _followVisibility(): void {
    if (!this.isVisible) {
      this._rest();
    } else if (!this._watches.length) {
      this._history.load().catch(() => undefined); // The lines then begin now.
      this._watches = this._feeds.map(feed => feed.watch());
      this._refresh();
    }
  }

  private _rest(): void {
    for (const watch of this._watches) {
      watch.dispose();
    }
    this._watches = [];
  }

  private readonly _head: Head;
  private readonly _history: IUsageHistory & IDisposable;
  private readonly _body = new Widget();
  private _watches: IDisposable[] = [];
  private _charts: Charts | null = null;
  private _isLoading = false;
  private _timeline: ITimeline | null = null;
  private _isOver = false;
  private _isZoomed = false;
  private _span_s: number | null = SPANS_S[0];
}

export namespace DetailsWidget {
  export interface IOptions {
    model: IGPUModel;
    trans: TranslationBundle;
    subject: Subject;
    /** Emitted when the colours have become others. */
    themeChanged: ISignal<unknown, unknown> | null;
  }
}

/** What stands above the charts. */
class Head extends ReactWidget {
  constructor(private readonly _details: DetailsWidget) {
    super();
    this.addClass('jp-gpu-Details-head');
  }

  protected override render(): JSX.Element {
    const details = this._details;
    const { subject, model, trans } = details;
    const device =
      'uuid' in subject
        ? (model.devices.value?.devices.find(d => d.uuid === subject.uuid) ??
          null)
        : null;
    const kernel =
      'kernelId' in subject
        ? (model.kernels.value?.kernels.find(
            k => k.kernel_id === subject.kernelId
          ) ?? null)
        : null;
    return (
      <DetailsHead
        trans={trans}
        title={details.timeline?.title ?? ''}
        device={device}
        kernel={kernel}
        isOver={details.isOver}
        isZoomed={details.isZoomed}
        spans_s={SPANS_S}
        span_s={details.span_s}
        onSpan={span_s => (details.span_s = span_s)}
        onZoomOut={() => details.zoomOut()}
        onCSV={() => details.exportCSV()}
        onPNG={() => void details.exportPNG()}
      />
    );
  }
}

function save(content: Blob, name: string): void {
  const url = URL.createObjectURL(content);
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  // The browser reads it after this call.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
