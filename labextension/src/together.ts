/** Questions that are asked within so long of one another are asked together. */
const WINDOW_MS = 25;

/**
 * Asks for several parts of one thing at once, where they are wanted at the same moment.
 *
 * To the server a request costs more than what it asks for, and the feeds of a panel ask in the same moment.
 */
export class Together<T extends object> {
  /**
   * @param _all - asks for all parts
   * @param _one - asks for one; also whenever asking for all failed, so that each has an answer or an error of its own
   */
  constructor(
    private readonly _all: () => Promise<T>,
    private readonly _one: <K extends keyof T & string>(
      name: K
    ) => Promise<T[K]>
  ) {}

  /** A part, as it is now. */
  async ask<K extends keyof T & string>(name: K): Promise<T[K]> {
    this._wanted.add(name);
    this._asking ??= this._gather();
    return (await this._asking)?.[name] ?? this._one(name);
  }

  private async _gather(): Promise<T | null> {
    await new Promise(resolve => setTimeout(resolve, WINDOW_MS));
    const count = this._wanted.size;
    this._wanted.clear();
    this._asking = null;
    return count > 1 ? this._all().catch(() => null) : null;
  }

  private readonly _wanted = new Set<keyof T>();
  private _asking: Promise<T | null> | null = null;
}
