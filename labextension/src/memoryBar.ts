import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import { COLOUR_COUNT } from './colours';
import { ISegment } from './overview';
import { themeColours } from './themeColours';

/** What separates a segment from the one before, and the least that is drawn of a segment's use, in CSS pixels. */
const GAP_PX = 1;
const LEAST_PX = 2;

/** How a reservation's end, which is where the cap is, is marked, in CSS pixels. */
const MARK_PX = 2;

/** From one line of the hatching to the next, along the bar, and how thick they are, in CSS pixels. */
const HATCH_PX = 5.5;
const HATCH_LINE_PX = 1;

/** What a stretch of a bar is painted with. */
export type Paint =
  | 'ground'
  | 'gap'
  | 'foreign'
  | 'unattributed'
  | `series-${number}`
  | `tint-${number}`;

/** A stretch of a bar, from one pixel up to another. */
export interface IStretch {
  readonly paint: Paint;
  readonly begin: number;
  readonly end: number;
}

/**
 * A device's memory as stretches of a bar, from left to right and without a hole: for each segment its colour as far as
 * it is used, the tint of it as far as it is reserved, a mark at the reservation's end, and a gap before the next; what
 * is left is the ground.
 *
 * @param memory_bytes - the device's memory; null where it is unknown, and the segments fill the bar
 * @param width - the bar's, in pixels of the screen
 * @param ratio - of these to a CSS pixel
 */
export function memoryStretches(
  segments: readonly ISegment[],
  memory_bytes: number | null,
  width: number,
  ratio = 1
): IStretch[] {
  const extent_bytes = segments.reduce((all, one) => all + one.extent_bytes, 0);
  const whole_bytes = Math.max(memory_bytes ?? 0, extent_bytes, 1);
  const thick = (css_px: number) => Math.max(1, Math.round(css_px * ratio));
  const place = (bytes: number) => Math.round((width * bytes) / whole_bytes);
  const stretches: IStretch[] = [];
  let reached = 0;
  // A part too narrow to be seen pushes what follows.
  const paintUpTo = (paint: Paint, to: number) => {
    const end = Math.min(to, width);
    if (end > reached) {
      stretches.push({ paint, begin: reached, end });
      reached = end;
    }
  };
  let bytes = 0;
  for (const segment of segments) {
    const begin = place(bytes);
    const used = place(bytes + segment.used_bytes);
    bytes += segment.extent_bytes;
    const end = place(bytes);
    if (begin > 0) {
      paintUpTo('gap', begin + thick(GAP_PX));
    }
    const paint = paintOf(segment);
    if (segment.used_bytes > 0) {
      const least = Math.max(begin, reached) + thick(LEAST_PX);
      paintUpTo(paint, Math.max(used, least));
    }
    if (end > used) {
      paintUpTo(`tint-${segment.colour}`, end - thick(MARK_PX));
      paintUpTo(paint, end);
    }
  }
  paintUpTo('ground', width);
  return stretches;
}

function paintOf({ kind, colour }: ISegment): Paint {
  return kind === 'lease' ? `series-${colour}` : kind;
}

/** The theme's colours as a canvas takes them. */
export class BarColours {
  /** Emitted when they have become others. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Have them looked up again, because the theme is another. */
  forget(): void {
    this._known = null;
    this._changed.emit();
  }

  /** The colours by what they are for, where `host` is. */
  at(host: HTMLElement): ReadonlyMap<Paint, string> {
    this._known ??= coloursAt(host);
    return this._known;
  }

  private _known: ReadonlyMap<Paint, string> | null = null;
  private readonly _changed = new Signal<this, void>(this);
}

function coloursAt(host: HTMLElement): ReadonlyMap<Paint, string> {
  const variables: [Paint, string][] = [
    ['ground', '--jp-layout-color2'],
    ['gap', '--jp-layout-color1'],
    ['foreign', '--jp-ui-font-color2'],
    ['unattributed', '--jp-layout-color3']
  ];
  for (let colour = 1; colour <= COLOUR_COUNT; colour++) {
    variables.push(
      [`series-${colour}`, `--gpu-series-${colour}`],
      [`tint-${colour}`, `--gpu-tint-${colour}`]
    );
  }
  const found = themeColours(
    host,
    variables.map(([, variable]) => `var(${variable})`)
  );
  return new Map(variables.map(([paint], i) => [paint, found[i]]));
}

/**
 * Paints a device's memory on a canvas.
 *
 * A canvas, since it is all that changes then: for elements, or for a background, that change each second the page works
 * out style and layout anew.
 */
export class BarPainter implements IDisposable {
  constructor(
    private readonly _canvas: HTMLCanvasElement,
    private readonly _colours: BarColours
  ) {
    this._observer = new ResizeObserver(([entry]) => this._fit(entry));
    try {
      // It is told of a page that is zoomed, too.
      this._observer.observe(_canvas, { box: 'device-pixel-content-box' });
    } catch {
      this._observer.observe(_canvas);
    }
    _colours.changed.connect(this._paint, this);
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
    this._colours.changed.disconnect(this._paint, this);
  }

  /** Show this from now on. */
  show(segments: readonly ISegment[], memory_bytes: number | null): void {
    if (segments !== this._segments || memory_bytes !== this._memory_bytes) {
      this._segments = segments;
      this._memory_bytes = memory_bytes;
      this._paint();
    }
  }

  private _fit({
    contentRect: { width, height },
    devicePixelContentBoxSize
  }: ResizeObserverEntry): void {
    const ratio = window.devicePixelRatio || 1;
    const [exact] = devicePixelContentBoxSize ?? [];
    this._canvas.width = pixels(width * ratio, exact?.inlineSize);
    this._canvas.height = pixels(height * ratio, exact?.blockSize);
    this._ratio = ratio;
    this._paint();
  }

  private _paint(): void {
    const { width, height, parentElement } = this._canvas;
    const ratio = this._ratio;
    if (ratio === null || !width || !height || !parentElement) {
      return;
    }
    const context = this._canvas.getContext('2d');
    if (!context) {
      return;
    }
    const colours = this._colours.at(parentElement);
    for (const { paint, begin, end } of memoryStretches(
      this._segments,
      this._memory_bytes,
      width,
      ratio
    )) {
      context.fillStyle = colours.get(paint === 'foreign' ? 'ground' : paint)!;
      context.fillRect(begin, 0, end - begin, height);
      if (paint === 'foreign') {
        context.strokeStyle = colours.get('foreign')!;
        hatch(context, begin, end, height, ratio);
      }
    }
  }

  private readonly _observer: ResizeObserver;
  private _segments: readonly ISegment[] = [];
  private _memory_bytes: number | null = null;
  /** Pixels of the screen to a CSS pixel; null until the browser has told how large the canvas is. */
  private _ratio: number | null = null;
  private _isDisposed = false;
}

/** Draw slanting lines over a stretch. */
function hatch(
  context: CanvasRenderingContext2D,
  begin: number,
  end: number,
  height: number,
  ratio: number
): void {
  context.save();
  context.beginPath();
  context.rect(begin, 0, end - begin, height);
  context.clip();
  context.lineWidth = HATCH_LINE_PX * ratio;
  context.beginPath();
  for (let x = begin - height; x < end; x += HATCH_PX * ratio) {
    context.moveTo(x, height);
    context.lineTo(x + height, 0);
  }
  context.stroke();
  context.restore();
}

/** A length in whole pixels of the screen: the browser's own count, unless it is of another screen than it emulates. */
function pixels(length: number, exact: number | undefined): number {
  return exact !== undefined && Math.abs(exact - length) <= 1
    ? exact
    : Math.round(length);
}
