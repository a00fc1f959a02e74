import { ISessionContext } from '@jupyterlab/apputils';
import { INotebookModel } from '@jupyterlab/notebook';
import { PartialJSONObject, Token } from '@lumino/coreutils';
import { Widget } from '@lumino/widgets';

import { METADATA_KEY } from './variants';

/** A notebook or console of this page. */
export interface IOpenKernel {
  readonly widget: Widget;
  readonly sessionContext: ISessionContext;
  /** Null for a console. */
  readonly notebook: INotebookModel | null;
  /** Saves the notebook. Rejects where that is not possible. */
  readonly save: () => Promise<void>;
}

/** Finds the notebooks and consoles of this page by their kernels. */
export class OpenKernels {
  /** @param list - all that are open now */
  constructor(private readonly _list: () => Iterable<IOpenKernel>) {}

  /** What runs on a kernel; the first, where several things do. */
  byKernel(kernelId: string): IOpenKernel | null {
    return this._find(
      open => open.sessionContext.session?.kernel?.id === kernelId
    );
  }

  byContext(context: ISessionContext): IOpenKernel | null {
    return this._find(open => open.sessionContext === context);
  }

  byWidget(widget: Widget | null): IOpenKernel | null {
    return this._find(open => open.widget === widget);
  }

  private _find(isMeant: (open: IOpenKernel) => boolean): IOpenKernel | null {
    for (const open of this._list()) {
      if (isMeant(open)) {
        return open;
      }
    }
    return null;
  }
}

/** Provides the notebooks and consoles of this page. */
export const IOpenKernels = new Token<OpenKernels>(
  'jupyter-gpu:IOpenKernels',
  'Finds the notebooks and consoles of this page by their kernels.'
);

/** The request that a notebook carries in its metadata. */
export function requestIn(notebook: INotebookModel): string | null {
  const request = ours(notebook)?.['request'];
  return typeof request === 'string' && request.trim() ? request : null;
}

/** Have a notebook carry a request, so that it asks for the same the next time. */
export function keepRequest(notebook: INotebookModel, request: string): void {
  if (requestIn(notebook) !== request) {
    notebook.setMetadata(METADATA_KEY, { ...ours(notebook), request });
  }
}

/** Whether a notebook's kernel is to be left alone however long it computes nothing. */
export function isKeptWhenIdle(notebook: INotebookModel): boolean {
  return ours(notebook)?.[KEPT_KEY] === true;
}

/** Have a notebook say that its kernel is to be left alone when idle, or no longer say so. */
export function keepWhenIdle(notebook: INotebookModel, isKept: boolean): void {
  if (isKeptWhenIdle(notebook) === isKept) {
    return;
  }
  const said = { ...ours(notebook) };
  delete said[KEPT_KEY];
  if (isKept) {
    notebook.setMetadata(METADATA_KEY, { ...said, [KEPT_KEY]: true });
  } else if (Object.keys(said).length) {
    notebook.setMetadata(METADATA_KEY, said);
  } else {
    notebook.deleteMetadata(METADATA_KEY);
  }
}

const KEPT_KEY = 'keep_when_idle';

function ours(notebook: INotebookModel): PartialJSONObject | null {
  const found: unknown = notebook.getMetadata(METADATA_KEY);
  return found && typeof found === 'object' && !Array.isArray(found)
    ? (found as PartialJSONObject)
    : null;
}
