import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';

import { KernelChoice } from '../kernelChoice';
import { ILaunches } from '../tokens';

/** Keeps a picked GPU in the notebook's metadata, and its kernelspec's name plain. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-gpu:kernel-choice',
  description:
    "Keeps a picked GPU in the notebook's metadata, and its kernelspec's name plain.",
  autoStart: true,
  requires: [INotebookTracker, ILaunches],
  activate: (
    app: JupyterFrontEnd,
    notebooks: INotebookTracker,
    launches: ILaunches
  ): void => {
    const follow = ({ context }: NotebookPanel) => {
      const choice = new KernelChoice({
        model: context.model,
        launch: launches.of(context.sessionContext),
        specs: app.serviceManager.kernelspecs
      });
      context.disposed.connect(() => choice.dispose());
    };
    notebooks.forEach(follow);
    notebooks.widgetAdded.connect((_, panel) => follow(panel));
  }
};

export default plugin;
