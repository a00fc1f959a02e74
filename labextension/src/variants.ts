import { KernelSpec } from '@jupyterlab/services';
import { PartialJSONObject } from '@lumino/coreutils';

/** Under this name our data stands in the metadata of kernelspecs and notebooks. */
export const METADATA_KEY = 'jupyter_gpu';

/** A kernelspec that is another one with a GPU request. */
export interface IVariant {
  /** The other one's name. */
  readonly base: string;
  readonly request: string;
  /** Whether the server offers it now; it may not where its device is gone, or on another host. */
  readonly listed: boolean;
}

/** The server's naming of variants (`jupyter_gpu/kernelspecs.py`). */
const SUFFIX =
  /-(?:(cpu)|gpu-(auto)|gpu(\d{1,4}(?:\.\d{1,4})?)|gpu-([a-z0-9][a-z0-9._-]*))$/;

/**
 * What a kernelspec's name means as a variant.
 *
 * @returns null where it is no variant's, or where the base is not there to fall back to
 */
export function variantOf(
  name: string,
  specs: KernelSpec.ISpecModels | null
): IVariant | null {
  const variant = specs?.kernelspecs[name]
    ? listedVariant(specs.kernelspecs[name].metadata)
    : unlistedVariant(name);
  return variant && specs?.kernelspecs[variant.base] ? variant : null;
}

/** Whether the server offers any variants. */
export function hasVariants(specs: KernelSpec.ISpecModels | null): boolean {
  return Object.values(specs?.kernelspecs ?? {}).some(
    spec => spec && listedVariant(spec.metadata)
  );
}

function listedVariant(metadata?: PartialJSONObject): IVariant | null {
  const ours = metadata?.[METADATA_KEY] as PartialJSONObject | undefined;
  const base = ours?.base;
  const request = ours?.request;
  return typeof base === 'string' && typeof request === 'string'
    ? { base, request, listed: true }
    : null;
}

function unlistedVariant(name: string): IVariant | null {
  const match = SUFFIX.exec(name);
  if (!match || match.index === 0) {
    return null;
  }
  const [, cpu, auto, index, model] = match;
  return {
    base: name.slice(0, match.index),
    request: cpu ?? auto ?? index ?? `1x${model}`,
    listed: false
  };
}
