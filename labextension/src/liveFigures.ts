/** Hands figures to what shows them, each second, past whatever draws the rest. */
export class LiveFigures<T> {
  /** @param _keyOf - what tells one from another, and stays the same from second to second */
  constructor(private readonly _keyOf: (item: T) => string) {}

  /** The newest of a key; undefined where there is none. */
  get(key: string): T | undefined {
    return this._items.get(key);
  }

  /** From now on these are the newest, and there are no others. */
  show(items: Iterable<T>): void {
    const before = this._items;
    this._items = new Map();
    for (const item of items) {
      this._items.set(this._keyOf(item), item);
    }
    for (const [key, tellings] of this._watchers) {
      const item = this._items.get(key);
      if (item !== undefined && item !== before.get(key)) {
        tellings.forEach(tell => tell(item));
      }
    }
  }

  /**
   * Be told of the newest of a key, now and whenever it is another.
   *
   * @returns what ends it
   */
  watch(key: string, tell: (item: T) => void): () => void {
    let tellings = this._watchers.get(key);
    if (!tellings) {
      tellings = new Set();
      this._watchers.set(key, tellings);
    }
    tellings.add(tell);
    const item = this._items.get(key);
    if (item !== undefined) {
      tell(item);
    }
    return () => {
      tellings.delete(tell);
      if (!tellings.size && this._watchers.get(key) === tellings) {
        this._watchers.delete(key);
      }
    };
  }

  private _items = new Map<string, T>();
  private readonly _watchers = new Map<string, Set<(item: T) => void>>();
}
