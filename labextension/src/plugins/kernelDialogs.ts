import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ISessionContextDialogs } from '@jupyterlab/apputils';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { GPUChange } from '../gpuChange';
import { KernelDialogs } from '../kernelDialogs';
import { IOpenKernels, OpenKernels } from '../openKernels';
import { IGPUModel, TRANSLATION_DOMAIN } from '../tokens';

/**
 * Puts the GPU into the kernel dialog.
 *
 * The dialogs that are there are extended rather than replaced, so that their settings, and whatever another extension
 * made of them, stay.
 */
const plugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-gpu:kernel-dialogs',
  description: 'Puts the GPU into the kernel dialog.',
  autoStart: true,
  requires: [IGPUModel, IOpenKernels, ISessionContextDialogs],
  optional: [ITranslator],
  activate: (
    _app: JupyterFrontEnd,
    model: IGPUModel,
    open: OpenKernels,
    dialogs: ISessionContextDialogs,
    translator: ITranslator | null
  ): void => {
    const known = translator ?? nullTranslator;
    const ours = new KernelDialogs({
      dialogs,
      model,
      open,
      change: new GPUChange({
        model,
        open,
        trans: known.load(TRANSLATION_DOMAIN)
      }),
      translator: known
    });
    dialogs.selectKernel = context => ours.selectKernel(context);
  }
};

export default plugin;
