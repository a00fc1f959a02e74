import { Dialog } from '@jupyterlab/apputils';
import { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import { IDisposable } from '@lumino/disposable';
import { Message, MessageLoop } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import * as React from 'react';

import { GPUForm, IFormValue } from '../components/gpuForm';
import { AUTO, IChoice, parseChoice, requestText, SHARED } from '../request';
import { IDevice, IKernel, ILease } from '../rest';
import { announce, IAnnouncement } from '../sentences';
import { IGPUModel } from '../tokens';

/** What the form proposes to reserve first. */
const FIRST_AMOUNT = '8 GiB';

/** Whom the form is for: it depends on the kernel that is picked above it, where there is such a thing. */
export interface ISubject {
  /** The kernel that runs and would be changed; null where one would be started. */
  readonly kernel: IKernel | null;
  /** The lease of this kernel or notebook makes way for the new one. */
  readonly kernelId: string | null;
  /** Why no GPU can be chosen; null where one can. */
  readonly disabled: string | null;
}

/** What came out of the form. */
export interface IPicked {
  /** Null where no GPU could be chosen. */
  readonly request: string | null;
  readonly announcement: IAnnouncement;
}

/** A dialog's body in which GPU and memory are chosen. The figures in it are live. */
export class GPUFormBody
  extends ReactWidget
  implements Dialog.IBodyWidget<IPicked>
{
  constructor(options: GPUFormBody.IOptions) {
    super();
    this._model = options.model;
    this._trans = options.trans;
    this._present = options.present;
    this._subject = options.subject;
    this._error = options.error ?? null;
    this._value = valueOf(options.initial ?? options.present, this._devices);
    this.addClass('jp-gpu-FormBody');
    this._model.updated.connect(this.update, this);
  }

  /** Whom the form is for. */
  set subject(subject: ISubject) {
    this._subject = subject;
    this.update();
  }

  getValue(): IPicked {
    return {
      request: this._subject.disabled === null ? this._request : null,
      announcement: this._announcement()
    };
  }

  override dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this._model.updated.disconnect(this.update, this);
    this._rest();
    super.dispose();
  }

  protected override render(): JSX.Element {
    return (
      <React.Fragment>
        {this._error !== null && (
          <p className="jp-gpu-Form-error" role="alert">
            {this._error}
          </p>
        )}
        <GPUForm
          trans={this._trans}
          devices={this._devices}
          value={this._value}
          announcement={this._announcement()}
          disabled={this._subject.disabled}
          isOwn={this._isOwn}
          onChange={this._onChange}
        />
      </React.Fragment>
    );
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this._watches = [this._model.devices.watch(), this._model.queue.watch()];
  }

  protected override onBeforeDetach(message: Message): void {
    this._rest();
    super.onBeforeDetach(message);
  }

  private get _devices(): readonly IDevice[] {
    return this._model.devices.value?.devices ?? [];
  }

  private get _request(): string {
    return this._value.written?.trim() || requestText(this._value.choice);
  }

  private _announcement(): IAnnouncement {
    const { written, choice } = this._value;
    // What is written may be a choice all the same.
    const meant =
      written === null ? choice : parseChoice(written, this._devices);
    if (!meant) {
      return {
        text: written?.trim()
          ? this._trans.__('The server checks it when you confirm.')
          : this._trans.__('Write what the kernel is to have.'),
        tone: 'plain',
        effect: this._subject.kernel ? 'restart' : 'start',
        verdict: 'granted'
      };
    }
    return announce(
      meant,
      { kernel: this._subject.kernel, present: this._present },
      {
        devices: this._devices,
        queue: this._model.queue.value?.entries ?? [],
        isOwn: this._isOwn
      },
      this._trans
    );
  }

  private _isOwn = (lease: ILease): boolean =>
    lease.owner.mine &&
    lease.owner.kernel_id !== null &&
    lease.owner.kernel_id === this._subject.kernelId;

  private _onChange = (value: IFormValue): void => {
    this._value = value;
    // At once, or the text cursor would jump.
    MessageLoop.sendMessage(this, Widget.Msg.UpdateRequest);
  };

  private _rest(): void {
    for (const watch of this._watches) {
      watch.dispose();
    }
    this._watches = [];
  }

  private readonly _model: IGPUModel;
  private readonly _trans: TranslationBundle;
  private readonly _present: string | null;
  private readonly _error: string | null;
  private _subject: ISubject;
  private _value: IFormValue;
  private _watches: IDisposable[] = [];
}

export namespace GPUFormBody {
  export interface IOptions {
    model: IGPUModel;
    trans: TranslationBundle;
    /** The request that counts as things stand. */
    present: string | null;
    /** The request to begin with, if it is another. */
    initial?: string;
    subject: ISubject;
    /** What was wrong with it the last time. */
    error?: string;
  }
}

function valueOf(
  request: string | null,
  devices: readonly IDevice[]
): IFormValue {
  const automatic: IChoice = { device: AUTO, memory: SHARED };
  const choice = request === null ? automatic : parseChoice(request, devices);
  return {
    choice: choice ?? automatic,
    written: choice ? null : request,
    amount:
      choice?.memory.kind === 'reserved' ? choice.memory.amount : FIRST_AMOUNT
  };
}
