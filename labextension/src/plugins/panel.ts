import {
  ILayoutRestorer,
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette, IThemeManager } from '@jupyterlab/apputils';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { Menu } from '@lumino/widgets';

import { BarColours } from '../memoryBar';
import { CommandIDs, IGPUModel, TRANSLATION_DOMAIN } from '../tokens';
import { GPUPanel } from '../widgets/panel';
import { SETTINGS_ID } from './model';

/** Below the file browser and the running kernels, above what others add without a rank. */
const RANK = 500;

/** Adds the panel to a sidebar. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-gpu:panel',
  description: 'Adds the panel that shows all GPUs and who uses what.',
  autoStart: true,
  requires: [IGPUModel],
  optional: [
    ISettingRegistry,
    ICommandPalette,
    ILayoutRestorer,
    IThemeManager,
    ITranslator
  ],
  activate: (
    app: JupyterFrontEnd,
    model: IGPUModel,
    settingRegistry: ISettingRegistry | null,
    palette: ICommandPalette | null,
    restorer: ILayoutRestorer | null,
    themes: IThemeManager | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(TRANSLATION_DOMAIN);
    const { commands, shell } = app;
    const barColours = new BarColours();
    themes?.themeChanged.connect(() => barColours.forget());
    const panel = new GPUPanel({
      model,
      services: {
        trans,
        history: model.history,
        barColours,
        run: (command, args) => void commands.execute(command, args),
        openKernelMenu: (kernelId, anchor) => {
          const menu = kernelMenu(app, kernelId);
          const { left, bottom } = anchor.getBoundingClientRect();
          menu.open(left, bottom);
          giveBackFocus(menu, anchor);
        }
      }
    });

    let side = 'right';
    const place = () => shell.add(panel, side, { rank: RANK, type: 'GPUs' });
    place();
    restorer?.add(panel, panel.id);

    commands.addCommand(CommandIDs.showPanel, {
      label: trans.__('Show GPUs'),
      execute: () => {
        // The command palette gives the focus to the main area when it closes, which is after this call.
        setTimeout(() => shell.activateById(panel.id));
      },
      describedBy: { args: { type: 'object', properties: {} } }
    });
    palette?.addItem({
      command: CommandIDs.showPanel,
      category: trans.__('GPU')
    });

    settingRegistry
      ?.load(SETTINGS_ID)
      .then(settings => {
        const heed = () => {
          const get = <T>(name: string) => settings.get(name).composite as T;
          panel.configure(
            {
              sparklines: get('showSparklines'),
              temperatureAndPower: get('showTemperatureAndPower'),
              foreignProcesses: get('showForeignProcesses'),
              kernelsWithoutGPU: get('showKernelsWithoutGPU')
            },
            get('nearCap')
          );
          if (get<string>('side') !== side) {
            side = get('side');
            place();
            // What the layout was when the page was left does not say what the setting is now.
            void app.restored.then(place);
          }
        };
        settings.changed.connect(heed);
        heed();
      })
      .catch(() => undefined); // The model's plugin says so.
  }
};

/** Let whoever opened a menu by the keyboard go on from there when it has closed. */
function giveBackFocus(menu: Menu, anchor: HTMLElement): void {
  menu.aboutToClose.connect(() => {
    // What was chosen may have taken the focus by then.
    setTimeout(() => {
      if (document.activeElement === document.body) {
        anchor.focus();
      }
    });
  });
}

/** What can be done with a kernel. */
function kernelMenu(app: JupyterFrontEnd, kernelId: string): Menu {
  const menu = new Menu({ commands: app.commands });
  menu.addClass('jp-gpu-Menu');
  const args = { kernelId };
  const add = (...ids: string[]) =>
    ids
      .filter(command => app.commands.hasCommand(command))
      .forEach(command => menu.addItem({ command, args }));
  add(CommandIDs.showKernel, CommandIDs.changeGPU, CommandIDs.showDetails);
  menu.addItem({ type: 'separator' });
  add(CommandIDs.keepWhenIdle);
  menu.addItem({ type: 'separator' });
  add(CommandIDs.interrupt, CommandIDs.restart, CommandIDs.shutDown);
  menu.aboutToClose.connect(() => {
    // Not yet: the item that was chosen is run after the menu has closed.
    setTimeout(() => menu.dispose());
  });
  return menu;
}

export default plugin;
