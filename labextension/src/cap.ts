/** Whether so much of the cap is in use that the next allocation may fail. */
export function nearsCap(
  used_bytes: number | null,
  cap_bytes: number | null,
  nearCap_percent: number
): boolean {
  return (
    used_bytes !== null &&
    cap_bytes !== null &&
    100 * used_bytes >= nearCap_percent * cap_bytes
  );
}
