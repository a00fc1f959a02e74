import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { IRunningSessionManagers } from '@jupyterlab/running';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { RunningGPUs } from '../runningGPUs';
import { IGPUModel, TRANSLATION_DOMAIN } from '../tokens';

/** Adds the kernels that hold a GPU to the list of all that runs. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-gpu:running',
  description: 'Adds the kernels that hold a GPU to the list of all that runs.',
  autoStart: true,
  requires: [IGPUModel, IRunningSessionManagers],
  optional: [ITranslator],
  activate: (
    app: JupyterFrontEnd,
    model: IGPUModel,
    managers: IRunningSessionManagers,
    translator: ITranslator | null
  ): void => {
    managers.add(
      new RunningGPUs({
        model,
        trans: (translator ?? nullTranslator).load(TRANSLATION_DOMAIN),
        kernels: app.serviceManager.kernels,
        run: (command, kernelId) =>
          void app.commands.execute(command, { kernelId })
      })
    );
  }
};

export default plugin;
