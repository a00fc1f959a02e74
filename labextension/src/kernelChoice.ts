import { INotebookModel } from '@jupyterlab/notebook';
import { KernelSpec } from '@jupyterlab/services';
import { JSONExt, PartialJSONObject } from '@lumino/coreutils';
import { IDisposable } from '@lumino/disposable';
import { Signal } from '@lumino/signaling';

import { ILaunched, Launch } from './launch';
import { IVariant, METADATA_KEY, variantOf } from './variants';

/**
 * Keeps a notebook free of variants' names.
 *
 * JupyterLab writes the name of the kernelspec that runs into the notebook, and a variant's name means nothing on
 * another host. So whenever a variant's name turns up in the metadata, the base's is put back, and what the variant
 * asks for is kept as `metadata.jupyter_gpu.request`.
 */
export class KernelChoice implements IDisposable {
  constructor(options: KernelChoice.IOptions) {
    this._model = options.model;
    this._launch = options.launch;
    this._specs = options.specs;
    this._launch.launched.connect(this._onLaunched, this);
    this._model.metadataChanged.connect(this._onMetadataChanged, this);
    this._specs.specsChanged.connect(this._putRight, this);
    this._putRight();
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    Signal.clearData(this);
  }

  private _onLaunched(_: Launch, { kernel, restarted }: ILaunched): void {
    this._picked = restarted ? null : kernel.id;
  }

  private _onMetadataChanged(_: INotebookModel, args: { key: string }): void {
    if (args.key === 'kernelspec') {
      this._putRight();
    }
  }

  private _putRight(): void {
    const model = this._model;
    if (model.isDisposed) {
      return;
    }
    const written = asObject(model.getMetadata('kernelspec'))?.name;
    if (typeof written !== 'string') {
      return;
    }
    const variant = variantOf(written, this._specs.specs);
    if (!variant) {
      this._plain = model.getMetadata('kernelspec');
      return;
    }
    const kernel = this._launch.context.session?.kernel ?? null;
    if (!kernel && variant.listed) {
      // Saved by another client, and it starts under this name: the time comes when it has.
      return;
    }
    const wasClean = !model.dirty;
    const changed = this._write(
      variant,
      kernel === null || this._picked === kernel.id
    );
    this._picked = null;
    if (wasClean && !changed) {
      this._stayClean();
    }
  }

  /**
   * @param override - whether the variant's request counts more than the one in the notebook: when somebody picked
   * it, but not when the page has merely connected to a kernel, whose request may have been changed since
   * @returns whether the notebook is now another than before the variant's name was written
   */
  private _write(variant: IVariant, override: boolean): boolean {
    const model = this._model;
    const base = this._specs.specs!.kernelspecs[variant.base]!;
    const plain = {
      name: base.name,
      display_name: base.display_name,
      language: base.language
    };
    let changed = !JSONExt.deepEqual(
      plain,
      (this._plain as PartialJSONObject | undefined) ?? null
    );
    const ours = asObject(model.getMetadata(METADATA_KEY));
    const request = ours?.request;
    if (
      typeof request !== 'string' ||
      (override && request !== variant.request)
    ) {
      model.setMetadata(METADATA_KEY, { ...ours, request: variant.request });
      changed = true;
    }
    model.setMetadata('kernelspec', plain);
    return changed;
  }

  /** Undo the mark of a change that came and went: the write that brought the name sets it when we have returned. */
  private _stayClean(): void {
    const model = this._model;
    if (model.collaborative) {
      return; // There the server keeps the mark.
    }
    const metadata = model.metadata;
    queueMicrotask(() => {
      if (!model.isDisposed && JSONExt.deepEqual(metadata, model.metadata)) {
        model.dirty = false;
      }
    });
  }

  private readonly _model: INotebookModel;
  private readonly _launch: Launch;
  private readonly _specs: KernelSpec.IManager;
  /** The kernel that somebody picked and whose name has not been written yet. */
  private _picked: string | null = null;
  /** The last kernelspec in the metadata that was no variant's. */
  private _plain: unknown = undefined;
  private _isDisposed = false;
}

export namespace KernelChoice {
  export interface IOptions {
    model: INotebookModel;
    /** Of the notebook's session context. */
    launch: Launch;
    specs: KernelSpec.IManager;
  }
}

function asObject(value: unknown): PartialJSONObject | undefined {
  return value && typeof value === 'object' && !Array.isArray(value)
    ? (value as PartialJSONObject)
    : undefined;
}
