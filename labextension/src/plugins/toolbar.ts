import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { IToolbarWidgetRegistry } from '@jupyterlab/apputils';
import { NotebookPanel } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { CommandIDs, IGPUModel, TRANSLATION_DOMAIN } from '../tokens';
import { KernelGPUItem } from '../widgets/toolbarItem';
import { SETTINGS_ID } from './model';

/** Shows the GPU of each notebook's kernel in its toolbar; where in it, the settings' schema says. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-gpu:toolbar',
  description: "Shows the GPU of a notebook's kernel in its toolbar.",
  autoStart: true,
  requires: [IGPUModel, IToolbarWidgetRegistry],
  optional: [ISettingRegistry, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    model: IGPUModel,
    toolbars: IToolbarWidgetRegistry,
    settingRegistry: ISettingRegistry | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(TRANSLATION_DOMAIN);
    let nearCap_percent = 90;
    settingRegistry
      ?.load(SETTINGS_ID)
      .then(settings => {
        const heed = () => {
          nearCap_percent = settings.get('nearCap').composite as number;
        };
        settings.changed.connect(heed);
        heed();
      })
      .catch(() => undefined); // The model's plugin says so.
    toolbars.addFactory<NotebookPanel>(
      'Notebook',
      'gpu',
      panel =>
        new KernelGPUItem({
          model,
          context: panel.sessionContext,
          trans,
          nearCap_percent: () => nearCap_percent,
          onClick: kernelId =>
            void app.commands.execute(CommandIDs.changeGPU, { kernelId })
        })
    );
  }
};

export default plugin;
