/** Charts of time lines. This module brings uPlot with it: load it when a chart is to be drawn, not before. */

import { IDisposable } from '@lumino/disposable';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';

import { readableAmount, readableUnit, unitBytes } from './amount';
import { COLOUR_COUNT } from './colours';
import { themeColours } from './themeColours';
import { ILine, ITimeline } from './timeline';

/** Words and looks that come from outside. */
export interface IChartOptions {
  /** Over the memory chart, and its name for screen readers. */
  readonly memoryTitle: string;
  readonly utilizationTitle: string;
  readonly timeTitle: string;
  /** Called when a person zoomed in, or out again. */
  readonly onZoom: (isZoomed: boolean) => void;
}

/** Heights of the two charts, of what there is. */
const MEMORY_SHARE = 0.6;
const LEAST_HEIGHT = 120;

const AXIS_FONT_PX = 11;
const LINE_WIDTH = 1.5;

/** At the right edge, for half of a time. */
const TICK_ROOM_PX = 32;

/** Memory and utilisation over time, one above the other, with one cursor and one zoom. */
export class Charts implements IDisposable {
  constructor(
    private readonly _host: HTMLElement,
    private readonly _options: IChartOptions
  ) {
    this._observer = new ResizeObserver(() => this._resize());
    this._observer.observe(_host);
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    this._observer.disconnect();
    this._clear();
  }

  /**
   * Draw a time line.
   *
   * @param span_s - how far to look back, in seconds; null for all there is
   */
  show(timeline: ITimeline, span_s: number | null): void {
    const shape = JSON.stringify([
      timeline.lines.map(({ label, colour }) => [label, colour]),
      timeline.levels.map(({ label }) => label)
    ]);
    const isNew = shape !== this._shape || span_s !== this._span_s;
    this._timeline = timeline;
    this._span_s = span_s;
    if (shape !== this._shape) {
      this._shape = shape;
      this._draw();
    }
    this._update(isNew || !this._isZoomed);
  }

  /** Draw anew, in the colours that hold now. */
  redraw(): void {
    if (this._timeline) {
      this._draw();
      this._update(!this._isZoomed);
    }
  }

  /** Show the whole span again. */
  zoomOut(): void {
    this._update(true);
  }

  /** Both charts as one picture. */
  async picture(title: string): Promise<Blob> {
    const scale = uPlot.pxRatio;
    const canvases = this._charts.map(chart => chart.ctx.canvas);
    const head = 28 * scale;
    const canvas = document.createElement('canvas');
    canvas.width = Math.max(...canvases.map(({ width }) => width));
    canvas.height = canvases.reduce((sum, { height }) => sum + height, head);
    const context = canvas.getContext('2d')!;
    context.fillStyle = this._colour('--jp-layout-color1');
    context.fillRect(0, 0, canvas.width, canvas.height);
    this._drawHead(context, title, scale);
    let y = head;
    for (const part of canvases) {
      context.drawImage(part, 0, y);
      y += part.height;
    }
    return new Promise((resolve, reject) =>
      canvas.toBlob(blob =>
        blob ? resolve(blob) : reject(new Error('The picture is empty.'))
      )
    );
  }

  /** The title and the names of the lines, for a picture has no legend beside it. */
  private _drawHead(
    context: CanvasRenderingContext2D,
    title: string,
    scale: number
  ): void {
    const font = getComputedStyle(this._host).fontFamily;
    const y = 19 * scale;
    let x = 10 * scale;
    const write = (text: string, weight: number, colour: string) => {
      context.font = `${weight} ${12 * scale}px ${font}`;
      context.fillStyle = colour;
      context.fillText(text, x, y);
      x += context.measureText(text).width + 14 * scale;
    };
    write(title, 600, this._colour('--jp-ui-font-color1'));
    for (const line of this._timeline?.lines ?? []) {
      write(line.label, 400, this._lineColour(line.colour));
    }
  }

  private _draw(): void {
    this._clear();
    const { memoryTitle, utilizationTitle } = this._options;
    this._charts = [
      new uPlot(this._memoryOptions(memoryTitle), undefined, this._host),
      new uPlot(
        this._utilizationOptions(utilizationTitle),
        undefined,
        this._host
      )
    ];
    const titles = [memoryTitle, utilizationTitle];
    this._charts.forEach((chart, i) => {
      chart.root.setAttribute('role', 'img');
      chart.root.setAttribute('aria-label', titles[i]);
    });
    // How much room they take is known when uPlot has laid them out, and may be another in another theme.
    for (const legend of this._legends) {
      this._observer.observe(legend);
    }
  }

  private _clear(): void {
    for (const legend of this._legends) {
      this._observer.unobserve(legend);
    }
    for (const chart of this._charts) {
      chart.destroy();
    }
    this._charts = [];
  }

  private _update(resetZoom: boolean): void {
    const [memory, utilization] = this._charts;
    const timeline = this._timeline;
    if (!memory || !timeline) {
      return;
    }
    const unit = this._unit;
    const aligned = (of: (line: ILine) => readonly (number | null)[]) =>
      timeline.lines.length
        ? uPlot.join(
            timeline.lines.map(line => [
              [...line.series.t],
              [...of(line)]
            ]) as uPlot.AlignedData[]
          )
        : ([[]] as unknown as uPlot.AlignedData);
    const inUnits = aligned(({ series }) =>
      series.memory.map(bytes => (bytes === null ? null : bytes / unit))
    );
    const levels = timeline.levels.map(({ bytes }) =>
      new Array<number>(inUnits[0].length).fill(bytes / unit)
    );
    const range = this._range(timeline, inUnits[0] as number[]);
    this._isUpdating = true;
    memory.setData([...inUnits, ...levels] as uPlot.AlignedData, resetZoom);
    utilization.setData(
      aligned(({ series }) => series.utilization),
      resetZoom
    );
    if (resetZoom) {
      for (const chart of this._charts) {
        chart.setScale('x', range);
      }
      this._setZoomed(false);
    }
    // uPlot tells of a new scale in a microtask.
    queueMicrotask(() => queueMicrotask(() => (this._isUpdating = false)));
  }

  private _range(
    timeline: ITimeline,
    times: readonly number[]
  ): { min: number; max: number } {
    const first = times.length ? times[0] : timeline.time - 60;
    const min = this._span_s === null ? first : timeline.time - this._span_s;
    return { min: Math.min(min, timeline.time - 1), max: timeline.time };
  }

  private _setZoomed(isZoomed: boolean): void {
    if (isZoomed !== this._isZoomed) {
      this._isZoomed = isZoomed;
      this._options.onZoom(isZoomed);
    }
  }

  private get _unit(): number {
    return unitBytes(readableUnit(this._timeline?.top_bytes ?? 2 ** 30));
  }

  private _memoryOptions(title: string): uPlot.Options {
    const { lines, levels, top_bytes } = this._timeline!;
    const unit = this._unit;
    return this._common(title, MEMORY_SHARE, {
      series: [
        ...lines.map(line =>
          this._series(line, bytes => readableAmount(bytes * unit))
        ),
        ...levels.map(({ label }): uPlot.Series => ({
          label,
          stroke: this._colour('--jp-ui-font-color2'),
          width: 1,
          dash: [5, 4],
          points: { show: false },
          value: (_, value) =>
            value === null ? '' : readableAmount(value * unit)
        }))
      ],
      range: (max: number) =>
        Math.max(top_bytes === null ? 0 : top_bytes / unit, max, 0.01),
      tick: value => readableAmount(value * unit)
    });
  }

  private _utilizationOptions(title: string): uPlot.Options {
    const { lines } = this._timeline!;
    return this._common(title, 1 - MEMORY_SHARE, {
      series: lines.map(line =>
        this._series(line, value => `${Math.round(value)} %`)
      ),
      range: () => 100,
      tick: value => `${value} %`
    });
  }

  private _series(
    { label, colour }: ILine,
    format: (value: number) => string
  ): uPlot.Series {
    return {
      label,
      stroke: this._lineColour(colour),
      width: LINE_WIDTH,
      points: { show: false },
      value: (_, value) => (value === null ? '–' : format(value))
    };
  }

  private _common(
    title: string,
    share: number,
    parts: {
      series: uPlot.Series[];
      range: (max: number) => number;
      tick: (value: number) => string;
    }
  ): uPlot.Options {
    const font = `${AXIS_FONT_PX}px ${getComputedStyle(this._host).fontFamily}`;
    const look: uPlot.Axis = {
      font,
      stroke: this._colour('--jp-ui-font-color2'),
      grid: { stroke: this._gridColour, width: 1 },
      ticks: { stroke: this._colour('--jp-border-color2'), width: 1, size: 4 }
    };
    return {
      ...this._size(share),
      title,
      padding: [null, TICK_ROOM_PX, null, null],
      cursor: {
        sync: { key: this._key, setSeries: false },
        drag: { x: true, y: false }
      },
      legend: { live: true, markers: { width: 2 } },
      scales: {
        x: { time: true },
        y: { range: (_, _min, max) => [0, parts.range(max ?? 0)] }
      },
      axes: [
        {
          ...look,
          size: 28,
          space: 72,
          values: (_, moments) => times(moments)
        },
        {
          ...look,
          size: 64,
          space: 28,
          values: (_, splits) => splits.map(parts.tick)
        }
      ],
      series: [
        {
          label: this._options.timeTitle,
          value: (_, moment) => (moment === null ? '–' : time(moment, true))
        },
        ...parts.series
      ],
      hooks: {
        setSelect: [
          chart => {
            if (chart.select.width > 0) {
              this._setZoomed(true);
            }
          }
        ],
        setScale: [
          (chart, scale) => {
            if (scale === 'x' && !this._isUpdating) {
              this._follow(chart);
            }
          }
        ]
      }
    };
  }

  /** Give the other chart the zoom that a person gave this one. */
  private _follow(chart: uPlot): void {
    const { min, max } = chart.scales['x'];
    if (min === undefined || max === undefined) {
      return;
    }
    for (const other of this._charts) {
      const scale = other.scales['x'];
      if (other !== chart && (scale.min !== min || scale.max !== max)) {
        other.setScale('x', { min, max });
      }
    }
  }

  private _size(share: number): { width: number; height: number } {
    const { clientWidth, clientHeight } = this._host;
    const room = clientHeight - this._overhead;
    return {
      width: Math.max(200, clientWidth),
      height: Math.max(LEAST_HEIGHT, Math.floor(room * share))
    };
  }

  private get _legends(): NodeListOf<HTMLElement> {
    return this._host.querySelectorAll('.u-legend');
  }

  /** The height of titles and legends, in pixels. */
  private get _overhead(): number {
    return this._charts.reduce((sum, { root }) => {
      const parts = root.querySelectorAll<HTMLElement>('.u-title, .u-legend');
      return [...parts].reduce((all, part) => all + part.offsetHeight, sum + 2);
    }, 0);
  }

  private _resize(): void {
    const shares = [MEMORY_SHARE, 1 - MEMORY_SHARE];
    this._charts.forEach((chart, i) => chart.setSize(this._size(shares[i])));
  }

  private _lineColour(colour: number): string {
    return this._colour(
      colour === 0
        ? '--jp-ui-font-color1'
        : `--gpu-series-${((colour - 1) % COLOUR_COUNT) + 1}`
    );
  }

  /** Fainter than the lines in every theme, which a border need not be. */
  private get _gridColour(): string {
    return this._computed(
      'color-mix(in srgb, var(--jp-ui-font-color1) 14%, transparent)'
    );
  }

  /** A theme's colour as a canvas takes it. */
  private _colour(variable: string): string {
    return this._computed(`var(${variable})`);
  }

  private _computed(colour: string): string {
    const [found] = themeColours(this._host, [colour]);
    return found;
  }

  private readonly _key = `jupyter-gpu-${++charts}`;
  private readonly _observer: ResizeObserver;
  private _charts: uPlot[] = [];
  private _timeline: ITimeline | null = null;
  private _span_s: number | null = null;
  private _shape = '';
  private _isZoomed = false;
  private _isUpdating = false;
  private _isDisposed = false;
}

/** How many there have been, to tell their cursors apart. */
let charts = 0;

/** Moments as a time axis shows them, as fine as they lie apart. */
function times(moments: readonly number[]): string[] {
  const showSeconds = moments.some(moment => moment % 60 !== 0);
  return moments.map(moment => time(moment, showSeconds));
}

function time(moment: number, showSeconds: boolean): string {
  return new Date(1000 * moment).toLocaleTimeString(undefined, {
    hour: '2-digit',
    minute: '2-digit',
    ...(showSeconds ? { second: '2-digit' } : {})
  });
}
