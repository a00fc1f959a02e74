import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';

import { FreshSpecs } from '../freshSpecs';
import { IGPUModel } from '../tokens';

/** Keeps the GPU choices of the kernel picker up to date. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-gpu:kernel-specs',
  description: 'Keeps the GPU choices of the kernel picker up to date.',
  autoStart: true,
  requires: [IGPUModel],
  activate: (app: JupyterFrontEnd, model: IGPUModel): void => {
    const specs = new FreshSpecs({
      model,
      specs: app.serviceManager.kernelspecs
    });
    void specs.settle();
  }
};

export default plugin;
