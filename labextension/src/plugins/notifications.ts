import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { IDisposable } from '@lumino/disposable';

import { LaunchNotices } from '../notices';
import { IGPUModel, ILaunches, TRANSLATION_DOMAIN } from '../tokens';
import { WaitingNotices } from '../waiting';
import { SETTINGS_ID } from './model';

/** How often to look at the queue while a kernel of this page is about to start. */
const LAUNCHING_INTERVAL_MS = 1_000;

/** How often to look otherwise, for launches that began elsewhere or before the page was loaded again. */
const RESTING_INTERVAL_MS = 20_000;

/** Shows which kernels wait for a GPU, and what the server says of a kernel's start. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-gpu:notifications',
  description:
    'Shows which kernels wait for a GPU, and what there is to know of how a kernel started.',
  autoStart: true,
  requires: [IGPUModel, ILaunches],
  optional: [ISettingRegistry, ITranslator],
  activate: (
    _app: JupyterFrontEnd,
    model: IGPUModel,
    launches: ILaunches,
    settingRegistry: ISettingRegistry | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(TRANSLATION_DOMAIN);

    model.queue.watch({ interval_ms: RESTING_INTERVAL_MS });
    let launching: IDisposable | null = null;
    const followLaunches = () => {
      launching?.dispose();
      launching = launches.pending
        ? model.queue.watch({ interval_ms: LAUNCHING_INTERVAL_MS })
        : null;
      if (!launching) {
        // A wait that has just ended should not stay on the screen until the next look.
        model.queue.refresh().catch(() => undefined);
      }
    };
    launches.pendingChanged.connect(followLaunches);
    followLaunches();

    let wanted = true;
    new LaunchNotices({ model, launches, trans, enabled: () => wanted });
    let waiting: WaitingNotices | null = new WaitingNotices({ model, trans });
    settingRegistry
      ?.load(SETTINGS_ID)
      .then(settings => {
        const heed = () => {
          wanted = settings.get('notifications').composite as boolean;
          if (wanted) {
            waiting ??= new WaitingNotices({ model, trans });
          } else {
            waiting?.dispose();
            waiting = null;
          }
        };
        settings.changed.connect(heed);
        heed();
      })
      .catch(() => undefined); // The model's plugin says so.
  }
};

export default plugin;
