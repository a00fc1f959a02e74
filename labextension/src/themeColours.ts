/**
 * CSS colours as a canvas takes them, in the theme that holds now.
 *
 * All at once, so that the page works out its style once.
 *
 * @param host - where they are to hold
 */
export function themeColours(
  host: HTMLElement,
  colours: readonly string[]
): string[] {
  const probe = document.createElement('span');
  const probes = colours.map(colour => {
    const one = document.createElement('span');
    one.style.color = colour;
    return one;
  });
  probe.append(...probes);
  host.append(probe);
  const found = probes.map(one => getComputedStyle(one).color);
  probe.remove();
  return found;
}
