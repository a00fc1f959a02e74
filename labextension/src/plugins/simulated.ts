import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { IGPUModel, TRANSLATION_DOMAIN } from '../tokens';
import { SimulatedMark } from '../widgets/simulated';

/** Says on the screen that GPUs are simulated: in the status bar, or at the top where there is none. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-gpu:simulated',
  description: 'Says on the screen when the GPUs are simulated.',
  autoStart: true,
  requires: [IGPUModel],
  optional: [IStatusBar, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    model: IGPUModel,
    statusBar: IStatusBar | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(TRANSLATION_DOMAIN);
    const mark = new SimulatedMark(model.status, trans);
    model.status.watch();
    if (statusBar) {
      statusBar.registerStatusItem(plugin.id, {
        item: mark,
        align: 'right',
        rank: 900,
        isActive: () => model.status.value?.simulated === true,
        activeStateChanged: model.status.changed
      });
    } else {
      app.shell.add(mark, 'top', { rank: 900 });
    }
  }
};

export default plugin;
