import {
  ILabShell,
  ILayoutRestorer,
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import {
  Dialog,
  IThemeManager,
  MainAreaWidget,
  showDialog,
  WidgetTracker
} from '@jupyterlab/apputils';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import { Subject } from '../timeline';
import { CommandIDs, IGPUModel, TRANSLATION_DOMAIN } from '../tokens';
import { DetailsWidget } from '../widgets/details';

/** Shows what a GPU or a kernel used over time: in the main area, or in a dialog where there is room for one thing only. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-gpu:details',
  description: 'Shows what a GPU or a kernel used over time.',
  autoStart: true,
  requires: [IGPUModel],
  optional: [ILabShell, IThemeManager, ILayoutRestorer, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    model: IGPUModel,
    labShell: ILabShell | null,
    themes: IThemeManager | null,
    restorer: ILayoutRestorer | null,
    translator: ITranslator | null
  ): void => {
    const trans = (translator ?? nullTranslator).load(TRANSLATION_DOMAIN);
    const tracker = new WidgetTracker<MainAreaWidget<DetailsWidget>>({
      namespace: 'jupyter-gpu-details'
    });
    const make = (subject: Subject) =>
      new DetailsWidget({
        model,
        trans,
        subject,
        themeChanged: themes?.themeChanged ?? null
      });
    const showInMainArea = async (shell: ILabShell, subject: Subject) => {
      const id = `jupyter-gpu-details-${keyOf(subject)}`;
      let widget = tracker.find(found => found.id === id);
      if (!widget) {
        widget = new MainAreaWidget({ content: make(subject) });
        widget.id = id;
        widget.title.closable = true;
        await tracker.add(widget);
        shell.add(widget, 'main', { type: 'GPUs' });
      }
      shell.activateById(id);
    };

    app.commands.addCommand(CommandIDs.showDetails, {
      label: trans.__('Memory and Utilisation over Time'),
      isEnabled: args => subjectOf(args) !== null,
      execute: async args => {
        const subject = subjectOf(args);
        if (subject && labShell) {
          await showInMainArea(labShell, subject);
        } else if (subject) {
          const body = make(subject);
          body.addClass('jp-gpu-mod-dialog');
          await showDialog({
            title: trans.__('Memory and Utilisation over Time'),
            body,
            buttons: [Dialog.okButton({ label: trans.__('Close') })]
          });
        }
      },
      describedBy: {
        args: {
          type: 'object',
          properties: {
            uuid: { type: 'string', description: trans.__("A GPU's UUID") },
            kernelId: {
              type: 'string',
              description: trans.__("Or a kernel's id")
            }
          }
        }
      }
    });

    void restorer?.restore(tracker, {
      command: CommandIDs.showDetails,
      args: widget => ({ ...widget.content.subject }),
      name: widget => keyOf(widget.content.subject)
    });
  }
};

function subjectOf(args: ReadonlyPartialJSONObject): Subject | null {
  const { uuid, kernelId } = args;
  if (typeof uuid === 'string') {
    return { uuid };
  }
  return typeof kernelId === 'string' ? { kernelId } : null;
}

function keyOf(subject: Subject): string {
  return 'uuid' in subject ? subject.uuid : subject.kernelId;
}

export default plugin;
