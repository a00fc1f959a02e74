import { TranslationBundle } from '@jupyterlab/translation';

/** A device's name for people: `GPU 0`, or `GPU 0.2` for a MIG instance. */
export function unitName(
  { index }: { readonly index: string },
  trans: TranslationBundle
): string {
  return trans.__('GPU %1', index);
}

/** A product's name without what all of them have in common. */
export function shortName(name: string): string {
  return name.replace(/^NVIDIA\s+(GeForce\s+)?/, '');
}
