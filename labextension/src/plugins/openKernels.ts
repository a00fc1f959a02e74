import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { IConsoleTracker } from '@jupyterlab/console';
import { INotebookTracker } from '@jupyterlab/notebook';

import { IOpenKernel, IOpenKernels, OpenKernels } from '../openKernels';

/** Finds the notebooks and consoles of this page by their kernels. */
const plugin: JupyterFrontEndPlugin<OpenKernels> = {
  id: 'jupyter-gpu:open-kernels',
  description:
    'Finds the notebooks and consoles of this page by their kernels.',
  autoStart: true,
  provides: IOpenKernels,
  optional: [INotebookTracker, IConsoleTracker],
  activate: (
    _app: JupyterFrontEnd,
    notebooks: INotebookTracker | null,
    consoles: IConsoleTracker | null
  ): OpenKernels =>
    new OpenKernels(() => {
      const list: IOpenKernel[] = [];
      notebooks?.forEach(widget =>
        list.push({
          widget,
          sessionContext: widget.sessionContext,
          notebook: widget.context.model,
          save: () => widget.context.save()
        })
      );
      consoles?.forEach(widget =>
        list.push({
          widget,
          sessionContext: widget.sessionContext,
          notebook: null,
          save: () => Promise.reject(new Error('A console has no file.'))
        })
      );
      return list;
    })
};

export default plugin;
