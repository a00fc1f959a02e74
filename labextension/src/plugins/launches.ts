import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { IConsoleTracker } from '@jupyterlab/console';
import { INotebookTracker } from '@jupyterlab/notebook';

import { Launches } from '../launches';
import { ILaunches } from '../tokens';

/** Follows the kernel launches of notebooks and consoles. */
const plugin: JupyterFrontEndPlugin<ILaunches> = {
  id: 'jupyter-gpu:launches',
  description: 'Follows the kernel launches of notebooks and consoles.',
  autoStart: true,
  provides: ILaunches,
  optional: [INotebookTracker, IConsoleTracker],
  activate: (
    _app: JupyterFrontEnd,
    notebooks: INotebookTracker | null,
    consoles: IConsoleTracker | null
  ): ILaunches => {
    const launches = new Launches();
    notebooks?.forEach(panel => launches.of(panel.sessionContext));
    notebooks?.widgetAdded.connect((_, panel) =>
      launches.of(panel.sessionContext)
    );
    consoles?.forEach(panel => launches.of(panel.sessionContext));
    consoles?.widgetAdded.connect((_, panel) =>
      launches.of(panel.sessionContext)
    );
    return launches;
  }
};

export default plugin;
