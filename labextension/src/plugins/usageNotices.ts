import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { TRANSLATION_DOMAIN } from '../tokens';
import { UsageNotices } from '../usageNotices';
import { SETTINGS_ID } from './model';

/** Tells when a kernel nears its cap, passes it, loses its GPU, or holds a GPU for nothing. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-gpu:usage-notices',
  description:
    'Tells when a kernel nears its cap, passes it, loses its GPU, or holds a GPU for nothing.',
  autoStart: true,
  optional: [ISettingRegistry, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    settingRegistry: ISettingRegistry | null,
    translator: ITranslator | null
  ): void => {
    let isWanted = true;
    new UsageNotices({
      events: app.serviceManager.events.stream,
      trans: (translator ?? nullTranslator).load(TRANSLATION_DOMAIN),
      enabled: () => isWanted,
      run: (command, args) => void app.commands.execute(command, args)
    });
    settingRegistry
      ?.load(SETTINGS_ID)
      .then(settings => {
        const heed = () => {
          isWanted = settings.get('notifications').composite as boolean;
        };
        settings.changed.connect(heed);
        heed();
      })
      .catch(() => undefined); // The model's plugin says so.
  }
};

export default plugin;
