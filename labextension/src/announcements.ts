import { TranslationBundle } from '@jupyterlab/translation';

import { IAvailability } from './availability';
import { IOverview } from './overview';

/**
 * What a screen reader says of itself: that the connection was lost or came back, that a kernel is in trouble, that
 * one waits. Never a figure, since those change every second.
 */
export class Announcements {
  constructor(private readonly _trans: TranslationBundle) {}

  /** What is to be said of the change since the last call; the same again where there is nothing new. */
  next(availability: IAvailability, overview: IOverview | null): string {
    const facts = this._facts(availability, overview);
    const news = [...facts].filter(fact => !this._before.has(fact));
    if (this._wasStale && !availability.isStale) {
      news.push(this._trans.__('The server answers again.'));
    }
    if (news.length && this._isFirst) {
      // What was so from the start is read with the rest of the panel.
      news.length = 0;
    }
    this._isFirst = availability.kind === 'loading';
    this._wasStale = availability.isStale;
    this._before = facts;
    if (news.length) {
      this._said = news.join(' ');
    }
    return this._said;
  }

  private _facts(
    availability: IAvailability,
    overview: IOverview | null
  ): Set<string> {
    const trans = this._trans;
    const facts = new Set<string>();
    if (availability.isStale) {
      facts.add(availability.problems[0].message);
    }
    for (const card of overview?.cards ?? []) {
      if (card.device.lost) {
        facts.add(trans.__('GPU %1 was lost.', card.device.index));
      }
      for (const row of card.rows) {
        if (row.condition === 'over-cap') {
          facts.add(trans.__('%1 is over its cap.', row.label));
        }
      }
    }
    for (const entry of overview?.waiting ?? []) {
      facts.add(trans.__('%1 waits for a GPU.', entry.label));
    }
    return facts;
  }

  private _before: ReadonlySet<string> = new Set();
  private _said = '';
  private _wasStale = false;
  private _isFirst = true;
}
