/** The number of colours that tell series apart; `style/base.css` has them. */
export const COLOUR_COUNT = 6;

/** Which colour each lease has, for as long as it lives. */
export class LeaseColours {
  of(leaseId: string): number {
    let colour = this._byLease.get(leaseId);
    if (colour === undefined) {
      const uses = new Array<number>(COLOUR_COUNT).fill(0);
      for (const taken of this._byLease.values()) {
        uses[taken - 1] += 1;
      }
      colour = uses.indexOf(Math.min(...uses)) + 1;
      this._byLease.set(leaseId, colour);
    }
    return colour;
  }

  /** Forget all leases but these. */
  keep(leaseIds: readonly string[]): void {
    const alive = new Set(leaseIds);
    for (const leaseId of this._byLease.keys()) {
      if (!alive.has(leaseId)) {
        this._byLease.delete(leaseId);
      }
    }
  }

  private readonly _byLease = new Map<string, number>();
}
