import {
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import {
  ICommandPalette,
  ISessionContextDialogs,
  Notification
} from '@jupyterlab/apputils';
import { IMainMenu } from '@jupyterlab/mainmenu';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import { GPUError, messageOf } from '../api';
import { GPUChange } from '../gpuChange';
import { IdleKernels } from '../idleKernels';
import { KernelActions } from '../kernelActions';
import { IOpenKernels, OpenKernels } from '../openKernels';
import { CommandIDs, IGPUModel, TRANSLATION_DOMAIN } from '../tokens';

/** Behind the other entries of the Kernel menu. */
const MENU_RANK = 90;

/** Adds what can be done with kernels and their GPUs, to the palette and the Kernel menu too. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-gpu:commands',
  description: 'Adds the commands for kernels and their GPUs.',
  autoStart: true,
  requires: [IGPUModel, IOpenKernels],
  optional: [ISessionContextDialogs, ICommandPalette, IMainMenu, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    model: IGPUModel,
    open: OpenKernels,
    dialogs: ISessionContextDialogs | null,
    palette: ICommandPalette | null,
    mainMenu: IMainMenu | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(TRANSLATION_DOMAIN);
    const { commands } = app;
    const actions = new KernelActions({ app, model, open, dialogs, trans });
    const change = new GPUChange({ model, open, trans });
    const idle = new IdleKernels(model, open);

    const kernelOf = (args: ReadonlyPartialJSONObject): string | null =>
      (args['kernelId'] as string | undefined) ??
      open.byWidget(app.shell.currentWidget)?.sessionContext.session?.kernel
        ?.id ??
      null;
    const add = (
      id: string,
      label: string,
      act: (kernelId: string, args: ReadonlyPartialJSONObject) => Promise<void>,
      options: Partial<Parameters<typeof commands.addCommand>[1]> = {}
    ) =>
      commands.addCommand(id, {
        ...options,
        label,
        isEnabled: args => kernelOf(args) !== null,
        execute: async args => {
          const kernelId = kernelOf(args);
          if (kernelId !== null) {
            await act(kernelId, args);
          }
        },
        describedBy: {
          args: {
            type: 'object',
            properties: {
              kernelId: {
                type: 'string',
                description: trans.__(
                  "The kernel's id; the current notebook's or console's kernel without it"
                )
              }
            }
          }
        }
      });
    add(CommandIDs.changeGPU, trans.__('Change GPU or Memory…'), id =>
      change.ask(id)
    );
    add(CommandIDs.showKernel, trans.__('Go to Notebook'), id =>
      actions.show(id)
    );
    add(CommandIDs.interrupt, trans.__('Interrupt Kernel'), id =>
      actions.interrupt(id)
    );
    add(CommandIDs.restart, trans.__('Restart Kernel…'), id =>
      actions.restart(id)
    );
    add(CommandIDs.shutDown, trans.__('Shut Down Kernel…'), id =>
      actions.shutDown(id)
    );
    add(
      CommandIDs.keepWhenIdle,
      trans.__('Keep When Idle'),
      (id, { isKept }) =>
        idle.keep(id, typeof isKept === 'boolean' ? isKept : !idle.isKept(id)),
      {
        caption: trans.__(
          'Leave this kernel alone, however long it holds memory without computing'
        ),
        isToggleable: true,
        isToggled: args => idle.isKept(kernelOf(args) ?? ''),
        isVisible: args => idle.isMinded(kernelOf(args) ?? '')
      }
    );
    commands.addCommand(CommandIDs.cancelWaiting, {
      label: trans.__('Stop Waiting for a GPU'),
      isEnabled: args => typeof args['id'] === 'string',
      execute: async args => {
        try {
          await model.cancelWaiting(args['id'] as string);
        } catch (error) {
          if (!(error instanceof GPUError && error.status === 404)) {
            Notification.error(messageOf(error), { autoClose: false });
          }
        }
      },
      describedBy: {
        args: {
          type: 'object',
          properties: {
            id: {
              type: 'string',
              description: trans.__("The waiting request's id")
            }
          },
          required: ['id']
        }
      }
    });

    palette?.addItem({
      command: CommandIDs.changeGPU,
      category: trans.__('GPU')
    });
    mainMenu?.kernelMenu.addGroup(
      [{ command: CommandIDs.changeGPU }],
      MENU_RANK
    );
  }
};

export default plugin;
