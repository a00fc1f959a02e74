import {
  Dialog,
  ISessionContext,
  ISessionContextDialogs,
  Notification,
  SessionContextDialogs,
  showDialog
} from '@jupyterlab/apputils';
import { Kernel, KernelSpec } from '@jupyterlab/services';
import { ITranslator, TranslationBundle } from '@jupyterlab/translation';

import { messageOf } from './api';
import { GPUChange, presentRequest } from './gpuChange';
import {
  IOpenKernel,
  keepRequest,
  OpenKernels,
  requestIn
} from './openKernels';
import { parseChoice, requestText, SHARED } from './request';
import { IKernel } from './rest';
import { IGPUModel, TRANSLATION_DOMAIN } from './tokens';
import { hasVariants, variantOf } from './variants';
import { ISubject } from './widgets/gpuForm';
import {
  IKernelAndGPU,
  IKernelOptions,
  KernelFormBody,
  withoutVariants
} from './widgets/kernelForm';

/**
 * The kernel dialog with the GPU next to the kernel, in place of a list in which every kernel stands once for each GPU.
 *
 * Where there is no GPU to choose, it is JupyterLab's own.
 */
export class KernelDialogs {
  constructor(options: KernelDialogs.IOptions) {
    this._plain = options.dialogs.selectKernel.bind(options.dialogs);
    this._model = options.model;
    this._open = options.open;
    this._change = options.change;
    this._translator = options.translator;
    this._trans = options.translator.load(TRANSLATION_DOMAIN);
  }

  /** Have a person select the kernel of a session, and its GPU. */
  async selectKernel(context: ISessionContext): Promise<void> {
    if (context.isDisposed) {
      return;
    }
    // The listing of kernels is as old as JupyterLab 4.3.
    const list = SessionContextDialogs.kernelOptions as
      typeof SessionContextDialogs.kernelOptions | undefined;
    if (!list || !(await this._canChoose())) {
      return this._plain(context);
    }
    const kernels = await this._model.kernels.refresh().catch(() => null);
    const byId = new Map(
      kernels?.kernels.map(kernel => [kernel.kernel_id, kernel])
    );
    const current = context.session?.kernel?.id ?? null;
    const picked = await this._ask(
      context,
      withoutVariants(
        list(context, this._translator),
        context.specsManager.specs
      ),
      model => this._subject(model, current, byId, context),
      this._present(context, current, byId)
    );
    if (picked && !context.isDisposed) {
      await this._carryOut(context, picked, current, byId);
    }
  }

  /** Whether there is a GPU to choose. */
  private async _canChoose(): Promise<boolean> {
    try {
      const [status, devices] = await Promise.all([
        this._model.status.value ?? this._model.status.refresh(),
        this._model.devices.refresh(),
        this._model.queue.refresh()
      ]);
      return (
        status.provisioner.active &&
        devices.devices.some(device => device.leasable)
      );
    } catch {
      return false;
    }
  }

  private async _ask(
    context: ISessionContext,
    kernels: IKernelOptions,
    subjectOf: (model: Partial<Kernel.IModel> | null) => ISubject,
    present: string | null
  ): Promise<IKernelAndGPU | null> {
    const core = this._translator.load('jupyterlab');
    const autoStart = context.kernelPreference.autoStartDefault;
    const result = await showDialog({
      title: core.__('Select Kernel'),
      body: new KernelFormBody({
        model: this._model,
        trans: this._trans,
        label: `${core.__('Select kernel for:')} "${context.name}"`,
        kernels,
        subjectOf,
        present
      }),
      buttons: [
        Dialog.cancelButton({
          label: context.hasNoKernel
            ? context.kernelDisplayName
            : core.__('Cancel')
        }),
        Dialog.okButton({
          label: core.__('Select'),
          ariaLabel: core.__('Select Kernel')
        })
      ],
      checkbox:
        typeof autoStart === 'boolean'
          ? {
              label: core.__('Always start the preferred kernel'),
              caption: core.__(
                'Remember my choice and always start the preferred kernel'
              ),
              checked: autoStart
            }
          : null,
      focusNodeSelector: 'select'
    });
    if (!result.button.accept) {
      return null;
    }
    if (typeof autoStart === 'boolean' && result.isChecked !== null) {
      context.kernelPreference = {
        ...context.kernelPreference,
        autoStartDefault: result.isChecked
      };
    }
    return result.value;
  }

  /** Whom the GPU part of the dialog is for while a kernel is picked in it. */
  private _subject(
    model: Partial<Kernel.IModel> | null,
    current: string | null,
    byId: ReadonlyMap<string, IKernel>,
    context: ISessionContext
  ): ISubject {
    const trans = this._trans;
    if (!model) {
      return {
        kernel: null,
        kernelId: current,
        disabled: trans.__('Without a kernel there is no GPU.')
      };
    }
    if (model.id) {
      const kernel = byId.get(model.id) ?? null;
      const isCurrent = model.id === current;
      return {
        kernel,
        kernelId: model.id,
        disabled:
          kernel && isCurrent ? null : connecting(kernel, isCurrent, trans)
      };
    }
    const specs = context.specsManager.specs;
    const ours =
      !hasVariants(specs) ||
      variantFor(model.name ?? '', 'cpu', specs) !== null;
    return {
      kernel: null,
      kernelId: current,
      disabled: ours
        ? null
        : trans.__(
            'Kernels of this kind are started by something else, which decides on their GPU.'
          )
    };
  }

  /** The request that the dialog begins with. */
  private _present(
    context: ISessionContext,
    current: string | null,
    byId: ReadonlyMap<string, IKernel>
  ): string | null {
    const kernel = current === null ? undefined : byId.get(current);
    const notebook = this._open.byContext(context)?.notebook;
    const preferred = context.kernelPreference.name;
    return (
      (kernel && presentRequest(kernel)) ??
      (notebook && requestIn(notebook)) ??
      (preferred &&
        variantOf(preferred, context.specsManager.specs)?.request) ??
      this._model.status.value?.default_request ??
      null
    );
  }

  private async _carryOut(
    context: ISessionContext,
    { kernel: model, gpu }: IKernelAndGPU,
    current: string | null,
    byId: ReadonlyMap<string, IKernel>
  ): Promise<void> {
    if (!model) {
      return context.hasNoKernel ? undefined : context.shutdown();
    }
    const kernel = model.id === current && byId.get(current ?? '');
    if (kernel && gpu.request !== null) {
      const error = await this._change.apply(
        kernel,
        gpu.request,
        gpu.announcement
      );
      if (error !== undefined) {
        Notification.error(error, { autoClose: false });
      }
      return;
    }
    if (model.name && gpu.request !== null) {
      return this._start(context, model.name, gpu.request);
    }
    await context.changeKernel(model);
  }

  /** Start a kernel of a kernelspec with a request. */
  private async _start(
    context: ISessionContext,
    name: string,
    request: string
  ): Promise<void> {
    const specs = context.specsManager.specs;
    const variant = variantFor(name, request, specs);
    if (variant) {
      await context.changeKernel({ name: variant });
      return;
    }
    const open = this._open.byContext(context);
    if (open && (await this._write(open, request))) {
      await context.changeKernel({ name });
      return;
    }
    // Nothing on disk can tell the server: start on the device first, and ask for the memory then.
    const choice = parseChoice(request);
    const shared = choice && requestText({ ...choice, memory: SHARED });
    const kernel = await context.changeKernel({
      name: (shared && variantFor(name, shared, specs)) || name
    });
    if (kernel) {
      await this._model
        .changeKernel(kernel.id, { request, restart: shared === null })
        .catch(error => {
          Notification.error(messageOf(error), { autoClose: false });
        });
    }
  }

  /** Have the file of a notebook carry a request; false where that is not possible. */
  private async _write(open: IOpenKernel, request: string): Promise<boolean> {
    if (!open.notebook || open.notebook.readOnly) {
      return false;
    }
    keepRequest(open.notebook, request);
    try {
      await open.save();
      return true;
    } catch {
      return false;
    }
  }

  private readonly _plain: ISessionContextDialogs['selectKernel'];
  private readonly _model: IGPUModel;
  private readonly _open: OpenKernels;
  private readonly _change: GPUChange;
  private readonly _translator: ITranslator;
  private readonly _trans: TranslationBundle;
}

export namespace KernelDialogs {
  export interface IOptions {
    /** The dialogs to fall back on. */
    dialogs: ISessionContextDialogs;
    model: IGPUModel;
    open: OpenKernels;
    change: GPUChange;
    translator: ITranslator;
  }
}

/** The name of the kernelspec that is another one with a request; null where the server offers none. */
function variantFor(
  base: string,
  request: string,
  specs: KernelSpec.ISpecModels | null
): string | null {
  const isMeant = (name: string) => {
    const variant = variantOf(name, specs);
    return variant?.base === base && variant.request === request;
  };
  return Object.keys(specs?.kernelspecs ?? {}).find(isMeant) ?? null;
}

function connecting(
  kernel: IKernel | null,
  isCurrent: boolean,
  trans: TranslationBundle
): string {
  if (isCurrent) {
    return trans.__('The GPU of this kernel is not known.');
  }
  const units = kernel?.devices.map(device => device.index).join(', ');
  return units
    ? trans.__('This kernel runs already, on GPU %1.', units)
    : trans.__('This kernel runs already.');
}
