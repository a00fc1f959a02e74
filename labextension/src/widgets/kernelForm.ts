import { Dialog, SessionContextDialogs } from '@jupyterlab/apputils';
import { Kernel, KernelSpec } from '@jupyterlab/services';
import { TranslationBundle } from '@jupyterlab/translation';
import { Panel, Widget } from '@lumino/widgets';

import { IGPUModel } from '../tokens';
import { variantOf } from '../variants';
import { GPUFormBody, IPicked, ISubject } from './gpuForm';

/** The kernels to choose from, as JupyterLab lists them. */
export type IKernelOptions = ReturnType<
  typeof SessionContextDialogs.kernelOptions
>;

/** What came out of the kernel dialog. */
export interface IKernelAndGPU {
  /** A kernelspec by its name, a running kernel by its id; null for no kernel. */
  readonly kernel: Partial<Kernel.IModel> | null;
  readonly gpu: IPicked;
}

/** The body of the kernel dialog: the kernel, and below it its GPU and memory. */
export class KernelFormBody
  extends Panel
  implements Dialog.IBodyWidget<IKernelAndGPU>
{
  constructor(options: KernelFormBody.IOptions) {
    super();
    this.addClass('jp-gpu-KernelForm');
    this._select = selectOf(options.kernels, options.label);
    this._select.addEventListener('change', () => {
      this._gpu.subject = options.subjectOf(this._kernel);
    });
    const label = document.createElement('label');
    label.append(options.label, this._select);
    const node = document.createElement('div');
    node.className = 'jp-gpu-KernelForm-kernel';
    node.append(label);
    this._gpu = new GPUFormBody({
      model: options.model,
      trans: options.trans,
      present: options.present,
      subject: options.subjectOf(this._kernel)
    });
    this.addWidget(new Widget({ node }));
    this.addWidget(this._gpu);
  }

  getValue(): IKernelAndGPU {
    return { kernel: this._kernel, gpu: this._gpu.getValue() };
  }

  private get _kernel(): Partial<Kernel.IModel> | null {
    return JSON.parse(this._select.value);
  }

  private readonly _select: HTMLSelectElement;
  private readonly _gpu: GPUFormBody;
}

export namespace KernelFormBody {
  export interface IOptions {
    model: IGPUModel;
    trans: TranslationBundle;
    /** What the list of kernels is called. */
    label: string;
    kernels: IKernelOptions;
    /** Whom the GPU is for when this is the kernel. */
    subjectOf: (kernel: Partial<Kernel.IModel> | null) => ISubject;
    /** The request that counts as things stand. */
    present: string | null;
  }
}

/**
 * The options without those that are others with a GPU. Where such a one was selected, the one that it is a variant of
 * is.
 */
export function withoutVariants(
  options: IKernelOptions,
  specs: KernelSpec.ISpecModels | null
): IKernelOptions {
  let base: string | null = null;
  const groups = options.groups.map(group => ({
    ...group,
    options: group.options.filter(option => {
      const name = (JSON.parse(option.value) as Partial<Kernel.IModel> | null)
        ?.name;
      const variant = name ? variantOf(name, specs) : null;
      if (variant && option.selected) {
        base = variant.base;
      }
      return variant === null;
    })
  }));
  for (const option of groups.flatMap(group => group.options)) {
    if (base !== null && option.value === JSON.stringify({ name: base })) {
      option.selected = true;
    }
  }
  return { ...options, groups: groups.filter(({ options }) => options.length) };
}

function selectOf(kernels: IKernelOptions, label: string): HTMLSelectElement {
  const select = document.createElement('select');
  select.setAttribute('aria-label', label);
  select.disabled = kernels.disabled ?? false;
  for (const group of kernels.groups) {
    const optgroup = document.createElement('optgroup');
    optgroup.label = group.label;
    for (const { text, title, value, selected } of group.options) {
      const option = new Option(text, value, false, selected === true);
      if (title) {
        option.title = title;
      }
      optgroup.append(option);
    }
    select.append(optgroup);
  }
  return select;
}
