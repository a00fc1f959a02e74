import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ISettingRegistry } from '@jupyterlab/settingregistry';

import { GPUAPI, messageOf } from '../api';
import { GPUModel } from '../model';
import { IGPUModel } from '../tokens';

/** The plugin under whose name the settings are kept (`schema/plugin.json`). */
export const SETTINGS_ID = 'jupyter-gpu:plugin';

/** Provides the model, paced by the settings. */
const plugin: JupyterFrontEndPlugin<IGPUModel> = {
  id: SETTINGS_ID,
  description: 'Provides what the server says about GPUs.',
  autoStart: true,
  provides: IGPUModel,
  optional: [ISettingRegistry],
  activate: (
    app: JupyterFrontEnd,
    settingRegistry: ISettingRegistry | null
  ): IGPUModel => {
    const model = new GPUModel(
      new GPUAPI({ serverSettings: app.serviceManager.serverSettings })
    );
    settingRegistry
      ?.load(SETTINGS_ID)
      .then(settings => {
        const pace = () =>
          model.setRefreshInterval(
            1000 * (settings.get('refreshInterval').composite as number)
          );
        settings.changed.connect(pace);
        pace();
      })
      .catch(error =>
        console.warn(
          `The settings of jupyter-gpu could not be read: ${messageOf(error)}`
        )
      );
    return model;
  }
};

export default plugin;
