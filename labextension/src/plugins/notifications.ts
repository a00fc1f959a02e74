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

/** How often to look while something waits, since a wait that is given up elsewhere is no event. */
const WAITING_INTERVAL_MS = 3_000;

/** The event of a wait, or of its end, wherever the launch began. */
const LEASE_SCHEMA = 'https://schema.jupyter.org/jupyter_gpu/lease/v1';

/** Shows which kernels wait for a GPU, and what the server says of a kernel's start. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-gpu:notifications',
  description:
    'Shows which kernels wait for a GPU, and what there is to know of how a kernel started.',
  autoStart: true,
  requires: [IGPUModel, ILaunches],
  optional: [ISettingRegistry, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    model: IGPUModel,
    launches: ILaunches,
    settingRegistry: ISettingRegistry | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(TRANSLATION_DOMAIN);

    const look = () => void model.queue.refresh().catch(() => undefined); // The feed says so.
    app.serviceManager.events.stream.connect((_, { schema_id }) => {
      if (schema_id === LEASE_SCHEMA) {
        look();
      }
    });
    let waits: IDisposable | null = null;
    model.queue.changed.connect(() => {
      const isEmpty = !model.queue.value?.entries.some(entry => entry.mine);
      if (isEmpty) {
        waits?.dispose();
        waits = null;
      } else {
        waits ??= model.queue.watch({ interval_ms: WAITING_INTERVAL_MS });
      }
    });
    let launching: IDisposable | null = null;
    const followLaunches = () => {
      launching?.dispose();
      launching = launches.pending
        ? model.queue.watch({ interval_ms: LAUNCHING_INTERVAL_MS })
        : null;
      if (!launching) {
        // A wait that has just ended should not stay on the screen until the next look.
        look();
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
