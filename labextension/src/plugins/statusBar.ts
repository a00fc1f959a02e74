import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { IDisposable } from '@lumino/disposable';

import { CommandIDs, IGPUModel, TRANSLATION_DOMAIN } from '../tokens';
import { GPUStatusItem } from '../widgets/statusItem';
import { SETTINGS_ID } from './model';

/** Shows in the status bar how much GPU memory is in use. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-gpu:status-bar',
  description: 'Shows in the status bar how much GPU memory is in use.',
  autoStart: true,
  requires: [IGPUModel, IStatusBar],
  optional: [ISettingRegistry, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    model: IGPUModel,
    statusBar: IStatusBar,
    settingRegistry: ISettingRegistry | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(TRANSLATION_DOMAIN);
    let item: IDisposable | null = null;
    const show = (wanted: boolean) => {
      item?.dispose();
      item = wanted
        ? statusBar.registerStatusItem(plugin.id, {
            item: new GPUStatusItem({
              model,
              trans,
              onClick: () => void app.commands.execute(CommandIDs.showPanel)
            }),
            align: 'left',
            rank: 4,
            isActive: () => (model.status.value?.device_count ?? 0) > 0,
            activeStateChanged: model.status.changed
          })
        : null;
    };
    if (!settingRegistry) {
      show(true);
      return;
    }
    settingRegistry
      .load(SETTINGS_ID)
      .then(settings => {
        const heed = () => {
          const wanted = settings.get('showInStatusBar').composite as boolean;
          if (wanted !== (item !== null)) {
            show(wanted);
          }
        };
        settings.changed.connect(heed);
        heed();
      })
      .catch(() => show(true));
  }
};

export default plugin;
